"""What loaders and the key service say to each other: framed JSON on a Unix socket."""

import socket
import struct
from typing import Annotated, Any, TypeVar

import msgspec

from safehold.errors import WeightsError
from safehold.secure.weights.interface import Hex32, ShardName, Wrapped

MAX_FRAME_BYTES = 24 * 2**20
_LENGTH_BYTES = 4
CREDENTIALS = struct.Struct("iII")
"""Process, user and group id, as the kernel gives them (unix(7))."""
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


class Bind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="bind"):
    """You were measured. Say this nonce back, with a fresh key, from the measured process."""

    nonce: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class BindProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="bound"):
    """The measured process's answer: the nonce, and an X25519 key that only its memory has."""

    nonce: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    public: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class SealedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sealed"):
    """An answer for that key alone: who shares the connection reads nothing."""

    public: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    box: bytes


Answer = Keys | Watching | Rewrapped | Shredded | Alive | GrantRevoked | KeyRefusal
T = TypeVar("T")


def send(peer: socket.socket, message: Ask | Answer | Bind | BindProof | SealedAnswer) -> None:
    """Send one frame."""
    data = msgspec.json.encode(message)
    peer.sendall(len(data).to_bytes(_LENGTH_BYTES, "big") + data)


def receive(peer: socket.socket, kind: Any, *, sender: int | None = None) -> Any:  # noqa: ANN401 - msgspec's own unions of types
    """Return the next message, of one of the kinds; None at a clean end.

    Args:
        peer: The connection.
        kind: The kinds of message that are expected.
        sender: The one process whose bytes count, by the kernel's word (`SO_PASSCRED` is set).

    Raises:
        KeydError: cut off in the middle, too long, of another sender, or no message of these kinds.
        TimeoutError: silence.
    """
    head = _exactly(peer, _LENGTH_BYTES, sender)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if not 0 < length <= MAX_FRAME_BYTES:
        raise KeydError(f"expected a frame of 1 to {MAX_FRAME_BYTES} bytes")
    data = _exactly(peer, length, sender)
    if data is None:
        raise KeydError("the connection ended within a frame")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise KeydError("expected a message of the key service's protocol") from error


def _exactly(peer: socket.socket, count: int, sender: int | None) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = _some(peer, min(count - len(parts), 2**20), sender)
        if not part:
            if parts:
                raise KeydError("the connection ended within a frame")
            return None
        parts += part
    return bytes(parts)


def _some(peer: socket.socket, count: int, sender: int | None) -> bytes:
    if sender is None:
        return peer.recv(count)
    part, extra, _, _ = peer.recvmsg(count, socket.CMSG_SPACE(CREDENTIALS.size))
    # The kernel never joins bytes of two senders in one read.
    senders = [
        CREDENTIALS.unpack(data[: CREDENTIALS.size])[0]
        for level, kind, data in extra
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    ]
    if part and senders != [sender]:
        raise KeydError("another process than the measured one answers for the loader")
    return part
