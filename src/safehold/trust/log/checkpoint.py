"""Checkpoints (C2SP tlog-checkpoint) and witnesses' cosignatures of them (tlog-cosignature)."""

import base64
import binascii
import re
from collections.abc import Sequence

import msgspec

from safehold.trust.log.interface import Checkpoint, LogError, LogTamperError
from safehold.trust.log.merkle import HASH_BYTES
from safehold.trust.log.note import (
    Algorithm,
    Note,
    Signature,
    SigningKey,
    VerifierKey,
    parse_note,
    sign_note,
)

_TIME_BYTES = 8
_LINES = 3


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """Return the note text of a tree head."""
    root = base64.b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> Note:
    """Return the signed checkpoint."""
    return sign_note(checkpoint_text(checkpoint), key)


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the tree head of a note text; extension lines are dropped.

    Raises:
        LogError: fewer than three lines, or a malformed size or root.
    """
    lines = text.split("\n")[:-1]
    if len(lines) < _LINES or not all(lines):
        raise LogError("expected a checkpoint: origin, size, root hash")
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", lines[1]):
        raise LogError("expected the tree size in decimal without leading zeroes")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error as error:
        raise LogError("expected the root hash in base64") from error
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != lines[2]:
        raise LogError("expected a root hash of 32 bytes")
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root)


def open_checkpoint(
    data: bytes, key: VerifierKey, *, origin: str | None = None
) -> tuple[Checkpoint, Note]:
    """Return the tree head that the log's key signed.

    Args:
        data: The bytes of `checkpoint`.
        key: The log's key, known beforehand.
        origin: The origin it must have; None: the key's name.

    Raises:
        LogTamperError: not signed by the key, or another log's.
    """
    note = parse_note(data)
    note.verify([key])
    checkpoint = parse_checkpoint(note.text)
    expected = key.name if origin is None else origin
    if checkpoint.origin != expected:
        raise LogTamperError(f"expected a checkpoint of {expected}, got another log's")
    return checkpoint, note


def check_seen(head: Checkpoint, at_least: int) -> None:
    """Refuse a tree that is smaller than what its reader saw before.

    Raises:
        LogTamperError: it is smaller.
    """
    if head.size < at_least:
        raise LogTamperError(f"expected at least {at_least} leaves, got {head.size}: a rollback")


def check_witnesses(found: int, needed: int) -> None:
    """Refuse a tree that too few known witnesses cosigned.

    Raises:
        LogTamperError: fewer than needed.
    """
    if found < needed:
        raise LogTamperError(f"expected cosignatures of {needed} witness(es), got {found}")


class Cosignature(msgspec.Struct, frozen=True):
    """A verified cosignature: whose, and when (POSIX seconds)."""

    witness: str
    time: int


def _cosigned_message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosign(note: Note, key: SigningKey, time: int) -> Note:
    """Return the note with the witness's cosignature (replacing an older one of its own)."""
    if key.verifier.algorithm is not Algorithm.COSIGNATURE:
        raise LogError("expected a witness key of type 4 (cosignature)")
    value = time.to_bytes(_TIME_BYTES, "big") + key.sign(_cosigned_message(note.text, time))
    verifier = key.verifier
    mine = Signature(name=verifier.name, key_id=verifier.id, value=value)
    others = tuple(
        one for one in note.signatures if (one.name, one.key_id) != (verifier.name, verifier.id)
    )
    return Note(text=note.text, signatures=(*others, mine))


def verify_cosignatures(note: Note, witnesses: Sequence[VerifierKey]) -> tuple[Cosignature, ...]:
    """Return the cosignatures of known witnesses; each witness's name counts once.

    Raises:
        LogTamperError: a known witness's cosignature is false.
    """
    found: dict[bytes, Cosignature] = {}
    for key in witnesses:
        if key.algorithm is not Algorithm.COSIGNATURE:
            raise LogError("expected witness keys of type 4 (cosignature)")
        signature = note.of(key)
        if signature is None:
            continue
        time = int.from_bytes(signature.value[:_TIME_BYTES], "big")
        if not key.verifies(signature.value[_TIME_BYTES:], _cosigned_message(note.text, time)):
            raise LogTamperError(f"the cosignature by {key.name} is false")
        found[key.public] = Cosignature(witness=key.name, time=time)
    return tuple(found.values())
