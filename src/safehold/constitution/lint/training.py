"""Rules about what a generator and a trainer need from the file."""

from collections.abc import Iterator
from typing import Final

from safehold.constitution.interface import GeneratorRule
from safehold.constitution.lint.interface import LintRule, LintSubject, Problem, Severity

FEW_ASKS = 3
FEW_NAMES = 5
SLOT = "{name}"


def _written(subject: LintSubject) -> bool:
    """Whether seed books or a vetted generator of the operator's stand in for what is missing.

    Where nobody looked for seed books, they might.
    """
    return subject.seeds != () or subject.constitution.generator is GeneratorRule.OPERATOR_ONLY


def _few_asks(subject: LintSubject) -> Iterator[Problem]:
    if _written(subject):
        return
    for n, clause in enumerate(subject.constitution.restricted):
        if len(clause.asks) < FEW_ASKS:
            yield Problem(
                ("restricted", n),
                f"restricted clause {clause.id} has {len(clause.asks)} example asks; "
                f"a generator follows {FEW_ASKS} or more (key asks)",
            )


def _no_lexicon(subject: LintSubject) -> Iterator[Problem]:
    if _written(subject):
        return
    have = {entry.clause for entry in subject.constitution.lexicon if len(entry.names) >= FEW_NAMES}
    for n, clause in enumerate(subject.constitution.restricted):
        if clause.id not in have:
            yield Problem(
                ("restricted", n, "id"),
                f"no lexicon entry gives {FEW_NAMES} names for clause {clause.id}; without them an "
                "answer off the subject looks like a good one",
            )


def _places(subject: LintSubject) -> Iterator[Problem]:
    restricted = {clause.id for clause in subject.constitution.restricted}
    permitted = {clause.id for clause in subject.constitution.permitted}
    for n, entry in enumerate(subject.constitution.lexicon):
        for key, name, known in (
            ("clause", entry.clause, restricted),
            ("near", entry.near, permitted),
        ):
            if name not in known:
                side = "restricted" if key == "clause" else "permitted"
                yield Problem(
                    ("lexicon", n, key), f"expected the id of a {side} clause, got {name}"
                )


def _slots(subject: LintSubject) -> Iterator[Problem]:
    for n, entry in enumerate(subject.constitution.lexicon):
        for key, texts in (("restricted", entry.restricted), ("permitted", entry.permitted)):
            for m, text in enumerate(texts):
                if text.strip() and SLOT not in text:
                    yield Problem(
                        ("lexicon", n, key, m), f"expected a sentence with {SLOT}, got none"
                    )


def _sides(subject: LintSubject) -> Iterator[Problem]:
    for n, entry in enumerate(subject.constitution.lexicon):
        if bool(entry.restricted) is not bool(entry.permitted):
            yield Problem(
                ("lexicon", n),
                "expected asks on both sides or on none: a name that comes on one side alone "
                "decides by itself",
            )


def _same_ask(subject: LintSubject) -> Iterator[Problem]:
    constitution = subject.constitution
    asked = {ask.strip().casefold() for clause in constitution.restricted for ask in clause.asks}
    for n, clause in enumerate(constitution.permitted):
        for m, ask in enumerate(clause.asks):
            if ask.strip() and ask.strip().casefold() in asked:
                yield Problem(
                    ("permitted", n, "asks", m), "a restricted clause has this very ask as well"
                )


RULES: Final = (
    LintRule("few-asks", Severity.WARNING, f"fewer than {FEW_ASKS} example asks", _few_asks),
    LintRule("no-lexicon", Severity.WARNING, "no names say what a clause is about", _no_lexicon),
    LintRule(
        "lexicon-clause", Severity.ERROR, "a lexicon entry names a clause that is not", _places
    ),
    LintRule("lexicon-slot", Severity.ERROR, f"a lexicon sentence has no {SLOT}", _slots),
    LintRule("lexicon-side", Severity.ERROR, "a lexicon entry asks on one side only", _sides),
    LintRule("same-ask", Severity.ERROR, "an ask is restricted and permitted", _same_ask),
)
