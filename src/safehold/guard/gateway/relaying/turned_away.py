"""Rows of requests that never reached the guard: no key, over budget, malformed, late."""

from safehold.errors import LedgerError
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.policy import Key, Settings
from safehold.guard.gateway.relaying.relay import Relay
from safehold.guard.ledger.interface import Action, FinalRow, LedgerVerdict, Outcome, PromptRow

_REASON_CHARS = 100
_SURFACES = {
    "/v1/chat/completions": Surface.CHAT,
    "/v1/responses": Surface.RESPONSES,
    "/v1/messages": Surface.MESSAGES,
    "/v1/messages/count_tokens": Surface.MESSAGES,
    "/v1/responses/input_tokens": Surface.RESPONSES,
    "/v1/embeddings": Surface.EMBEDDINGS,
    "/v1/rerank": Surface.EMBEDDINGS,
    "/v1/completions": Surface.COMPLETIONS,
    "/v1/moderations": Surface.MODERATIONS,
}


class Visit:
    """One request at the door: where it knocked, whose key it showed, whether it got in.

    An admitted request has rows of its own, from the relay; a refused one gets them here.
    """

    __slots__ = ("admitted", "anthropic", "decision_id", "key", "looks_only", "surface")

    def __init__(self, decision_id: str, path: str, *, looks_only: bool = False) -> None:
        """Take the path; a request that only looks (HEAD) asks for nothing and leaves no row."""
        self.looks_only = looks_only
        self.decision_id = decision_id
        self.surface = _SURFACES.get(path)
        self.key: Key | None = None
        self.admitted = False
        self.anthropic = path.startswith("/v1/messages")

    @property
    def label(self) -> str:
        """The surface's name in rows and metrics."""
        return "other" if self.surface is None else str(self.surface)


async def note_refusal(relay: Relay, settings: Settings, visit: Visit, reason: str) -> None:
    """Keep the rows of a refused request; `reason` is ours, never the client's text."""
    now = relay.clock()
    label, key = visit.label, visit.key
    policy = settings.default if visit.surface is None else settings.policy(visit.surface, key)
    prompt = PromptRow(
        decision_id=visit.decision_id,
        at=now,
        surface=label,
        protocol=label,
        model="",
        stream=False,
        exchange=None,
        bundle_digest=relay.holder.current.digest,
        mode=policy.mode,
        verdict=LedgerVerdict.UNSCORED,
        action=Action.REFUSE,
        tenant=key.tenant if key else None,
        key_id=key.id if key else None,
    )
    final = FinalRow(
        decision_id=visit.decision_id,
        at=now,
        outcome=Outcome.ERROR,
        verdict=LedgerVerdict.UNSCORED,
        delivered=(),
        delivered_bytes=0,
        scored_bytes=0,
        error=reason[:_REASON_CHARS],
    )
    try:
        await relay.ledger.append(prompt, final)
    except LedgerError:
        relay.watcher.ledger_failed(visit.surface or Surface.CHAT)
