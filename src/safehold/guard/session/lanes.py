"""One lane of a reply: its scorers, the text that waits, and what of it may leave.

The invariant stands here alone: `released <= scored <= received`. Only `take` counts characters as
scored, only `give` lets any go, and it hands over whole scored chunks from the front of the text.
The session scores and decides; it tells a lane of that by the methods below.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from safehold.exchange import Lane
from safehold.guard.interface import Failed, Heard
from safehold.guard.scorers.interface import ActivationLane, LaneScore
from safehold.guard.scorers.tokens import TokenStream, tokens
from safehold.guard.session.drivers import guarded
from safehold.guard.session.escapes import Unescaping
from safehold.guard.session.seen import SeenState
from safehold.guard.session.segments import READ
from safehold.guard.session.steps import STEP, Steps
from safehold.guard.session.written import WrittenStream


class GrowingViews(Protocol):
    """Decodes what becomes decodable in a growing text."""

    @property
    def decodes(self) -> bool:
        """Whether it looks at the text at all."""
        ...

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


class ProbeState:
    """What the probe says of one lane's tokens."""

    __slots__ = ("_lane", "fresh", "level")

    def __init__(self, lane: ActivationLane) -> None:
        self._lane = lane
        self.level = -math.inf
        self.fresh = False

    def score(self, heard: Heard) -> float | Failed:
        """Return the probe's logit of the newest tokens."""
        return guarded(self._lane.feed, heard)

    def hear(self, logit: float) -> None:
        """Note what the probe says of the newest tokens: its highest since the last decision."""
        self.level = max(self.level, logit) if self.fresh else logit
        self.fresh = True

    def logit(self) -> float | None:
        """Return the latest logit; None before there is any."""
        return self.level if self.level > -math.inf else None


class LaneState:
    """One text: its scorers, what of it waits, and how much was scored and released.

    A lane of JSON has a second text, what the wire's characters mean. It is scored like the first,
    and holds back the wire's characters whose meaning has not been cleared.
    """

    __slots__ = (
        "_best",
        "_chunks",
        "_cutter",
        "_decoded",
        "_doubted",
        "_final",
        "_held",
        "_meaning",
        "_meant",
        "_received",
        "_recent",
        "_released",
        "_said",
        "_scored",
        "_steps",
        "_tail",
        "_unchecked",
        "_unescaping",
        "_waiting",
        "lane",
        "probe",
        "rules",
        "score",
        "seen",
        "views",
    )

    def __init__(
        self,
        lane: Lane,
        score: LaneScore | None,
        rules: WrittenStream,
        views: GrowingViews,
        *,
        probe: ProbeState | None = None,
        meaning: "LaneState | None" = None,
        whole: bool = False,
    ) -> None:
        """Take the scorers of a lane; `whole` keeps all that it says."""
        self.lane = lane
        self.score = score
        self.rules = rules
        self.views = views
        self.seen = SeenState()
        self.probe = probe
        self._meaning = meaning
        self._unescaping = Unescaping()
        self._meant = 0
        self._steps = Steps()
        self._cutter = TokenStream()
        self._waiting = ""
        self._said: list[str] | None = [] if whole else None
        self._tail = ""
        self._received = self._scored = self._released = 0
        self._recent = self._best = self._final = -math.inf
        self._doubted = self._decoded = False
        self._unchecked = 1 << 30  # the first escalation asks at once
        self._chunks: deque[tuple[int, int]] = deque()
        self._held = 0

    # -- what others may know ------------------------------------------------------------------

    @property
    def turn(self) -> int | None:
        """Return None: a lane belongs to the reply."""
        return None

    @property
    def received(self) -> int:
        """Characters that arrived."""
        return self._received

    @property
    def scored(self) -> int:
        """Characters that were scored, of those received."""
        return self._scored

    @property
    def released(self) -> int:
        """Characters that left, of those scored."""
        return self._released

    @property
    def waiting(self) -> str:
        """The text that was not released, as far as whole steps of it came."""
        return self._waiting

    @property
    def said(self) -> str:
        """All that came, of a lane that keeps it."""
        return "".join(self._said or ())

    @property
    def tail(self) -> str:
        """The end of the scored text, as stage 2 reads it."""
        return self._tail

    @property
    def meaning(self) -> "LaneState | None":
        """What the wire's characters mean; None where they mean themselves."""
        return self._meaning

    @property
    def recent(self) -> float:
        """Stage 1's highest logit since the last decision; -inf where nothing waits for one."""
        return self._recent

    @property
    def best(self) -> float:
        """Stage 1's highest logit."""
        return self._best

    @property
    def final(self) -> float:
        """The ensemble's highest logit."""
        return self._final

    @property
    def unchecked(self) -> int:
        """Tokens scored since the last decision."""
        return self._unchecked

    @property
    def doubted(self) -> bool:
        """Whether stage 2 was ever asked about it."""
        return self._doubted

    @property
    def obscured(self) -> bool:
        """Whether something was decoded in it, or nobody can read a part of it."""
        return self._decoded or self.views.unreadable > 0

    def known(self) -> float:
        """Return stage 1's latest logit for a decision that the probe alone asked for."""
        return next((one for one in (self._recent, self._best) if one > -math.inf), 0.0)

    def clause(self) -> str:
        """Name the clause that stage 1 sees."""
        return "" if self.score is None else self.score.attribution()

    # -- text comes ----------------------------------------------------------------------------

    def arrive(self, text: str) -> list[str]:
        """Take the next characters; return the steps that they complete."""
        self._received += len(text)
        return self._steps.feed(text)

    def left(self) -> str:
        """Return the step that the end of the text leaves incomplete; it is gone then."""
        return self._steps.finish()

    def texts(self, step: str) -> "tuple[tuple[LaneState, str], ...]":
        """Return what a step adds to each text: the wire's characters, then what they mean."""
        meaning = self._meaning
        if meaning is None:
            return ((self, step),)
        meant = self._unescaping.feed(step)
        meaning.receive(len(meant))
        return (self, step), (meaning, meant)

    def ends(self) -> "tuple[tuple[LaneState, str], ...]":
        """Return what the end adds to each text."""
        meaning = self._meaning
        if meaning is None:
            return ((self, ""),)
        meant = self._unescaping.finish()
        meaning.receive(len(meant))
        return (self, ""), (meaning, meant)

    def receive(self, chars: int) -> None:
        """Count characters that arrived, for a text that is not cut into steps."""
        self._received += chars

    def grow(self, text: str) -> tuple[list[str], int]:
        """Append to what waits; return the words that became whole, and their characters."""
        self._waiting += text
        if self._said is not None:
            self._said.append(text)
        return self._cutter.feed(text)

    def rest(self) -> tuple[list[str], int]:
        """Return the words that only the end makes whole, and their characters."""
        return self._cutter.finish()

    def is_quiet(self, steps: Sequence[str], text: str) -> bool:
        """Take the text of several steps if nothing is to be found in any; else take nothing.

        Only where written rules are all that looks at it, and a reader sees it as it stands. Steps
        that were cut out of a long run are left to be looked at one by one.
        """
        if (
            self._meaning is not None
            or self.probe is not None
            or self.views.decodes
            or self._cutter.pending
            or max(map(len, steps)) >= STEP
        ):
            return False
        words = self.seen.reader.calm(text)
        if words is None or not self.rules.quiet(text):
            return False
        self.seen.pass_calm(words, text)
        return True

    def pass_quiet(self, steps: Sequence[str], text: str, hold: int) -> str:
        """Note that quiet steps were scored; remove and return what `give` would, step by step."""
        self._waiting += text
        self._tail = (self._tail + text)[-READ:]
        self._scored += len(text)
        behind = 0
        fresh: list[tuple[int, int]] = []
        for step in reversed(steps):
            if behind >= hold:  # this step may leave, and all that is before it
                self._chunks = deque(reversed(fresh))
                self._held = behind
                cut = len(self._waiting) - sum(chars for chars, _ in fresh)
                given, self._waiting = self._waiting[:cut], self._waiting[cut:]
                self._released += cut
                return given
            fresh.append((len(step), len(tokens(step))))
            behind += fresh[-1][1]
        chunks, chars = self._chunks, 0
        chunks.extend(reversed(fresh))
        self._held += behind
        while chunks and self._held - chunks[0][1] >= hold:  # as `give`: nothing else holds it back
            size, count = chunks.popleft()
            chars += size
            self._held -= count
        given, self._waiting = self._waiting[:chars], self._waiting[chars:]
        self._released += chars
        return given

    # -- what the session found ----------------------------------------------------------------

    def take(self, chars: int, count: int) -> None:
        """Note that the next characters, holding `count` tokens, were scored."""
        if not chars:
            return
        start = self._scored - self._released
        self._tail = (self._tail + self._waiting[start : start + chars])[-READ:]
        self._scored += chars
        self._unchecked += count
        self._chunks.append((chars, count))
        self._held += count

    def note_stage1(self, logit: float) -> None:
        """Note stage 1's logit of the newest words."""
        self._recent = max(self._recent, logit)
        self._best = max(self._best, logit)

    def note_doubt(self) -> None:
        """Note that stage 2 is asked."""
        self._doubted = True

    def note_final(self, logit: float) -> None:
        """Note the ensemble's logit."""
        self._final = max(self._final, logit)

    def note_decoded(self, texts: int) -> None:
        """Note how many texts became readable by decoding."""
        self._decoded = self._decoded or texts > 0

    def note_meaning(self, chars: int) -> None:
        """Note that the next characters of the meaning were cleared: the wire's may go as far."""
        self._meant += self._unescaping.spent(chars)

    def checked(self) -> None:
        """Note that everything scored so far was decided."""
        self._recent = -math.inf
        self._unchecked = 0
        if self.probe is not None:
            self.probe.fresh = False

    # -- text leaves ---------------------------------------------------------------------------

    def _unseen(self) -> int:
        """Count the characters that the decoder or the rules have not looked at yet."""
        return max(self.views.pending, self.rules.pending)

    def give(self, hold: int, *, everything: bool) -> str:
        """Remove and return the scored text that is followed by at least `hold` scored tokens.

        What the decoder has not looked at yet stays too, and while the lane waits for stage 2
        nothing leaves.
        """
        if max(self._recent, self.seen.recent) > -math.inf and not everything:
            return ""
        chars = 0
        most = len(self._waiting) - (0 if everything or not hold else self._unseen())
        if self._meaning is not None and not everything:
            most = min(most, self._meant - self._released)
        while self._chunks and self._held - self._chunks[0][1] >= hold:
            if chars + self._chunks[0][0] > most:
                break
            size, count = self._chunks.popleft()
            chars += size
            self._held -= count
        text, self._waiting = self._waiting[:chars], self._waiting[chars:]
        self._released += chars
        return text
