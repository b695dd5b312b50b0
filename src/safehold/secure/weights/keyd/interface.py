"""What loaders and the key service say to each other: framed JSON on a Unix socket."""

import socket
from typing import Any, TypeVar

import msgspec

from safehold.errors import WeightsError
from safehold.secure.weights.interface import Hex32, ShardName, Wrapped

MAX_FRAME_BYTES = 24 * 2**20
_LENGTH_BYTES = 4
BEAT_S = 1.0
"""How often the service looks at the log and speaks to every lease."""
SILENCE_S = 4.0
"""After this much silence a loader takes its lease for lost. With BEAT_S, under five seconds."""

Parts = tuple[str, ...]


class KeydError(WeightsError):
    """Look at the key service: it is out of reach, or speaks another language."""


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="load"):
    """Release the keys of these shards, and keep watching the grant while I use them."""

    grant: Hex32
    header: str
    """The text of the sealed model's `header.json`."""
    parts: Parts


class WatchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="watch"):
    """Release nothing; tell me the grant's budget and when it ends (for the read meter)."""

    grant: Hex32


class Rewrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rewrap"):
    """Wrap the model's data key anew, with these kinds of provider."""

    grant: Hex32
    header: str
    to: Parts


class Shred(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="shred"):
    """Destroy every key that opens this model."""

    grant: Hex32
    header: str


Ask = Load | WatchRequest | Rewrap | Shred


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log's leaf about this release and the proof (C2SP tlog-proof) that it is there."""

    entry: str
    proof: str


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keys"):
    """Shard keys by name; the grant ends at `expires` (POSIX seconds)."""

    keys: dict[ShardName, bytes]
    expires: int
    byte_budget: int
    receipt: Receipt


class Watching(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="watching"):
    """The grant holds now."""

    expires: int
    byte_budget: int


class Rewrapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rewrapped"):
    """The data key's new wrappings."""

    wrapped: tuple[Wrapped, ...]
    receipt: Receipt


class Shredded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="shredded"):
    """What was destroyed, and what each provider answered when asked to unwrap afterwards."""

    report: tuple[str, ...]
    receipt: Receipt


class Alive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="alive"):
    """The grant still holds."""


class GrantRevoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="revoked"):
    """The grant holds no more: wipe."""

    reason: str


class KeyRefusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refusal"):
    """No; one line says why. `trust` tells a missing authorization from other errors."""

    reason: str
    trust: bool


Answer = Keys | Watching | Rewrapped | Shredded | Alive | GrantRevoked | KeyRefusal
T = TypeVar("T")


def send(peer: socket.socket, message: Ask | Answer) -> None:
    """Send one frame."""
    data = msgspec.json.encode(message)
    peer.sendall(len(data).to_bytes(_LENGTH_BYTES, "big") + data)


def receive(peer: socket.socket, kind: Any) -> Any:  # noqa: ANN401 - msgspec's own unions of types
    """Return the next message, of one of the kinds; None at a clean end.

    Raises:
        KeydError: cut off in the middle, too long, or no message of these kinds.
        TimeoutError: silence.
    """
    head = _exactly(peer, _LENGTH_BYTES)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if not 0 < length <= MAX_FRAME_BYTES:
        raise KeydError(f"expected a frame of 1 to {MAX_FRAME_BYTES} bytes")
    data = _exactly(peer, length)
    if data is None:
        raise KeydError("the connection ended within a frame")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise KeydError("expected a message of the key service's protocol") from error


def _exactly(peer: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = peer.recv(min(count - len(parts), 2**20))
        if not part:
            if parts:
                raise KeydError("the connection ended within a frame")
            return None
        parts += part
    return bytes(parts)
