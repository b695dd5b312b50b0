"""C2SP tlog-proof: one text that shows, offline, that an entry is in a signed tree."""

import base64
import binascii
import re

import msgspec

from safehold.trust.log.checkpoint import (
    check_seen,
    check_witnesses,
    open_checkpoint,
    verify_cosignatures,
)
from safehold.trust.log.interface import Checkpoint, InclusionProof, LogError
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.merkle import HASH_BYTES, hash_leaf, verify_inclusion
from safehold.trust.log.note import VerifierKey

_HEAD = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63


def encode_proof(proof: InclusionProof, checkpoint: bytes) -> str:
    """Return the proof file's text (extension `.tlog-proof`)."""
    hashes = "".join(base64.b64encode(one).decode() + "\n" for one in proof.hashes)
    return f"{_HEAD}\nindex {proof.index}\n{hashes}\n{checkpoint.decode()}"


class ProofFinding(msgspec.Struct, frozen=True):
    """What a verified proof showed."""

    checkpoint: Checkpoint
    index: int
    """Of the entry."""
    witnesses: tuple[str, ...]
    """Names of known witnesses whose cosignature of the checkpoint verified."""


def check_proof(
    text: str,
    entry: bytes,
    keys: LogKeys,
    *,
    need_witnesses: int = 0,
    at_least: int = 0,
) -> ProofFinding:
    """Return what a proof shows of an entry, offline, to a reader with demands.

    Args:
        text: The proof.
        entry: The raw entry.
        keys: The log's public keys, from somewhere else than the proof.
        need_witnesses: How many distinct known witnesses must have cosigned its checkpoint.
        at_least: Leaves that the reader has seen before.

    Raises:
        LogError: malformed.
        LogTamperError: the checkpoint or the proof is false, too few witnesses cosigned it, or it
            is of a smaller tree than one seen before.
    """
    checkpoint, index = verify_proof_text(text, entry, keys.log_key())
    check_seen(checkpoint, at_least)
    note = text.partition("\n\n")[2].encode()
    signed = open_checkpoint(note, keys.log_key(), origin=keys.origin)[1]
    found = verify_cosignatures(signed, keys.witness_keys())
    check_witnesses(len(found), need_witnesses)
    return ProofFinding(checkpoint, index, tuple(one.witness for one in found))


def verify_proof_text(text: str, entry: bytes, key: VerifierKey) -> tuple[Checkpoint, int]:
    """Return the signed tree head and the index at which it holds the entry.

    Raises:
        LogError: malformed.
        LogTamperError: the checkpoint or the proof is false.
    """
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    if lines[0] != _HEAD or not separator:
        raise LogError(f"expected a proof that begins with {_HEAD}")
    rows = [line for line in lines[1:] if not line.startswith("extra ")]
    match = re.fullmatch(r"index (0|[1-9][0-9]{0,17})", rows[0]) if rows else None
    if match is None or len(rows) > _MAX_HASHES + 1:
        raise LogError("expected a line `index N` and at most 63 hashes")
    try:
        hashes = tuple(base64.b64decode(row, validate=True) for row in rows[1:])
    except binascii.Error as error:
        raise LogError("expected hashes in base64") from error
    if any(len(one) != HASH_BYTES for one in hashes):
        raise LogError("expected hashes of 32 bytes")
    checkpoint, _ = open_checkpoint(note.encode(), key)
    index = int(match[1])
    verify_inclusion(
        InclusionProof(index=index, size=checkpoint.size, hashes=hashes),
        hash_leaf(entry),
        checkpoint.root,
    )
    return checkpoint, index
