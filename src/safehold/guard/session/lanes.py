"""One lane of a reply: its scorers, the text that waits, and what of it may leave."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from safehold.exchange import Lane
from safehold.guard.scorers.interface import ActivationLane, LaneScore
from safehold.guard.scorers.tokens import TokenStream
from safehold.guard.session.escapes import Unescaping
from safehold.guard.session.seen import SeenState
from safehold.guard.session.segments import READ
from safehold.guard.session.steps import Steps
from safehold.guard.session.written import WrittenStream


class GrowingViews(Protocol):
    """Decodes what becomes decodable in a growing text."""

    @property
    def pending(self) -> int:
        """Characters at the end that were not looked at yet."""
        ...

    @property
    def unreadable(self) -> int:
        """Characters that nobody can read, so far."""
        ...

    def unknown(self, known: str) -> int:
        """Return how many of those stand in stretches that are not in `known` word for word."""
        ...

    def feed(self, text: str) -> Iterable[str]:
        """Return decoded texts that the new text made readable."""
        ...

    def finish(self) -> Iterable[str]:
        """Return decoded texts that only the end makes readable."""
        ...


class LaneState:
    """One lane: its scorers, the text that waits, and how much was scored and released."""

    __slots__ = (
        "_chunks",
        "_held",
        "best",
        "cutter",
        "decoded",
        "doubted",
        "final",
        "lane",
        "meant",
        "probe",
        "probe_best",
        "probe_fresh",
        "probe_level",
        "received",
        "recent",
        "released",
        "rules",
        "score",
        "scored",
        "seen",
        "steps",
        "tail",
        "unchecked",
        "views",
        "waiting",
    )

    def __init__(
        self,
        lane: Lane,
        score: LaneScore | None,
        rules: WrittenStream,
        views: GrowingViews,
        probe: ActivationLane | None = None,
    ) -> None:
        self.lane = lane
        self.score = score
        self.rules = rules
        self.views = views
        self.meant: Meant | None = None
        self.steps = Steps()
        self.seen = SeenState()
        self.cutter = TokenStream()
        self.waiting = ""
        self.tail = ""
        self.received = self.scored = self.released = 0
        self.recent = self.best = self.final = -math.inf
        self.doubted = self.decoded = False
        self.probe = probe
        self.probe_level = self.probe_best = -math.inf
        self.probe_fresh = False
        self.unchecked = 1 << 30  # the first escalation asks at once
        self._chunks: deque[tuple[int, int]] = deque()
        self._held = 0

    @property
    def turn(self) -> int | None:
        """Return None: a lane belongs to the reply."""
        return None

    def hear(self, logit: float) -> None:
        """Note what the probe says of the newest tokens: its highest since the last decision."""
        self.probe_level = max(self.probe_level, logit) if self.probe_fresh else logit
        self.probe_best = max(self.probe_best, logit)
        self.probe_fresh = True

    def probe_logit(self) -> float | None:
        """Return the probe's latest logit; None where no probe reads this lane."""
        return self.probe_level if self.probe_level > -math.inf else None

    def known(self) -> float:
        """Return stage 1's latest logit for a decision that the probe alone asked for."""
        return next((one for one in (self.recent, self.best) if one > -math.inf), 0.0)

    def clause(self) -> str:
        """Name the clause that stage 1 sees."""
        return "" if self.score is None else self.score.attribution()

    def take(self, chars: int, count: int) -> None:
        """Note that the next characters, holding `count` tokens, were scored."""
        if not chars:
            return
        start = self.scored - self.released
        self.tail = (self.tail + self.waiting[start : start + chars])[-READ:]
        self.scored += chars
        self.unchecked += count
        self._chunks.append((chars, count))
        self._held += count

    def checked(self) -> None:
        """Note that everything scored so far was decided."""
        self.recent = -math.inf
        self.probe_fresh = False
        self.unchecked = 0

    def _unseen(self) -> int:
        """Count the characters that the decoder or the rules have not looked at yet."""
        return max(self.views.pending, self.rules.pending)

    def give(self, hold: int, *, everything: bool) -> str:
        """Remove and return the scored text that is followed by at least `hold` scored tokens.

        What the decoder has not looked at yet stays too, and while the lane waits for stage 2
        nothing leaves.
        """
        if max(self.recent, self.seen.recent) > -math.inf and not everything:
            return ""
        chars = 0
        most = len(self.waiting) - (0 if everything or not hold else self._unseen())
        if self.meant is not None and not everything:
            most = min(most, self.meant.cleared - self.released)
        while self._chunks and self._held - self._chunks[0][1] >= hold:
            if chars + self._chunks[0][0] > most:
                break
            size, count = self._chunks.popleft()
            chars += size
            self._held -= count
        text, self.waiting = self.waiting[:chars], self.waiting[chars:]
        self.released += chars
        return text


class Meant:
    """What a lane of JSON means: the unescaped text as a lane of its own beside the wire's."""

    __slots__ = ("cleared", "state", "unescaping")

    def __init__(self, state: LaneState) -> None:
        self.state = state
        self.unescaping = Unescaping()
        self.cleared = 0
