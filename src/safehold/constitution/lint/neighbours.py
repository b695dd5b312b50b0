"""Rules about the permitted side: a guard is narrow only if it was taught what is near."""

from collections.abc import Iterator
from typing import Final

from safehold.constitution.interface import ClauseRole, Tier
from safehold.constitution.lint.interface import LintRule, LintSubject, Problem, Severity

FEW = 3


def _missing(subject: LintSubject) -> Iterator[Problem]:
    for n, clause in enumerate(subject.constitution.restricted):
        if not clause.neighbours:
            yield Problem(
                ("restricted", n),
                f"restricted clause {clause.id} names no permitted neighbour: "
                "what is near it would be blocked too; `safehold constitution neighbours` proposes "
                "some",
            )


def _few(subject: LintSubject) -> Iterator[Problem]:
    for n, clause in enumerate(subject.constitution.restricted):
        if 0 < len(set(clause.neighbours)) < FEW:
            yield Problem(
                ("restricted", n, "neighbours"),
                f"restricted clause {clause.id} names {len(set(clause.neighbours))} permitted "
                f"neighbours; at least {FEW} keep a guard narrow",
            )


def _unknown(subject: LintSubject) -> Iterator[Problem]:
    constitution = subject.constitution
    permitted = {clause.id for clause in constitution.permitted}
    restricted = {clause.id for clause in constitution.restricted}
    for n, clause in enumerate(constitution.restricted):
        for m, name in enumerate(clause.neighbours):
            if name not in permitted and name not in restricted:
                yield Problem(
                    ("restricted", n, "neighbours", m),
                    f"expected the id of a permitted clause, got {name}, which no clause has",
                )


def _restricted(subject: LintSubject) -> Iterator[Problem]:
    constitution = subject.constitution
    restricted = {clause.id for clause in constitution.restricted}
    for n, clause in enumerate(constitution.restricted):
        for m, name in enumerate(clause.neighbours):
            if name in restricted:
                yield Problem(
                    ("restricted", n, "neighbours", m),
                    f"expected the id of a permitted clause, got {name}, which is restricted",
                )


def _unnamed(subject: LintSubject) -> Iterator[Problem]:
    named = {name for clause in subject.constitution.restricted for name in clause.neighbours}
    for n, clause in enumerate(subject.constitution.permitted):
        if clause.role is ClauseRole.NEIGHBOUR and clause.id not in named:
            yield Problem(
                ("permitted", n, "id"),
                f"no restricted clause names permitted clause {clause.id} as a neighbour "
                "(a clause for everything else has role: general)",
            )


def _general(subject: LintSubject) -> Iterator[Problem]:
    if not any(clause.role is ClauseRole.GENERAL for clause in subject.constitution.permitted):
        yield Problem(
            ("permitted",),
            "no permitted clause has role: general, so ordinary use would go uncalibrated",
        )


def _sides(subject: LintSubject) -> Iterator[Problem]:
    if not subject.constitution.restricted:
        yield Problem(("restricted",), "expected at least one restricted clause, got none")
    if not subject.constitution.permitted:
        yield Problem(("permitted",), "expected at least one permitted clause, got none")


def _tiers(subject: LintSubject) -> Iterator[Problem]:
    for n, restricted in enumerate(subject.constitution.restricted):
        if restricted.tier is Tier.BENIGN:
            yield Problem(
                ("restricted", n, "tier"),
                f"restricted clause {restricted.id} can't be of tier benign; permit it instead",
            )
    for n, permitted in enumerate(subject.constitution.permitted):
        if permitted.tier in {Tier.PROHIBITED, Tier.HIGH_RISK_DUAL_USE}:
            yield Problem(
                ("permitted", n, "tier"),
                f"permitted clause {permitted.id} can't be of tier {permitted.tier}; "
                "restrict it instead",
            )


RULES: Final = (
    LintRule("empty-side", Severity.ERROR, "there is no restricted or no permitted clause", _sides),
    LintRule(
        "missing-neighbours", Severity.ERROR, "a restricted clause names no neighbour", _missing
    ),
    LintRule("few-neighbours", Severity.WARNING, f"… or fewer than {FEW}", _few),
    LintRule("unknown-neighbour", Severity.ERROR, "a neighbour is no clause at all", _unknown),
    LintRule(
        "restricted-neighbour", Severity.ERROR, "a neighbour is itself restricted", _restricted
    ),
    LintRule(
        "unnamed-permitted",
        Severity.ERROR,
        "no restricted clause names a permitted one as its neighbour",
        _unnamed,
    ),
    LintRule("no-general-clause", Severity.WARNING, "no clause is for everything else", _general),
    LintRule("tier-contradicts-side", Severity.ERROR, "a tier belongs to the other side", _tiers),
)
