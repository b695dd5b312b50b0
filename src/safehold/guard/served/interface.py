"""What a scorer of activations asks of the model that is served."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from safehold.guard.scorers.interface import Activations, ActivationScorer


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message as a chat template takes it: `system`, `user` or `assistant`."""

    role: str
    content: str


class Reading(msgspec.Struct, frozen=True):
    """A reply as the model reads it: its text token by token, and the activations of each."""

    pieces: tuple[str, ...]
    activations: Activations


class ServedModel(Protocol):
    """A model whose hidden states can be read."""

    @property
    def digest(self) -> str:
        """The SHA-256 that stands for its weights and its tokenizer."""
        ...

    @property
    def dtype(self) -> str:
        """The number format it computes in: activations of another one differ."""
        ...

    def read(self, said: Sequence[Said], reply: str, layers: Sequence[int]) -> Reading:
        """Return the activations of a reply to what was said, in the hidden states `layers`.

        Raises:
            BundleError: The model has no such hidden state.
            UpstreamError: The model can't be reached.
        """
        ...


class AttachedModel(ServedModel, Protocol):
    """A served model that can give a probe's logits while it writes."""

    def attach(self, probe: ActivationScorer) -> Mapping[str, str]:
        """Give the model a probe; return the request headers that ask for its logits."""
        ...
