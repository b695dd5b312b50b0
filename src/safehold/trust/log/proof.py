"""C2SP tlog-proof: one text that shows, offline, that an entry is in a signed tree."""

import base64
import binascii
import re

from safehold.trust.log.checkpoint import open_checkpoint
from safehold.trust.log.interface import Checkpoint, InclusionProof, LogError
from safehold.trust.log.merkle import HASH_BYTES, hash_leaf, verify_inclusion
from safehold.trust.log.note import VerifierKey

_HEAD = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63


def encode_proof(proof: InclusionProof, checkpoint: bytes) -> str:
    """Return the proof file's text (extension `.tlog-proof`)."""
    hashes = "".join(base64.b64encode(one).decode() + "\n" for one in proof.hashes)
    return f"{_HEAD}\nindex {proof.index}\n{hashes}\n{checkpoint.decode()}"


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
