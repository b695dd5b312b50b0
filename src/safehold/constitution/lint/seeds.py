"""Rules that hold a constitution against the written seeds of its domain."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from safehold.constitution.document import ValuePath
from safehold.constitution.interface import GeneratorRule
from safehold.constitution.lint.interface import LintRule, LintSubject, Problem, Severity

THIN = 8


def _operator_only(subject: LintSubject) -> Iterator[Problem]:
    if subject.seeds and subject.constitution.generator is GeneratorRule.OPERATOR_ONLY:
        yield Problem(
            ("generator",),
            "an operator-only constitution can't have written seeds in the package",
        )


def _clauses(subject: LintSubject) -> Iterator[Problem]:
    for path, name, texts in _clause_counts(subject):
        if texts == 0:
            yield Problem(path, f"no written seed is about clause {name}")


def _thin(subject: LintSubject) -> Iterator[Problem]:
    for path, name, texts in (*_clause_counts(subject), *_stage_counts(subject)):
        if 0 < texts < THIN:
            yield Problem(path, f"only {texts} written seeds are about {name}")


def _stages(subject: LintSubject) -> Iterator[Problem]:
    for path, name, texts in _stage_counts(subject):
        if texts == 0:
            yield Problem(path, f"no written seed is about {name}")


def _unknown(subject: LintSubject) -> Iterator[Problem]:
    constitution = subject.constitution
    sides: dict[str, tuple[str, frozenset[str]]] = {
        clause.id: ("permitted", frozenset()) for clause in constitution.permitted
    }
    for clause in constitution.restricted:
        sides[clause.id] = ("restricted", frozenset(clause.stages))
    for count in subject.seeds or ():
        side, stages = sides.get(count.clause, (None, frozenset()))
        if side is None:
            yield Problem((), f"written seeds are about {count.clause}, which no clause has as id")
        elif side != count.side:
            yield Problem(
                (), f"written seeds call clause {count.clause} {count.side}, but it is {side}"
            )
        elif count.stage is not None and count.stage not in stages:
            yield Problem(
                (), f"written seeds of {count.clause} name stage {count.stage}, not one of its own"
            )


def _clause_counts(subject: LintSubject) -> Iterator[tuple[ValuePath, str, int]]:
    if not subject.seeds:
        return
    totals: Counter[str] = Counter()
    for count in subject.seeds:
        totals[count.clause] += count.texts
    constitution = subject.constitution
    for n, restricted in enumerate(constitution.restricted):
        yield ("restricted", n, "id"), restricted.id, totals[restricted.id]
    for n, permitted in enumerate(constitution.permitted):
        yield ("permitted", n, "id"), permitted.id, totals[permitted.id]


def _stage_counts(subject: LintSubject) -> Iterator[tuple[ValuePath, str, int]]:
    if not subject.seeds:
        return
    totals: Counter[tuple[str, str | None]] = Counter()
    for count in subject.seeds:
        totals[count.clause, count.stage] += count.texts
    for n, clause in enumerate(subject.constitution.restricted):
        for m, stage in enumerate(clause.stages):
            path = ("restricted", n, "stages", m)
            yield path, f"stage {stage} of {clause.id}", totals[clause.id, stage]


RULES: Final = (
    LintRule(
        "seeds-for-operator-only",
        Severity.ERROR,
        "an operator-only constitution has written seeds",
        _operator_only,
    ),
    LintRule("clause-without-seeds", Severity.ERROR, "no seed is about a clause", _clauses),
    LintRule(
        "stage-without-seeds", Severity.ERROR, "no seed is about a stage of a clause", _stages
    ),
    LintRule("thin-seeds", Severity.WARNING, f"fewer than {THIN} seeds are about it", _thin),
    LintRule(
        "stray-seeds",
        Severity.ERROR,
        "a seed book names a clause, side or stage that does not exist",
        _unknown,
    ),
)
