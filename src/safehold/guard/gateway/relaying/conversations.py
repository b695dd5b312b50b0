"""What a response id stands for: the turns of an earlier exchange, so that history is scored too.

An upstream that keeps conversations (`previous_response_id`) reads turns that the request does not
hold. The gateway keeps them itself; an id that it did not give refuses.
"""

import msgspec

from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.gateway.access.store import Store
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.relaying.run_state import RunState

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

    async def keep(self, state: RunState) -> None:
        """Keep the conversation that a response ended.

        Raises:
            LedgerError: The store can't be reached, so the conversation is forgotten.
        """
        ask = state.ask
        if ask.surface is not Surface.RESPONSES or state.response_id is None:
            return
        said = tuple(
            TextPart(text=item.text, channel=item.lane.channel) for item in state.delivered()
        )
        whole = ask.exchange.with_turn(Turn(role=Role.ASSISTANT, parts=said))
        value = msgspec.json.encode(whole)
        if len(value) > _MAX_CHARS:
            return
        owner = ask.key.id if ask.key else ""
        await self._store.put(f"history:{owner}:{state.response_id}", value, _LIFE_S)
