"""What happened to a scene, from the client's side and from the ledger's, which must agree."""

import msgspec

from safehold.demo.client import Heard
from safehold.demo.scenes import Scene, SceneVerdict, StoppedAt
from safehold.guard.ledger.interface import Entry, FinalRow, LedgerVerdict, Outcome, PromptRow
from safehold.guard.scorers.tokens import tokens


class Happened(msgspec.Struct, frozen=True):
    """One line of the demo's table.

    `guard_ms` is the guard's own time; the token counts are in the guard's own tokens.
    """

    title: str
    wire: str
    stream: bool
    upstream: str
    verdict: SceneVerdict
    place: StoppedAt
    expected: StoppedAt
    scored_tokens: int
    sent_tokens: int
    reply_tokens: int | None
    guard_ms: float | None
    decision_id: str
    delivered_bytes: int
    scored_bytes: int
    problem: str = ""

    @property
    def as_expected(self) -> bool:
        """Whether the exchange ended where it must."""
        return self.place is self.expected and not self.problem


def happened(scene: Scene, heard: Heard, entries: list[Entry]) -> Happened:
    """Return what a scene came to; a disagreement between client and ledger is a problem."""
    prompt = next((e.row for e in entries if isinstance(e.row, PromptRow)), None)
    final = next((e.row for e in entries if isinstance(e.row, FinalRow)), None)
    place = StoppedAt.NOWHERE
    problem = ""
    if prompt is None or final is None:
        problem = "the ledger has no rows of it"
    else:
        if prompt.verdict is LedgerVerdict.BLOCK:
            place = StoppedAt.PROMPT
        elif final.outcome is Outcome.BLOCKED_BY_GUARD:
            place = StoppedAt.REPLY
        problem = _problem(heard, final, place)
    sent = "".join(part.text for part in final.delivered) if final else ""
    offset = (final.offset or 0) if final and place is StoppedAt.REPLY else 0
    latency = final.latency if final else None
    return Happened(
        title=scene.title,
        wire=scene.wire,
        stream=scene.stream,
        upstream=scene.upstream,
        verdict=heard.verdict,
        place=place,
        expected=scene.expected,
        scored_tokens=len(tokens((scene.reply or sent)[:offset])) if offset else 0,
        sent_tokens=len(tokens(sent)),
        reply_tokens=None if scene.reply is None else len(tokens(scene.reply)),
        guard_ms=latency.guard_ms if latency else None,
        decision_id=heard.decision_id,
        delivered_bytes=final.delivered_bytes if final else 0,
        scored_bytes=final.scored_bytes if final else 0,
        problem=problem,
    )


def _problem(heard: Heard, final: FinalRow, place: StoppedAt) -> str:
    if (heard.verdict is SceneVerdict.BLOCKED) is (place is StoppedAt.NOWHERE):
        return f"the client saw {heard.verdict}, the ledger says {final.outcome}"
    if final.outcome is Outcome.ERROR or final.outcome is Outcome.UNSCORABLE:
        return f"ended as {final.outcome} ({final.error})"
    if final.delivered_bytes > final.scored_bytes:
        return "more bytes were delivered than scored"
    if final.verdict is LedgerVerdict.ALLOW and not heard.text:
        return "the answer is empty"
    return ""
