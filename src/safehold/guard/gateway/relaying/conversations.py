"""What a response id stands for: the turns of an earlier exchange, so that history is scored too.

An upstream that keeps conversations (`previous_response_id`) reads turns that the request does not
hold. The gateway keeps them itself; an id that it did not give refuses.
"""

from typing import TYPE_CHECKING

import msgspec

from safehold.errors import LedgerError
from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.gateway.access.store import Store
from safehold.guard.gateway.interface import Surface

if TYPE_CHECKING:
    from safehold.guard.gateway.relaying.relay import Ask, Run

_LIFE_S = 30 * 86_400
_MAX_CHARS = 1_000_000


class Histories:
    """Conversations by response id, in a store that all workers share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._decoder = msgspec.json.Decoder(Exchange)

    async def get(self, response_id: str, owner: str) -> Exchange | None:
        """Return the conversation that ended with a response, if this owner had it.

        Raises:
            LedgerError: The store can't be reached.
        """
        value = await self._store.get(f"history:{owner}:{response_id}")
        return None if value is None else self._decoder.decode(value)

    async def keep(self, ask: "Ask", run: "Run") -> None:
        """Keep the conversation that a response ended; a store that fails only forgets it."""
        if ask.surface is not Surface.RESPONSES or run.response_id is None or run.delivery is None:
            return
        said = tuple(
            TextPart(text=item.text, channel=item.lane.channel) for item in run.delivery.delivered()
        )
        whole = ask.exchange.with_turn(Turn(role=Role.ASSISTANT, parts=said))
        value = msgspec.json.encode(whole)
        if len(value) > _MAX_CHARS:
            return
        owner = ask.key.id if ask.key else ""
        try:
            await self._store.put(f"history:{owner}:{run.response_id}", value, _LIFE_S)
        except LedgerError:
            run.relay.watcher.ledger_failed(ask.surface)
