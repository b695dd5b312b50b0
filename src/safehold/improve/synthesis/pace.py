"""How long to wait for a model, and how many calls to make at once, learnt from its answers.

A call that is given up costs the model its whole work again, so a model that is only slow must be
waited for and given less at once; one that hangs must be left soon. What tells them apart is
whether anything comes at all. While anybody is answered, a call that takes long is waited for.
After `patience` seconds in which nobody was answered, half of the calls are taken back, the newest
first; after one and a half times as long, all but the oldest; after twice as long it hangs.
Patience is the time-out, or three times the median of the last answers where that is longer. Time
in which nobody looked (this machine slept, or was too busy to) is no silence of the model.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

_REMEMBERED = 32
"""So many of the last answers say how long one takes."""
_PATIENCE = 3.0
"""Medians that a call is waited for at least."""
_ALONE, _HANGS = 1.5, 2.0
"""Patiences without any answer: one call is left; nothing is waited for any longer."""
_QUICK = 0.5
"""Answers that come in this share of the time-out allow one more call at once."""
_LOOKS = 20.0


class CallFate(StrEnum):
    """What to do with a call that is under way."""

    WAIT = "wait"
    TAKE_BACK = "take back"
    """Too many are under way: ask again when others are answered."""
    LATE = "late"
    """Others are answered and this one is not: ask again, a few times."""
    HANGS = "hangs"
    """Nobody is answered: give the model up."""


def _unheard(line: str) -> None:
    del line


class Pace:
    """The calls under way at one model. Pure but for its clock; one thread."""

    def __init__(
        self,
        width: int,
        timeout_s: float,
        say: Callable[[str], None] = _unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the most calls at once, the time-out, and who is told of changes, a line each."""
        self._most = self.width = max(1, width)
        self._timeout_s = timeout_s
        self._say = say
        self._clock = clock
        self._waited_s = 0.0
        self._looked = clock()
        self._first = math.inf
        self._began: dict[int, float] = {}
        self._tickets = 0
        self._answered_at = -math.inf
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._silent_since = -math.inf
        self._stage = self._quick = 0
        self._told_s = timeout_s
        self._narrowed_at = -math.inf
        self.answered = 0
        """Calls that the model answered; those of an earlier run are not among them."""
        self.timed_out = 0
        """Calls that were taken back or late: the model may have worked on them in vain."""
        self.repeated = 0
        """Calls that were made again after an answer that was none."""
        self.tokens = 0
        """Tokens that it wrote."""
        self.accepted: set[str] = set()
        """Kinds of calls of which the server has accepted one, in this run or an earlier one."""
        self._rejections: set[str] = set()

    @property
    def under_way(self) -> int:
        """How many calls wait for an answer."""
        return len(self._began)

    @property
    def patience_s(self) -> float:
        """Seconds without any answer after which fewer calls are made at once."""
        median = statistics.median(self._took) if self._took else 0.0
        return max(self._timeout_s, _PATIENCE * median)

    @property
    def look_s(self) -> float:
        """Seconds after which to ask again what to do with a call."""
        return min(1.0, max(0.01, self.patience_s / _LOOKS))

    def begin(self) -> int:
        """Note that a call is made, and return its ticket."""
        self._tickets += 1
        self._began[self._tickets] = self._now()
        self._first = min(self._first, self._clock())
        return self._tickets

    def end(self, ticket: int) -> None:
        """Note that nobody waits for a call any longer."""
        self._began.pop(ticket, None)

    def answer(self, ticket: int, tokens: int) -> None:
        """Note an answer."""
        now = self._now()
        took = now - self._began[ticket]
        self.answered += 1
        self.tokens += tokens
        self._answered_at = now
        self._took.append(took)
        if took > self._timeout_s and self.patience_s > self._told_s:
            self._told_s = 2 * self.patience_s
            self._say(
                f"an answer took {took:.3g} s, more than --timeout {self._timeout_s:g}: each is "
                f"waited for {self.patience_s:.3g} s now; a lower --concurrency may be quicker"
            )
        self._quick = self._quick + 1 if took < _QUICK * self._timeout_s else 0
        if self.width < self._most and self._quick >= self.width:
            self.width += 1
            self._quick = 0
            if self.width == self._most:
                self._say(f"the model answers quickly: {self.width} calls at once again")

    def busy(self, ticket: int, status: int) -> None:
        """Note that a server had too much to do; calls made before the last change count once."""
        if self._began[ticket] <= self._narrowed_at or self.width == 1:
            return
        self._narrow(self.width // 2, f"HTTP {status} says that it has too much to do")

    def rejected(self, said: str) -> None:
        """Note that a server does not accept a request, though it does others of its kind."""
        if said not in self._rejections:
            self._rejections.add(said)
            self._say(f"a request is not accepted and left out, and not kept: {said}")

    def verdict(self, ticket: int) -> CallFate:
        """Return what to do with a call that has no answer yet."""
        now, patience = self._now(), self.patience_s
        silent = self._silence(now)
        if silent >= _HANGS * patience:
            return CallFate.HANGS
        stage = 2 if silent >= _ALONE * patience else 1 if silent >= patience else 0
        if stage > self._stage:
            self._stage = stage
            left = self.under_way // 2 if stage == 1 else 1
            if self.under_way > 1:
                self._narrow(left, f"none of {self.under_way} calls was answered in {silent:.3g} s")
        if list(self._began).index(ticket) >= self.width:
            self.timed_out += 1
            return CallFate.TAKE_BACK
        alone = self.under_way == 1 and self.answered > 0 and not self._stage > 1
        if now - self._began[ticket] >= patience and (alone or (self.answered and not self._stage)):
            self.timed_out += 1
            self._say(
                f"a call was not answered in {patience:.3g} s and is made again; where the model "
                f"is only slow, raise --timeout (now {self._timeout_s:g})"
            )
            return CallFate.LATE
        return CallFate.WAIT

    def hung(self) -> str:
        """Say that nothing came, and what to do."""
        before = f" after {self.answered} answers" if self.answered else ""
        advice = f"raise --timeout (now {self._timeout_s:g})"
        if self._most > 1:
            advice += f" or lower --concurrency (now {self._most})"
        return (
            f"no answer within {self._silence(self._now()):.3g} s{before}: it hangs, or it is "
            f"slower than that; {advice}"
        )

    def told(self, left: int) -> tuple[str, float | None]:
        """Return where the calls stand, and the seconds that so many more take, if known."""
        said = [f"{self.under_way} under way"]
        if self.width < self._most:
            said.append(f"{self.width} at once")
        if self.timed_out:
            said.append(f"{self.timed_out} timed out")
        if self.repeated:
            said.append(f"{self.repeated} made again")
        seconds = None
        if self.answered:
            each = self.tokens / self.answered
            said.append(f"{self.tokens:,} tokens written, about {each * left:,.0f} to come")
            seconds = (self._clock() - self._first) / self.answered * left
        elif self._began:
            said.append(f"no answer for {self._silence(self._now()):.0f} s")
        return ", ".join(said), seconds

    def _now(self) -> float:
        """Return the seconds that were waited through, each gap at most two looks long."""
        now = self._clock()
        self._waited_s += min(now - self._looked, 2 * self.look_s)
        self._looked = now
        return self._waited_s

    def _silence(self, now: float) -> float:
        """Return for how long nobody was answered while somebody waited."""
        oldest = next(iter(self._began.values()), now)
        since = max(self._answered_at, oldest)
        if since != self._silent_since:
            self._silent_since, self._stage = since, 0
        return now - since

    def _narrow(self, width: int, why: str) -> None:
        self._quick = 0
        self._narrowed_at = self._now()
        if width >= self.width:
            return
        self.width = max(1, width)
        self._say(
            f"{why}: {self.width} at once from now on, the others later; to make none in vain, "
            f"raise --timeout (now {self._timeout_s:g}) or lower --concurrency (now {self._most})"
        )
