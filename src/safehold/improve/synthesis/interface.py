"""The unit of training data, where it came from, and what makes more of it."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

import msgspec

from safehold.exchange import Exchange

CONSTITUTION = "constitution"
"""The generator of what a constitution itself holds."""
GENERAL = "general"
"""The generator of the package's text that stands beside a class of somebody's own."""


class Side(StrEnum):
    """Which side of the constitution an example is on."""

    RESTRICTED = "restricted"
    PERMITTED = "permitted"


class Split(StrEnum):
    """What an example may be used for; families never cross a split."""

    TRAIN = "train"
    CALIBRATE = "calibrate"
    TEST = "test"


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where an example came from: enough to make it again.

    `parent` is the id of the example it was made from, `chain` the augmentations applied to that.
    """

    constitution: str
    generator: str
    seed: int
    parent: str | None = None
    chain: tuple[str, ...] = ()


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One labelled exchange: a prompt with its history, and perhaps the reply to score as a stream.

    `side` labels the reply, or the prompt where `reply` is empty. `ask` is true only where the
    prompt itself is a restricted request: a restricted reply may follow an innocent "go on".
    `prompt_label` says what that means for training on prompts. `request` is what is asked for
    inside a longer prompt that was written around it, so that training can show where it stands.
    """

    id: str
    family: str
    split: Split
    side: Side
    clause: str
    exchange: Exchange
    reply: str
    ask: bool
    lineage: Lineage
    stage: str | None = None
    language: str = "en"
    request: str = ""


def prompt_label(example: Example) -> bool | None:
    """Return whether the prompt is restricted; None where it must not be learnt from alone."""
    if example.side is Side.PERMITTED:
        return False
    return True if example.ask else None


class Generator(Protocol):
    """Makes examples from a constitution."""

    @property
    def name(self) -> str:
        """The name that lineage records."""
        ...

    def generate(self, *, seed: int) -> Iterator[Example]:
        """Yield examples in an order that depends on the seed alone."""
        ...
