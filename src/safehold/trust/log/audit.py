"""Verification of a whole log from a copy and its public keys: no private key, no network."""

from collections.abc import Callable

import msgspec

from safehold.trust.log.checkpoint import (
    check_seen,
    check_witnesses,
    open_checkpoint,
    verify_cosignatures,
)
from safehold.trust.log.dsse import Statement, open_envelope
from safehold.trust.log.interface import Checkpoint, LogError, LogSource, LogTamperError
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.merkle import (
    hash_leaf,
    prove_consistency,
    tree_root,
    verify_consistency,
)
from safehold.trust.log.tiles import WIDTH, Frontier, TileReader, tile_path


class AuditFinding(msgspec.Struct, frozen=True):
    """What a verified log showed."""

    checkpoint: Checkpoint
    leaves: int
    witnesses: tuple[str, ...]
    """Names of known witnesses whose cosignature of a prefix (or all) of the tree verified."""
    witnessed_size: int


LeafCheck = Callable[[int, Statement, str], None]


def audit(
    source: LogSource,
    keys: LogKeys,
    *,
    check_leaf: LeafCheck | None = None,
    need_witnesses: int = 0,
    progress: Callable[[int], None] | None = None,
) -> AuditFinding:
    """Verify everything a copy of a log claims.

    Args:
        source: The log's static files.
        keys: The log's public keys, from somewhere else than the copy.
        check_leaf: Called with index, statement and emitter of each leaf, to type it.
        need_witnesses: How many distinct known witnesses must have cosigned.
        progress: Called with the number of leaves read so far, once a bundle.

    Raises:
        LogTamperError: any step fails.
    """
    # 1. The checkpoint is the log's own.
    data = source.read("checkpoint")
    if data is None:
        raise LogTamperError("the copy has no checkpoint")
    head, _ = open_checkpoint(data, keys.log_key(), origin=keys.origin)
    emitters = keys.emitter_keys()
    if not emitters:
        raise LogError("expected the keys of at least one emitter, got none")
    reader = TileReader(source, head)
    frontier = Frontier()
    for bundle in range(-(-head.size // WIDTH)):
        # 2. Each entry is the one its level-0 tile names.
        entries = reader.bundle(bundle)
        hashes = [hash_leaf(entry) for entry in entries]
        # 3. Each leaf is signed by a known emitter, and of a known type.
        for offset, entry in enumerate(entries):
            statement, emitter = open_envelope(entry, emitters)
            if check_leaf is not None:
                check_leaf(bundle * WIDTH + offset, statement, emitter)
        # 4. The tiles above are the hashes of those below.
        _grow(source, frontier, hashes)
        if progress is not None:
            progress(frontier.size)
    # 5. All of it has the signed root, by the leaves and by the tiles.
    stored = tree_root(head.size, reader.node) if head.size else frontier.root()
    if frontier.root() != head.root or stored != head.root:
        raise LogTamperError("the entries do not have the root that the checkpoint signs")
    # 6. What witnesses have seen is a prefix of it.
    witnesses, seen = _witnessed(source, keys, head, reader)
    check_witnesses(len(witnesses), need_witnesses)
    return AuditFinding(
        checkpoint=head, leaves=frontier.size, witnesses=witnesses, witnessed_size=seen
    )


def _grow(source: LogSource, frontier: Frontier, hashes: list[bytes]) -> None:
    for value in hashes:
        for level, index, tile in frontier.add(value):
            if level and source.read(tile_path(level, index)) != tile:
                raise LogTamperError(f"tile {level}/{index} contradicts the tiles below it")


def _witnessed(
    source: LogSource, keys: LogKeys, head: Checkpoint, reader: TileReader
) -> tuple[tuple[str, ...], int]:
    data = source.read("witnessed")
    if data is None or not keys.witnesses:
        return (), 0
    old, note = open_checkpoint(data, keys.log_key(), origin=keys.origin)
    if old.size > head.size:
        raise LogTamperError("the witnesses have seen a larger tree than this one")
    proof = prove_consistency(old.size, head.size, reader.node)
    verify_consistency(proof, old.root, head.root)
    found = verify_cosignatures(note, keys.witness_keys())
    return tuple(one.witness for one in found), old.size


def check_size(source: LogSource, keys: LogKeys, at_least: int) -> None:
    """Refuse a copy that is shorter than what its reader saw before.

    Raises:
        LogTamperError: it is shorter.
        LogError: it has no checkpoint.
    """
    data = source.read("checkpoint")
    if data is None:
        raise LogError("the copy has no checkpoint")
    head, _ = open_checkpoint(data, keys.log_key(), origin=keys.origin)
    check_seen(head, at_least)
