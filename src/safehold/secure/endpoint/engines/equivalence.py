"""Do the engines decide as the policy does, outside their declared blind spots?"""

import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from safehold.secure.endpoint.engines.interface import Engine
from safehold.secure.endpoint.interface import Allowed, Ask
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import EndpointPolicy, decide


class EngineCompared(msgspec.Struct, frozen=True):
    """One engine over many asks: how many were compared, lay in a blind spot, and differed."""

    engine: str
    compared: int
    blind: int
    differ: tuple[Ask, ...]


def compare(
    engine: Engine,
    policy: EndpointPolicy,
    items: Sequence[Item],
    asks: Iterable[Ask],
    today: dt.date,
) -> EngineCompared:
    """Return what the engine's model, read back from its files, says beside the policy."""
    model = engine.model(engine.compile(policy, items))
    compared = blind = 0
    differ = []
    for ask in asks:
        if any(one.meets(policy, items, ask) for one in engine.blind):
            blind += 1
            continue
        compared += 1
        if model(ask) != isinstance(decide(policy, ask, today), Allowed):
            differ.append(ask)
    return EngineCompared(engine.name, compared, blind, tuple(differ))
