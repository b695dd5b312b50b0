"""Lint: what a schema can't say about a good constitution."""

from typing import Final

from safehold.constitution.document import Document, words
from safehold.constitution.interface import Constitution
from safehold.constitution.lint import (
    identity,
    neighbours,
    seeds,
    training,
    wording,
    workflow,
)
from safehold.constitution.lint.interface import (
    LintFinding,
    LintRule,
    LintSubject,
    Problem,
    SeedCount,
    Severity,
)

__all__ = [
    "RULES",
    "LintFinding",
    "LintRule",
    "LintSubject",
    "Problem",
    "SeedCount",
    "Severity",
    "lint",
]

# Adding a rule is one entry in the table of its module.
RULES: Final[tuple[LintRule, ...]] = (
    *identity.RULES,
    *neighbours.RULES,
    *workflow.RULES,
    *wording.RULES,
    *seeds.RULES,
    *training.RULES,
)


def lint(
    document: Document | Constitution, *, seeds: tuple[SeedCount, ...] | None = None
) -> tuple[LintFinding, ...]:
    """Return what the rules find, in the order of the file.

    Args:
        document: A constitution; findings carry line and column if it comes with its document.
        seeds: Counts of the written seeds of its domain, empty where there are no seed books, or
            None where nobody looked.
    """
    subject = LintSubject(
        document.constitution if isinstance(document, Document) else document, seeds
    )
    findings = []
    for rule in RULES:
        for problem in rule.check(subject):
            place = document.position(problem.path) if isinstance(document, Document) else None
            findings.append(
                LintFinding(
                    rule=rule.name,
                    severity=rule.severity,
                    path=words(problem.path),
                    line=None if place is None else place.line,
                    column=None if place is None else place.column,
                    message=problem.message,
                )
            )
    return tuple(sorted(findings, key=lambda f: (f.line or 0, f.column or 0)))
