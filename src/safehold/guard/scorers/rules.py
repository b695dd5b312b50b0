"""Written rules: linear-time regular expressions for hot patches and for a guard without a model.

Matching is RE2's (Cox, "Regular Expression Matching in the Wild"): time is linear in the text
whatever the pattern, so no rule can hang a stream. A rule looks back over at most `LOOK_BACK`
characters across deltas.
"""

from collections.abc import Sequence

import msgspec
import re2

from safehold.errors import ConfigError

LOOK_BACK = 512
"""Characters before the new text that a rule sees again, so that a match may span deltas."""
_MAX_PROGRAM_BYTES = 1 << 20


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pattern (RE2 syntax, case-insensitive) and the clause it enforces."""

    id: str
    clause: str
    pattern: str


class RuleHit(msgspec.Struct, frozen=True):
    """A rule that matched."""

    rule: Rule


class RuleSet:
    """Compiled rules, matched in one pass."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Compile the rules.

        Raises:
            ConfigError: There is no rule, a pattern is not RE2, or it matches the empty text.
        """
        if not rules:
            raise ConfigError("a rule set needs at least one rule; an empty list is not 'allow'")
        options = re2.Options()
        options.case_sensitive = False
        options.max_mem = _MAX_PROGRAM_BYTES
        options.log_errors = False
        searches = []
        for rule in rules:
            try:
                pattern = re2.compile(rule.pattern, options)
            except re2.error as error:
                raise ConfigError(f"rule {rule.id}: not a valid RE2 pattern") from error
            if pattern.search("") is not None:
                raise ConfigError(f"rule {rule.id}: the pattern matches the empty text")
            searches.append((rule, pattern.search))
        self._searches = tuple(searches)

    def search(self, text: str) -> RuleHit | None:
        """Return the first rule that matches anywhere in the text."""
        data = text.encode("utf-8", "replace")  # once for all rules; RE2 reads UTF-8
        for rule, search in self._searches:
            if search(data) is not None:
                return RuleHit(rule)
        return None


class RuleStream:
    """Rules over a growing text: each call sees the new text and a bounded look-back."""

    __slots__ = ("_rules", "_tail")

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._tail = ""

    def feed(self, text: str) -> RuleHit | None:
        """Return a rule that matches in the look-back and the new text together."""
        window = self._tail + text
        self._tail = window[-LOOK_BACK:]
        return self._rules.search(window)
