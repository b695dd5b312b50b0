"""A lane of a reply as a reader sees it: scored beside the wire's text while the two differ."""

import math

from safehold.exchange.views import Reader
from safehold.guard.interface import Failed
from safehold.guard.scorers.interface import LaneScore
from safehold.guard.scorers.rules import LOOK_BACK, RuleHit
from safehold.guard.scorers.tokens import tokens
from safehold.guard.session.cascade import Cascade
from safehold.guard.session.drivers import guarded
from safehold.guard.session.segments import READ
from safehold.guard.session.written import WrittenRules

_CONTEXT = 64
"""Tokens before it that a score opened inside a text begins with."""


class SeenState:
    """The lane as a reader sees it: scored beside the wire's text while the two differ."""

    __slots__ = ("reader", "recent", "score", "tail", "unchecked")

    def __init__(self) -> None:
        self.reader = Reader()
        self.tail = ""
        self.score: LaneScore | None = None
        self.recent = -math.inf
        self.unchecked = 1 << 30

    def look(
        self, fresh: str, cascade: Cascade, written: WrittenRules
    ) -> RuleHit | float | Failed | None:
        """Take the next words; return a rule that their reader's form matches, or its logit.

        The logit is -inf where no scorer had to look again; None says the same where nothing
        waits for stage 2 either.
        """
        before = self.tail
        text = self.reader.feed(fresh) if fresh else ""
        self.tail = (before + text)[-READ:]
        if not self.reader.differs:
            self.score = None
        elif text:
            hit = written.search(before[-LOOK_BACK:] + text)
            if hit is not None:
                return hit
            if cascade.stage1 is not None:
                return self._logit(before, text, cascade)
        return None if self.recent == -math.inf else -math.inf

    def pass_calm(self, words: list[str], text: str) -> None:
        """Note a text that a reader sees as it stands."""
        self.tail = (self.tail + self.reader.went(words, text))[-READ:]
        self.score = None

    def _logit(self, before: str, text: str, cascade: Cascade) -> float | Failed:
        words = tokens(text)
        if self.score is None and cascade.stage1 is not None:
            self.score = cascade.stage1.open_reply()
            words = tokens(before)[-_CONTEXT:] + words
        if not words or self.score is None:
            return -math.inf
        self.unchecked += len(words)
        return guarded(self.score.feed, words)

    def checked(self) -> None:
        """Note that everything seen so far was decided."""
        self.recent = -math.inf
        self.unchecked = 0
