"""Written rules as one exchange meets them: the bundle's own, and the hot ones over it."""

from safehold.guard.overlay.live import HotSearch, HotStream
from safehold.guard.scorers.rules import RuleHit, RuleSet, RuleStream


class WrittenRules:
    """Searches whole texts of one exchange and opens its lanes."""

    def __init__(self, rules: RuleSet | None, hot: HotSearch) -> None:
        """Take the bundle's rules and the hot ones."""
        self._rules = rules
        self.hot = hot

    @property
    def none(self) -> bool:
        """Whether there is no rule at all now."""
        return self._rules is None and self.hot.now.rules is None

    def search(self, text: str) -> RuleHit | None:
        """Return a rule that blocks the text, the bundle's before the hot ones.

        Every hot rule is searched, also where the bundle's own block: its hits are counted.
        """
        hot = self.hot.search(text)
        own = None if self._rules is None else self._rules.search(text)
        return hot if own is None else own

    def stream(self) -> "WrittenStream":
        """Start a lane of a reply."""
        own = None if self._rules is None else RuleStream(self._rules)
        return WrittenStream(own, self.hot.stream())


class WrittenStream:
    """All written rules over a growing text."""

    __slots__ = ("_hot", "_own")

    def __init__(self, own: RuleStream | None, hot: HotStream) -> None:
        self._own = own
        self._hot = hot

    @property
    def pending(self) -> int:
        """Characters at the end that known attacks were not compared with yet."""
        return max(0 if self._own is None else self._own.pending, self._hot.pending)

    def feed(self, text: str) -> RuleHit | None:
        """Return a rule that blocks now that the text has grown."""
        hot = self._hot.feed(text)
        own = None if self._own is None else self._own.feed(text)
        return hot if own is None else own

    def quiet(self, text: str) -> bool:
        """Take a text of several steps if no rule can match at any of them; else take nothing."""
        hot = self._hot
        if not (hot.idle and (self._own is None or self._own.quiet(text))):
            return False
        if not hot.never:
            hot.feed(text)
        return True

    def finish(self) -> RuleHit | None:
        """Return a rule that only the end makes block."""
        hot = self._hot.finish()
        own = None if self._own is None else self._own.finish()
        return hot if own is None else own
