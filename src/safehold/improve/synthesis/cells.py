"""What a generator is asked for: a fixed list of cells, drawn up before any call is made.

A cell is a clause, a stage of it, a form, a language, a difficulty and a round. Forms, languages
and difficulties turn with the rounds at different speeds, so that a few rounds cover every pair
of a clause with each of them. Each permitted cell beside a restricted clause is the twin of one of
its cells: the same things, form, language and difficulty, another purpose.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from safehold.constitution import ClauseRole, Constitution
from safehold.improve.synthesis.interface import Side


class Form(StrEnum):
    """The shape of an answer."""

    CHAT = "chat"
    STEPS = "steps"
    PASSAGE = "passage"
    NOTES = "notes"
    LETTER = "letter"
    DIALOGUE = "dialogue"
    TABLE = "table"
    SCENE = "scene"


class Difficulty(StrEnum):
    """Who asks."""

    BEGINNER = "beginner"
    PRACTISED = "practised"
    EXPERT = "expert"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of messages and answers to ask for; `twin` names the restricted cell beside it."""

    side: Side
    clause: str
    stage: str | None
    form: Form
    language: str
    difficulty: Difficulty
    round: int
    twin: str | None = None

    @property
    def group(self) -> str:
        """What coverage is counted by: the clause and, where it has one, the stage."""
        return f"{self.clause}/{self.stage or 'all'}"

    @property
    def name(self) -> str:
        """The cell's name, unique in a plan; examples made from it begin with it."""
        return f"{self.group}/{self.round:03}"

    @property
    def family(self) -> str:
        """The family of what comes from it: a twin goes where its other goes."""
        return self.twin or self.name


_FORMS = tuple(Form)
_DIFFICULTIES = tuple(Difficulty)


def cells_of(
    constitution: Constitution,
    *,
    languages: Sequence[str],
    rounds: int,
    start: int = 0,
    groups: frozenset[str] | None = None,
) -> list[Cell]:
    """Return the cells of some rounds, restricted ones first, in a fixed order.

    Args:
        constitution: Whose clauses and stages are asked for.
        languages: At least one; the first comes as often as all others together.
        rounds: Cells for each clause and stage.
        start: The first round's number: a later run that fills goes on behind the earlier one.
        groups: Only these groups, where given.
    """
    turn = _turned(languages)
    found: list[Cell] = []
    count = 0
    for clause in constitution.restricted:
        for number, stage in enumerate(clause.stages or (None,)):
            for at in range(start, start + rounds):
                found.append(_cell(Side.RESTRICTED, clause.id, stage, turn, offset=number, at=at))
                count += 1
    neighbours = [c for c in constitution.permitted if c.role is ClauseRole.NEIGHBOUR]
    # As many permitted cells as restricted ones, and no neighbour without a round.
    each = max(rounds, -(-rounds * count // max(1, rounds * len(neighbours))))
    for place, permitted in enumerate(neighbours):
        beside = [
            cell for cell in found if permitted.id in _neighbours(constitution, cell.clause)
        ] or list(found)
        for at in range(start * each // max(1, rounds), start * each // max(1, rounds) + each):
            other = beside[(place + at * 7) % len(beside)] if beside else None
            found.append(_twin(permitted.id, other, turn, at))
    for general in constitution.permitted:
        if general.role is ClauseRole.GENERAL:
            found += [
                _cell(Side.PERMITTED, general.id, None, turn, offset=5, at=at)
                for at in range(start, start + rounds)
            ]
    return [cell for cell in found if groups is None or cell.group in groups]


def _neighbours(constitution: Constitution, clause_id: str) -> frozenset[str]:
    for clause in constitution.restricted:
        if clause.id == clause_id:
            return frozenset(clause.neighbours)
    return frozenset()


def _turned(languages: Sequence[str]) -> tuple[str, ...]:
    first, rest = languages[0], tuple(languages[1:])
    return tuple(one for other in rest for one in (first, other)) or (first,)


def _cell(
    side: Side, clause: str, stage: str | None, turn: Sequence[str], *, offset: int, at: int
) -> Cell:
    step = at + offset
    return Cell(
        side=side,
        clause=clause,
        stage=stage,
        form=_FORMS[step * 3 % len(_FORMS)],
        language=turn[step % len(turn)],
        difficulty=_DIFFICULTIES[(step + step // len(_DIFFICULTIES)) % len(_DIFFICULTIES)],
        round=at,
    )


def _twin(clause: str, other: Cell | None, turn: Sequence[str], at: int) -> Cell:
    if other is None:
        return _cell(Side.PERMITTED, clause, None, turn, offset=0, at=at)
    return msgspec.structs.replace(
        other, side=Side.PERMITTED, clause=clause, stage=None, round=at, twin=other.name
    )
