"""What the trainers read: labelled token sequences and labelled text pairs."""

from collections.abc import Sequence

import msgspec


class LabelledText(msgspec.Struct, frozen=True):
    """A text for stage 1: `restricted` is the label, `weight` its share in the loss."""

    text: str
    restricted: bool
    weight: float = 1.0


class LabelledPair(msgspec.Struct, frozen=True):
    """A prompt and a partial reply (empty: the prompt is what is labelled) for stage 2.

    `clause` is the index of the restricted clause, -1 where the pair is permitted.
    """

    prompt: str
    reply: str
    clause: int
    weight: float = 1.0


Texts = Sequence[LabelledText]
Pairs = Sequence[LabelledPair]
