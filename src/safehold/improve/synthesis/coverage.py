"""What a generator gave, cell by cell: the table that shows thin data before it is trained on."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from datasketch import MinHashLSH

from safehold.improve.synthesis.cells import Cell
from safehold.improve.synthesis.families import PERMUTATIONS, sketch
from safehold.improve.synthesis.generator import CellYield, thin_groups, wanted_of

COVERAGE = "coverage.json"
_ALIKE = 0.5
_GRAM = 3


class GroupCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what was wanted and came, why the rest did not, and how different it is.

    `distinct` is the share of word triples that come once, `clusters` the number of groups of
    answers that resemble each other, per answer; both are 1 where nothing repeats. `told` is how
    well its answers tell where they belong, of those that came: 0.5 is chance (`nonsense`).
    """

    group: str
    side: str
    wanted: int
    asks: int
    answers: int
    faults: dict[str, int]
    distinct: float
    clusters: float
    thin: bool
    told: float = 1.0

    @property
    def note(self) -> str:
        """What is wrong with it, in words; empty where nothing is."""
        if not self.thin:
            return ""
        why = max(self.faults, key=lambda name: self.faults[name], default="few messages")
        return f"thin, mostly: {why}"


class SynthesisCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """The table of one generator, with the same counts by language, form and difficulty."""

    generator: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    groups: tuple[GroupCoverage, ...]
    languages: dict[str, int]
    forms: dict[str, int]
    difficulties: dict[str, int]
    strange: tuple[str, ...] = ()
    """Cells that lost all their answers since none of them tells its message from others."""

    @property
    def thin(self) -> tuple[GroupCoverage, ...]:
        """The rows that want filling."""
        return tuple(row for row in self.groups if row.thin)

    @property
    def empty(self) -> tuple[GroupCoverage, ...]:
        """The rows without any usable answer."""
        return tuple(row for row in self.groups if not row.answers)


def coverage_of(
    generator: str, yields: Sequence[CellYield], *, calls: int, tokens: tuple[int, int]
) -> SynthesisCoverage:
    """Return the table of what a generator gave; `tokens` are those of prompts and of answers."""
    groups: dict[str, list[CellYield]] = {}
    for one in yields:
        groups.setdefault(one.cell.group, []).append(one)
    thin, wanted = thin_groups(yields), wanted_of(yields)
    return SynthesisCoverage(
        generator=generator,
        calls=calls,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        groups=tuple(
            _row(group, own, wanted.get(group, 0), thin=group in thin)
            for group, own in groups.items()
        ),
        languages=_answers_by((one, one.cell.language) for one in yields),
        forms=_answers_by((one, one.cell.form.value) for one in yields),
        difficulties=_answers_by((one, one.cell.difficulty.value) for one in yields),
        strange=tuple(one.cell.name for one in yields if one.told and not one.answered),
    )


def _row(group: str, yields: Sequence[CellYield], wanted: int, *, thin: bool) -> GroupCoverage:
    faults: Counter[str] = Counter()
    for one in yields:
        faults.update(one.faults)
    replies = [reply for one in yields for _, reply in one.pairs if reply]
    cell: Cell = yields[0].cell
    marks = [mark for one in yields for mark in one.told]
    return GroupCoverage(
        group=group,
        side=cell.side.value,
        wanted=wanted,
        asks=sum(len(one.pairs) for one in yields),
        answers=len(replies),
        faults=dict(sorted(faults.items())),
        distinct=round(distinct(replies), 3),
        clusters=round(clusters(replies), 3),
        thin=thin,
        told=round(sum(marks) / len(marks), 3) if marks else 1.0,
    )


def distinct(texts: Sequence[str]) -> float:
    """Return the number of different word triples by all of them; 1.0 for no text.

    The measure is distinct-n of Li et al., "A Diversity-Promoting Objective Function for Neural
    Conversation Models", NAACL 2016, over all the texts together.
    """
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.casefold().split()
        grams.update(tuple(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1))
    total = grams.total()
    return len(grams) / total if total else 1.0


def clusters(texts: Sequence[str]) -> float:
    """Return the number of groups of texts that resemble each other, per text; 1.0 for no text."""
    if not texts:
        return 1.0
    roots = list(range(len(texts)))

    def root(at: int) -> int:
        while roots[at] != at:
            at = roots[at]
        return at

    index = MinHashLSH(threshold=_ALIKE, num_perm=PERMUTATIONS)
    for at, text in enumerate(texts):
        own = sketch(text.casefold())
        for other in index.query(own):
            roots[root(at)] = root(int(other))
        index.insert(str(at), own)
    return len({root(at) for at in range(len(texts))}) / len(texts)


def _answers_by(rows: Iterable[tuple[CellYield, str]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for one, name in rows:
        counts[name] += one.answered
    return dict(sorted(counts.items()))
