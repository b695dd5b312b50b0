"""What a gateway and its Hugging Face model say to each other beside Chat Completions."""

import io
import os
import re
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from safehold.errors import ConfigError
from safehold.guard.gateway.interface import BrokenReplyError
from safehold.guard.gateway.protocols.chat.wire import StreamOptions, TextContent
from safehold.guard.scorers.interface import Activations
from safehold.guard.scorers.probe import LinearProbe, ProbeHead
from safehold.guard.served.interface import Said

PROBE = "x-safehold-probe"
"""Request header: the id of the probe whose logits shall come with the text."""
ROWS = "x-safehold-rows"
"""Response header of `/activations`: how many tokens the body has rows for."""


class ActivationsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the activations of a reply that is already written."""

    said: tuple[Said, ...]
    reply: str
    layers: tuple[int, ...]


class HfMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of text; anything else is a 400."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[TextContent]
    name: str | None = None
    tool_call_id: str | None = None


class ChatBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a chat request that a bare model can honour; every other one is a 400."""

    messages: tuple[HfMessage, ...]
    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    user: str | None = None


def messages_of(body: ChatBody) -> tuple[Said, ...]:
    """Return the messages as a chat template takes them."""
    roles = {"developer": "system", "tool": "user"}
    return tuple(
        Said(
            roles.get(one.role, one.role),
            one.content
            if isinstance(one.content, str)
            else "\n".join(part.text for part in one.content),
        )
        for one in body.messages
    )


class Probes:
    """A folder of probes that gateway workers put there and the model's process reads."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; only this user may write to it."""
        self._folder = folder
        self._known: dict[str, LinearProbe] = {}

    def put(self, probe: LinearProbe) -> str:
        """Keep a probe; return the id that requests name."""
        path = self._folder / f"{probe.id}.npz"
        if not path.exists():
            buffer = io.BytesIO()
            np.savez(
                buffer,
                weights=probe.head.weights,
                shift=np.float64(probe.head.shift),
                layers=np.asarray(probe.layers),
            )
            part = path.with_suffix(f".{os.getpid()}")
            part.write_bytes(buffer.getvalue())
            part.replace(path)
        return probe.id

    def get(self, name: str) -> LinearProbe:
        """Return a probe by its id.

        Raises:
            ConfigError: There is none.
        """
        if name not in self._known:
            path = self._folder / f"{name}.npz"
            if re.fullmatch("[0-9a-f]{64}", name) is None or not path.is_file():
                raise ConfigError(f"{PROBE}: no probe of this id was given to the model")
            with np.load(path, allow_pickle=False) as kept:
                head = ProbeHead(kept["weights"], float(kept["shift"]), bias=0.0, floor=1)
                layers = tuple(int(one) for one in kept["layers"])
            self._known[name] = LinearProbe("probe", head, layers, "")
        return self._known[name]


def rows(content: bytes, width: int) -> Activations:
    """Return little-endian float32 rows as an array [tokens, width].

    Raises:
        BrokenReplyError: They are no whole rows of that width.
    """
    if width <= 0 or len(content) % (4 * width):
        raise BrokenReplyError("upstream: activations of another width than the probe's")
    found: Activations = np.frombuffer(content, dtype="<f4").reshape(-1, width)
    return found
