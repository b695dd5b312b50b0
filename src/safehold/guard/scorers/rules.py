"""Written rules: linear-time regular expressions for hot patches and for a guard without a model.

Matching is RE2's (Cox, "Regular Expression Matching in the Wild"): time is linear in the text
whatever the pattern, so no rule can hang a stream. A rule looks back over at most `LOOK_BACK`
characters across deltas. Known attacks (`similar.py`) stand beside the patterns.

Thousands of patterns are searched in groups: the alternatives of a group are one program, and only
where a group matches is each of its patterns asked. (`re2.Set` is not used: it returns "no match"
without an error where it runs out of memory; an ordinary search falls back to a slower one.)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import re2

from safehold.errors import ConfigError
from safehold.guard.scorers.similar import KnownAttack, KnownAttacks, KnownStream

LOOK_BACK = 512
"""Characters before the new text that a rule sees again, so that a match may span deltas."""
_MAX_PROGRAM_BYTES = 1 << 20
_GROUP_SIZE = 48_000
"""RE2 instructions that are searched as one program: a thousand plain patterns, or some sixty with
wide counted gaps, whose states together would not fit what a search may keep."""
_GROUP_BYTES = 32 << 20
_PART = 32
"""Patterns up to which a group that matches asks each of them."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pattern (RE2 syntax, case-insensitive) and the clause it enforces."""

    id: str
    clause: str
    pattern: str


_Search = Callable[[bytes], Any]
_Searches = tuple[tuple[Rule, _Search], ...]


def _looks_around(pattern: str) -> bool:
    r"""Whether a match may depend on where the searched text begins or ends.

    Anchors and word borders do. `\Q` is taken for one, since what it quotes is not read here.
    """
    at, inside = 0, False
    while at < len(pattern):
        mark = pattern[at]
        if mark == "\\":
            if not inside and pattern[at + 1 : at + 2] in "bBAzZQ":
                return True
            at += 2
            continue
        if inside:
            inside = mark != "]"
        elif mark == "[":
            inside = True
            at += pattern.startswith("^", at + 1)
            at += pattern.startswith("]", at + 1)
        elif mark in "^$":
            return True
        at += 1
    return False


class RuleHit(msgspec.Struct, frozen=True):
    """A rule that matched."""

    rule: Rule | KnownAttack


class RuleSet:
    """Compiled rules and known attacks."""

    def __init__(self, rules: Sequence[Rule], known: Sequence[KnownAttack] = ()) -> None:
        """Compile the rules.

        Raises:
            ConfigError: There is no rule, a pattern is not RE2, it matches the empty text, or a
                known attack is too short or too long to compare with.
        """
        if not rules and not known:
            raise ConfigError("a rule set needs at least one rule; an empty list is not 'allow'")
        options = _options(_MAX_PROGRAM_BYTES)
        groups: list[list[tuple[Rule, _Search]]] = [[]]
        size = 0
        for rule in rules:
            try:
                pattern = re2.compile(rule.pattern, options)
            except re2.error as error:
                raise ConfigError(f"rule {rule.id}: not a valid RE2 pattern") from error
            if pattern.search("") is not None:
                raise ConfigError(f"rule {rule.id}: the pattern matches the empty text")
            size += pattern.programsize
            if size > _GROUP_SIZE and groups[-1]:
                groups.append([])
                size = pattern.programsize
            groups[-1].append((rule, pattern.search))
        made = [_Group(tuple(group)) for group in groups]
        self._groups = tuple((one.whole, one.searches, one) for one in made)
        self.known = KnownAttacks(known) if known else None
        self.joins = self.known is None and not any(_looks_around(rule.pattern) for rule in rules)
        """Whether no rule can match a part of a text without matching the whole of it."""

    def matching(self, text: str) -> RuleHit | None:
        """Return the first pattern that matches anywhere in the text."""
        data = text.encode("utf-8", "replace")  # once for all rules; RE2 reads UTF-8
        for whole, searches, group in self._groups:  # spelt out: it runs at every step of a reply
            if whole is None or whole(data) is not None:
                if group.parts:
                    hit = next(group.matching(data), None)
                    if hit is not None:
                        return hit
                    continue
                for rule, search in searches:
                    if search(data) is not None:
                        return RuleHit(rule)
        return None

    def _matching(self, text: str) -> Iterator[RuleHit]:
        data = text.encode("utf-8", "replace")  # once for all rules; RE2 reads UTF-8
        for _, _, group in self._groups:
            yield from group.matching(data)

    def every_matching(self, text: str) -> tuple[RuleHit, ...]:
        """Return every pattern that matches anywhere in the text, in their order."""
        return tuple(self._matching(text))

    def every(self, text: str) -> tuple[RuleHit, ...]:
        """Return every rule that matches, then every known attack that is similar."""
        near = () if self.known is None else self.known.every(text)
        return (*self.every_matching(text), *map(RuleHit, near))

    def search(self, text: str) -> RuleHit | None:
        """Return the first rule that matches, or known attack that is similar, anywhere in it."""
        hit = self.matching(text)
        if hit is None and self.known is not None:
            attack = self.known.search(text)
            hit = None if attack is None else RuleHit(attack)
        return hit


class RuleStream:
    """Rules over a growing text: each call sees the new text and a bounded look-back."""

    __slots__ = ("_known", "_rules", "_tail")

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._tail = ""
        self._known = None if rules.known is None else KnownStream(rules.known)

    def feed(self, text: str) -> RuleHit | None:
        """Return a rule that matches in the look-back and the new text together."""
        window = self._tail + text
        self._tail = window[-LOOK_BACK:]
        hit = self._rules.matching(window)
        if hit is None and self._known is not None:
            hit = _similar(self._known.feed(text))
        return hit

    def quiet(self, text: str) -> bool:
        """Take a text of several steps if no rule can match at any of them; else take nothing."""
        window = self._tail + text
        if not self._rules.joins or self._rules.matching(window) is not None:
            return False
        self._tail = window[-LOOK_BACK:]
        return True

    @property
    def pending(self) -> int:
        """Characters at the end that known attacks were not compared with yet."""
        return 0 if self._known is None else self._known.pending

    def finish(self) -> RuleHit | None:
        """Return a known attack that only the end made similar; patterns have seen everything."""
        return None if self._known is None else _similar(self._known.finish())


def _options(max_bytes: int) -> re2.Options:
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = max_bytes
    options.log_errors = False
    return options


class _Group:
    """Patterns with one search for all of them; of many, the parts have one each too.

    So a text that matches is looked at by the parts that it may match in, not by every pattern.
    """

    __slots__ = ("parts", "searches", "whole")

    def __init__(self, searches: _Searches) -> None:
        self.searches = searches
        self.whole = _together(searches)
        many = len(searches) > _PART and self.whole is not None
        step = max(_PART, -(-len(searches) // _PART))
        self.parts = (
            tuple(_Group(searches[at : at + step]) for at in range(0, len(searches), step))
            if many
            else ()
        )

    def matching(self, data: bytes) -> Iterator[RuleHit]:
        """Yield every pattern that matches, in their order."""
        if self.whole is not None and self.whole(data) is None:
            return
        if self.parts:
            for part in self.parts:
                yield from part.matching(data)
            return
        for rule, search in self.searches:
            if search(data) is not None:
                yield RuleHit(rule)


def _together(searches: _Searches) -> _Search | None:
    """Return one search for all of the patterns; None where they can't be one program."""
    if len(searches) <= 1:
        return None
    try:
        whole = re2.compile(
            "|".join(f"(?:{rule.pattern})" for rule, _ in searches), _options(_GROUP_BYTES)
        )
    except re2.error:  # too large together, or two of them name the same group
        return None
    search: _Search = whole.search
    return search


def _similar(attack: KnownAttack | None) -> RuleHit | None:
    return None if attack is None else RuleHit(attack)
