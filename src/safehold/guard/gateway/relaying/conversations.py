"""What a response id stands for: the turns of an earlier exchange, so that history is scored too.

An upstream that keeps conversations (`previous_response_id`) reads turns that the request does not
hold. The gateway keeps them itself; an id that it did not give refuses.
"""

import re

import msgspec

from safehold.errors import WireError
from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.gateway.access.store import Store
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.relaying.run_state import RunState

_LIFE_S = 30 * 86_400
_MAX_CHARS = 1_000_000
_MAX_LINKS = 10_000
_NAMES_AN_ITEM = re.compile(rb"item_reference|\\u00(?:5[fF]|6[0-9a-fA-F]|7[0-9aA])")
"""The type as it stands, or an escape that one of its letters could stand behind."""


class _ExchangeLink(msgspec.Struct, frozen=True):
    """The turns that one exchange added, and the response that came before."""

    turns: tuple[Turn, ...]
    previous: str | None = None


class Histories:
    """Conversations by response id, in a store that all workers share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._decoder = msgspec.json.Decoder(_ExchangeLink)

    async def get(self, response_id: str, owner: str) -> Exchange | None:
        """Return the conversation that ended with a response, if this owner had it.

        Raises:
            LedgerError: The store can't be reached.
        """
        links: dict[str, _ExchangeLink] = {}
        name: str | None = response_id
        while name is not None:
            value = await self._store.get(f"history:{owner}:{name}")
            if value is None or name in links or len(links) >= _MAX_LINKS:
                return None  # without its beginning a conversation can't be scored
            links[name] = self._decoder.decode(value)
            name = links[name].previous
        return Exchange(
            turns=tuple(turn for link in reversed(links.values()) for turn in link.turns)
        )

    async def answer(self, response_id: str, owner: str) -> Turn | None:
        """Return what a response said to this owner.

        Raises:
            LedgerError: The store can't be reached.
        """
        value = await self._store.get(f"history:{owner}:{response_id}")
        return None if value is None else self._decoder.decode(value).turns[-1]

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
        owner = ask.key.id if ask.key else ""
        answer = Turn(role=Role.ASSISTANT, parts=said)
        if await self._store.get(f"history:{owner}:{state.response_id}") is None:
            link = _ExchangeLink((*ask.call.exchange.turns, answer), ask.call.previous)
        else:  # an upstream that gives an id twice: what stood under it must not be linked to
            link = _ExchangeLink((*ask.exchange.turns, answer))
        kept = {f"history:{owner}:{state.response_id}": msgspec.json.encode(link)}
        kept |= {f"item:{owner}:{name}": item for name, item in state.items.items()}
        for name, value in kept.items():
            if len(value) <= _MAX_CHARS:
                await self._store.put(name, value, _LIFE_S)

    async def filled(self, body: bytes, owner: str) -> bytes:
        """Return a request of Responses with every item that it only names put in its place.

        Raises:
            LedgerError: The store can't be reached.
            WireError: It names an item that this gateway did not give to this owner.
        """
        if _NAMES_AN_ITEM.search(body) is None:
            return body
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return body  # the codec says what is wrong with it
        items = value.get("input") if isinstance(value, dict) else None
        if not isinstance(items, list):
            return body
        value["input"] = [await self._item(item, owner) for item in items]
        return encode(value)

    async def _item(self, item: object, owner: str) -> object:
        if not isinstance(item, dict) or item.get("type") != "item_reference":
            return item
        name = item.get("id")
        found = await self._store.get(f"item:{owner}:{name}") if isinstance(name, str) else None
        if found is None:
            raise WireError(
                "input: item_reference: expected the id of an item that this gateway gave, "
                "came another; send the item itself"
            )
        return msgspec.json.decode(found)
