"""What an engine is made of: files, and a pure model that reads them back and decides."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from safehold.errors import EndpointError
from safehold.secure.endpoint.interface import Ask
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import EndpointPolicy


class CompileError(EndpointError):
    """This engine can't say what the policy says; the message names the row."""


Files = Mapping[str, str]
"""What is installed, by file name."""

Model = Callable[[Ask], bool]
"""Whether the engine lets it run, as its own documentation says it decides."""


class Blind(msgspec.Struct, frozen=True):
    """A declared difference between policy and engine; `meets` says of which asks."""

    name: str
    reason: str
    meets: Callable[[EndpointPolicy, Sequence[Item], Ask], bool]


class Engine(msgspec.Struct, frozen=True):
    """One engine: how its files are made, how they are read back, and what it does not see."""

    name: str
    compile: Callable[[EndpointPolicy, Sequence[Item]], Files]
    model: Callable[[Files], Model]
    blind: tuple[Blind, ...]
