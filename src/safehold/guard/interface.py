"""Verdicts, releases, policies, reports and the flow type that the guard's parts share."""

from collections.abc import Generator
from enum import StrEnum
from typing import TypeVar

import msgspec

from safehold.exchange import Lane
from safehold.guard.overlay.interface import HotHit


class Stage(StrEnum):
    """Which part of the cascade decided; for the operator, never for the client."""

    RULE = "rule"
    STAGE1 = "stage1"
    STAGE2 = "stage2"
    UNREADABLE = "unreadable"
    FAIL_MODE = "fail_mode"
    MEDIA = "media"


class Allow(msgspec.Struct, frozen=True):
    """The guard looked and found nothing it must stop."""

    score: float


class Block(msgspec.Struct, frozen=True):
    """The guard refuses. `clause` names the constitution clause, never the text it saw.

    `score` is the calibrated score in [0, 1]; `offset` the characters of the lane that had been
    scored when it fired (0 for a prompt); `turn` the turn of the prompt that it was found in (-1:
    only in the user's turns together; None for a reply). `guard_class` names the class beside the
    first one that refuses; None for the first.
    """

    clause: str
    score: float
    stage: Stage
    lane: Lane | None = None
    offset: int = 0
    turn: int | None = None
    guard_class: str | None = None

    @property
    def full_clause(self) -> str:
        """The clause as rows and grants name it: a further class's begins with its name."""
        if self.guard_class is None or not self.clause:
            return self.clause
        return f"{self.guard_class}.{self.clause}"


Verdict = Allow | Block


class Cleared(msgspec.Struct, frozen=True):
    """Text of one lane that has been scored and may leave (it may be empty)."""

    text: str


Step = Cleared | Block


Heard = tuple[float, ...]
"""What a probe's weights gave each token of a text, in the process where the model runs."""


class FailMode(StrEnum):
    """What a broken stage means: `block` (default) or a loudly logged `bypass`."""

    BLOCK = "block"
    BYPASS = "bypass"


class DeliveryMode(StrEnum):
    """How streamed text is delivered.

    `hold` withholds the last K tokens until they are scored as cleared; `full` withholds the
    whole reply; `audit` delivers text as soon as it is scored and marks what would have blocked.
    """

    HOLD = "hold"
    FULL = "full"
    AUDIT = "audit"


class SessionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one session delivers and what a broken scorer means, stage by stage.

    In `hold` mode the last `hold_tokens` stay back; `doubt_tokens` (if more) do once stage 1 has
    escalated the prompt or the lane, and `decoded_tokens` once something in the lane had to be
    decoded or is unreadable, so that only what looks suspicious waits longer. Where the prompt asks
    for an answer in a code, all of the reply waits for its end.

    A reply may have at most `unreadable_chars` characters that nobody can read: no language, code
    or data, not made readable by any view, no blob of a known kind, nothing that the prompt said.

    Rules have no fail mode: a regular expression (RE2) that was compiled can't fail.

    Without `reads_request`, stage 2 reads of a prompt only what stage 1 escalates, and not its last
    request whatever stage 1 thinks of it.
    """

    mode: DeliveryMode = DeliveryMode.HOLD
    hold_tokens: int = 16
    doubt_tokens: int = 64
    decoded_tokens: int = 1024
    unreadable_chars: int = 200
    fail_mode_stage1: FailMode = FailMode.BLOCK
    fail_mode_stage2: FailMode = FailMode.BLOCK
    reads_request: bool = True


class LaneCoverage(msgspec.Struct, frozen=True):
    """Characters of reply text fed, scored and released; released never exceeds scored."""

    received: int
    scored: int
    released: int


class SessionReport(msgspec.Struct, frozen=True):
    """What the operator's row says about a session: scores in [0, 1], counts, failures."""

    prompt_score: float
    reply_score: float
    escalations: int
    bypasses: tuple[str, ...]
    coverage: LaneCoverage
    hot: tuple[HotHit, ...] = ()
    unreadable: int = 0


class Escalation(msgspec.Struct, frozen=True):
    """A request for a stage-2 score, yielded by a flow and answered by its driver.

    `prompt` is the end of the prompt with its history; `reply` the end of the lane's text so far
    (both bounded to what a scorer reads), empty when the prompt itself is to be scored.
    `guard_class` names the class beside the first one whose stage 2 is asked.
    """

    prompt: str
    reply: str
    guard_class: str | None = None


class Scored(msgspec.Struct, frozen=True):
    """Stage 2's answer: a logit, and the restricted clause that fits best."""

    logit: float
    clause: str


class Failed(msgspec.Struct, frozen=True):
    """Stage 2 broke or timed out; `reason` is an error's name, never content."""

    reason: str


T = TypeVar("T")
ScoringFlow = Generator[Escalation, Scored | Failed, T]
"""A computation without I/O that may ask for stage-2 scores before it returns a `T`."""
