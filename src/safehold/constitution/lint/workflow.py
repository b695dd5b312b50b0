"""Rules about workflow stages and about what is commonly known."""

from collections.abc import Iterator
from typing import Final

from safehold.constitution.interface import GeneratorRule
from safehold.constitution.lint.interface import LintRule, LintSubject, Problem, Severity


def _unknown(subject: LintSubject) -> Iterator[Problem]:
    defined = {stage.id for stage in subject.constitution.stages}
    for n, clause in enumerate(subject.constitution.restricted):
        for m, name in enumerate(clause.stages):
            if name not in defined:
                yield Problem(
                    ("restricted", n, "stages", m),
                    f"expected a stage of the constitution, got {name}",
                )


def _unreferenced(subject: LintSubject) -> Iterator[Problem]:
    named = {name for clause in subject.constitution.restricted for name in clause.stages}
    for n, stage in enumerate(subject.constitution.stages):
        if stage.id not in named:
            yield Problem(("stages", n, "id"), f"no restricted clause covers stage {stage.id}")


def _missing(subject: LintSubject) -> Iterator[Problem]:
    if subject.constitution.generator is GeneratorRule.OPERATOR_ONLY:
        return  # its stages, if any, are the operator's own knowledge
    for n, clause in enumerate(subject.constitution.restricted):
        if not clause.stages:
            yield Problem(
                ("restricted", n),
                f"restricted clause {clause.id} covers no workflow stage, "
                "so nothing shows whether its data is complete",
            )


def _commonly_known(subject: LintSubject) -> Iterator[Problem]:
    for n, clause in enumerate(subject.constitution.restricted):
        if clause.commonly_known is None:
            yield Problem(
                ("restricted", n),
                f"restricted clause {clause.id} does not say what is commonly known, "
                "so single known facts would be blocked",
            )


def _examples(subject: LintSubject) -> Iterator[Problem]:
    if subject.constitution.generator is GeneratorRule.OPERATOR_ONLY:
        return  # such a constitution may hold policy wording alone
    for n, clause in enumerate(subject.constitution.restricted):
        if clause.commonly_known is not None and not clause.commonly_known.examples:
            yield Problem(
                ("restricted", n, "commonly_known"),
                f"restricted clause {clause.id} gives no example of what is commonly known",
            )


RULES: Final = (
    LintRule("unknown-stage", Severity.ERROR, "a clause covers an undefined stage", _unknown),
    LintRule(
        "unreferenced-stage", Severity.ERROR, "no clause covers a defined stage", _unreferenced
    ),
    LintRule("missing-stages", Severity.ERROR, "a restricted clause covers no stage", _missing),
    LintRule(
        "missing-commonly-known",
        Severity.ERROR,
        "a restricted clause does not say what stays free",
        _commonly_known,
    ),
    LintRule("no-known-examples", Severity.WARNING, "… or says it without an example", _examples),
)
