"""Rules about ids: each names one thing, and each thing named exists."""

from collections.abc import Iterable, Iterator
from typing import Final

from safehold.constitution.document import ValuePath
from safehold.constitution.lint.interface import LintRule, LintSubject, Problem, Severity


def _duplicate_clauses(subject: LintSubject) -> Iterator[Problem]:
    constitution = subject.constitution
    places: list[tuple[ValuePath, str]] = [
        (("restricted", n, "id"), c.id) for n, c in enumerate(constitution.restricted)
    ]
    places += [(("permitted", n, "id"), c.id) for n, c in enumerate(constitution.permitted)]
    yield from _repeats(places, "clause")


def _duplicate_stages(subject: LintSubject) -> Iterator[Problem]:
    stages = enumerate(subject.constitution.stages)
    yield from _repeats(((("stages", n, "id"), stage.id) for n, stage in stages), "stage")


def _repeated_references(subject: LintSubject) -> Iterator[Problem]:
    for n, clause in enumerate(subject.constitution.restricted):
        for field, ids in (("stages", clause.stages), ("neighbours", clause.neighbours)):
            places: Iterator[tuple[ValuePath, str]] = (
                (("restricted", n, field, m), name) for m, name in enumerate(ids)
            )
            yield from _repeats(places, f"{field} entry")


def _repeats(places: Iterable[tuple[ValuePath, str]], what: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for path, name in places:
        if name in seen:
            yield Problem(path, f"expected each {what} once, got {name} again")
        seen.add(name)


RULES: Final = (
    LintRule(
        "duplicate-clause-id",
        Severity.ERROR,
        "two clauses, on whichever side, have one id",
        _duplicate_clauses,
    ),
    LintRule("duplicate-stage-id", Severity.ERROR, "two stages have one id", _duplicate_stages),
    LintRule(
        "repeated-reference",
        Severity.ERROR,
        "a clause lists one stage or one neighbour twice",
        _repeated_references,
    ),
)
