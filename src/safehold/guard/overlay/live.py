"""The hot rules in force, as sessions search them: compiled once, exchanged whole.

A session asks for the rules anew at every step, so a rule that comes while a reply is streamed is
in force for its next text. Searching has no side effects; the session keeps what was hit.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from safehold.errors import ConfigError
from safehold.guard.overlay.interface import (
    HotHit,
    HotRule,
    OverlayContent,
    OverlayError,
    RuleState,
)
from safehold.guard.scorers.rules import LOOK_BACK, Rule, RuleHit, RuleSet
from safehold.guard.scorers.similar import KnownAttack, KnownStream

_TAIL = 6_000
"""Characters of a lane that are kept for rules that come later: the longest known stretch."""


class RulesInForce(msgspec.Struct, frozen=True):
    """Rules in force between two changes; `version` differs for every set.

    `changes_at` is when the next rule begins or ends (seconds since the epoch), None for never.
    """

    version: int
    rules: RuleSet | None = None
    hits: dict[str, HotHit] = {}
    changes_at: float | None = None


NO_RULES = RulesInForce(version=0)
HotSource = Callable[[], RulesInForce]
"""Gives the rules in force now."""


def no_hot_rules() -> RulesInForce:
    """Give none: a guard without an overlay."""
    return NO_RULES


def compiled(content: OverlayContent, *, now: float, version: int) -> RulesInForce:
    """Return the rules of a file that are in force now.

    Raises:
        OverlayError: A pattern is not RE2 or matches nothing, or a known text is too short.
    """
    alive = [one for one in content.rules if one.rule.created <= now < one.rule.expires]
    marks = [at for one in content.rules for at in (one.rule.created, one.rule.expires) if at > now]
    try:
        rules = RuleSet(*_split([one.rule for one in alive])) if alive else None
    except ConfigError as error:
        raise OverlayError(f"hot rules: {error}") from error
    return RulesInForce(
        version=version,
        rules=rules,
        hits={
            one.rule.id: HotHit(one.rule.id, one.rule.owner, one.state is RuleState.ACTING)
            for one in alive
        },
        changes_at=min(marks, default=None),
    )


def _split(rules: Sequence[HotRule]) -> tuple[list[Rule], list[KnownAttack]]:
    return (
        [Rule(one.id, one.clause, one.pattern) for one in rules if one.pattern],
        [KnownAttack(one.id, one.clause, one.text, one.at_least) for one in rules if one.text],
    )


class HotSearch:
    """The hot rules as one exchange meets them; keeps each rule that was hit, once."""

    def __init__(self, source: HotSource) -> None:
        self._source = source
        self.never = source is no_hot_rules
        self._version = source().version
        self.hit: dict[str, HotHit] = {}

    @property
    def now(self) -> RulesInForce:
        """The rules in force now."""
        return self._source()

    @property
    def idle(self) -> bool:
        """Whether no hot rule is in force, and none was since `changed` was last asked."""
        now = self._source()
        return now.rules is None and now.version == self._version

    def changed(self) -> bool:
        """Say, once for each change, whether other rules are in force than before."""
        version = self._source().version
        changed, self._version = version != self._version, version
        return changed

    def search(self, text: str) -> RuleHit | None:
        """Search a whole text; return the first rule that acts, note every rule that matches."""
        rules = self._source().rules
        return None if rules is None else self.noted(rules.every(text))

    def noted(self, found: Iterable[RuleHit]) -> RuleHit | None:
        """Note what was hit; return the first that acts."""
        known, acts = self._source().hits, None
        for hit in found:
            one = known.get(hit.rule.id)
            if one is None:  # it ended while the text was searched
                continue
            self.hit[one.rule] = one
            if one.acted and acts is None:
                acts = hit
        return acts

    def stream(self) -> "HotStream":
        """Start a lane of a reply."""
        return HotStream(self)


class HotStream:
    """The hot rules over a growing text, whichever are in force when it grows."""

    __slots__ = ("_known", "_search", "_tail", "_version", "never")

    def __init__(self, search: HotSearch) -> None:
        self._search = search
        self.never = search.never
        self._tail = ""
        self._version = -1
        self._known: KnownStream | None = None

    @property
    def idle(self) -> bool:
        """Whether no hot rule is in force, and none was at the last step."""
        return self.never or (self._search.idle and self._known is None)

    @property
    def pending(self) -> int:
        """Characters at the end that known attacks were not compared with yet."""
        return 0 if self._known is None else self._known.pending

    def feed(self, text: str) -> RuleHit | None:
        """Return a rule that acts and matches in the new text and the look-back together."""
        now = self._search.now
        before, self._tail = self._tail, (self._tail + text)[-_TAIL:]
        if now.version != self._version:
            self._version = now.version
            known = None if now.rules is None else now.rules.known
            self._known = None if known is None else KnownStream(known)
            if now.rules is None or not before:
                return self._more(now, before, text)
            # Rules that came since: what was said before counts too.
            hit = self._search.noted(now.rules.every(before + text))
            if self._known is not None:
                self._search.noted(_hits(self._known.feed_every(before + text)))
            return hit
        return self._more(now, before, text)

    def _more(self, now: RulesInForce, before: str, text: str) -> RuleHit | None:
        if now.rules is None:
            return None
        found = list(now.rules.every_matching(before[-LOOK_BACK:] + text))
        if self._known is not None:
            found += _hits(self._known.feed_every(text))
        return self._search.noted(found)

    def finish(self) -> RuleHit | None:
        """Return a known attack that only the end made similar."""
        if self._known is None:
            return None
        return self._search.noted(_hits(self._known.finish_every()))


def _hits(attacks: Sequence[KnownAttack]) -> list[RuleHit]:
    return [RuleHit(one) for one in attacks]
