"""Rules about texts: people judge by them, and generators write from them."""

import unicodedata
from collections.abc import Iterator
from typing import Final

import msgspec

from safehold.constitution.document import ValuePath
from safehold.constitution.interface import PermittedClause, RestrictedClause
from safehold.constitution.lint.interface import LintRule, LintSubject, Problem, Severity

SHORT = 60
_POLICY = {"policy", "principle", "statement"}


def _empty(subject: LintSubject) -> Iterator[Problem]:
    for path, text in _texts(subject):
        if not any(character.isalnum() for character in text):
            yield Problem(path, "expected a text, got an empty one")


def _hidden(subject: LintSubject) -> Iterator[Problem]:
    for path, text in _texts(subject):
        found = sorted({f"U+{ord(c):04X}" for c in text if _is_hidden(c)})
        if found:
            yield Problem(path, f"expected visible text, got {', '.join(found)}")


def _is_hidden(character: str) -> bool:
    """Whether readers of the policy would not see what a digest or a generator sees."""
    return unicodedata.category(character) in {"Cc", "Cf", "Co"} and character not in "\n\t"


def _short(subject: LintSubject) -> Iterator[Problem]:
    for path, text in _texts(subject):
        if path[-1] in _POLICY and 0 < len(text.strip()) < SHORT:
            yield Problem(
                path, f"{len(text.strip())} characters of policy; fewer than {SHORT} rarely decide"
            )


def _repeated(subject: LintSubject) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    constitution = subject.constitution
    clauses: dict[ValuePath, RestrictedClause | PermittedClause] = {}
    clauses.update({("restricted", n): c for n, c in enumerate(constitution.restricted)})
    clauses.update({("permitted", n): c for n, c in enumerate(constitution.permitted)})
    for path, clause in clauses.items():
        folded = " ".join(clause.policy.split()).casefold()
        if folded and folded in seen:
            yield Problem(
                (*path, "policy"),
                f"clauses {seen[folded]} and {clause.id} have the same wording",
            )
        seen.setdefault(folded, clause.id)


def _texts(subject: LintSubject) -> Iterator[tuple[ValuePath, str]]:
    """Yield every text that people write, with its path."""
    constitution = subject.constitution
    yield ("title",), constitution.title
    yield ("version",), constitution.version
    yield ("principle",), constitution.principle
    for name in ("stages", "restricted", "permitted"):
        for n, value in enumerate(getattr(constitution, name)):
            yield from _within((name, n), msgspec.structs.asdict(value))
            for m, ask in enumerate(getattr(value, "asks", ())):
                yield (name, n, "asks", m), ask
    for n, entry in enumerate(constitution.lexicon):
        for key in ("names", "restricted", "permitted"):
            for m, text in enumerate(getattr(entry, key)):
                yield ("lexicon", n, key, m), text
    for n, clause in enumerate(constitution.restricted):
        known = clause.commonly_known
        if known is not None:
            path: ValuePath = ("restricted", n, "commonly_known")
            yield (*path, "statement"), known.statement
            for m, example in enumerate(known.examples):
                yield (*path, "examples", m), example


def _within(path: ValuePath, fields: dict[str, object]) -> Iterator[tuple[ValuePath, str]]:
    for key in ("title", "policy", "covers"):
        text = fields.get(key)
        if isinstance(text, str):
            yield (*path, key), text


RULES: Final = (
    LintRule("empty-text", Severity.ERROR, "a text holds no letter and no digit", _empty),
    LintRule("hidden-characters", Severity.ERROR, "a text holds what nobody sees", _hidden),
    LintRule("short-policy", Severity.WARNING, f"a policy has under {SHORT} characters", _short),
    LintRule("repeated-policy", Severity.WARNING, "two clauses have the same wording", _repeated),
)
