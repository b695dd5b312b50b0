"""The Merkle tree of RFC 6962 §2.1 and RFC 9162 §2.1: hashes, proofs and their verification."""

import hashlib
from collections.abc import Callable, Sequence

from safehold.trust.log.interface import ConsistencyProof, InclusionProof, LogError, LogTamperError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]
"""`node(level, index)`: the hash of the complete subtree over leaves [index·2^level, …)."""


def hash_leaf(entry: bytes) -> bytes:
    """Return the hash of one entry."""
    return hashlib.sha256(b"\0" + entry).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\1" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over a power of two of neighbouring hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [hash_children(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def _split(size: int) -> int:
    """Return the largest power of two that is smaller than `size` (size > 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def range_root(low: int, high: int, node: NodeReader) -> bytes:
    """Return MTH(D[low:high]) for a range that the RFC's recursion reaches."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, low >> level)
    middle = low + _split(size)
    return hash_children(range_root(low, middle, node), range_root(middle, high, node))


def tree_root(size: int, node: NodeReader) -> bytes:
    """Return the root of the first `size` leaves."""
    return range_root(0, size, node) if size else EMPTY_ROOT


def prove_inclusion(index: int, size: int, node: NodeReader) -> InclusionProof:
    """Return the proof that leaf `index` is in the tree of `size` leaves (RFC 6962 §2.1.1).

    Raises:
        LogError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise LogError(f"expected an index below the size {size}, got {index}")
    low, high = 0, size
    hashes: list[bytes] = []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            hashes.append(range_root(middle, high, node))
            high = middle
        else:
            hashes.append(range_root(low, middle, node))
            low = middle
    return InclusionProof(index=index, size=size, hashes=tuple(reversed(hashes)))


def prove_consistency(old: int, new: int, node: NodeReader) -> ConsistencyProof:
    """Return the proof that `old` leaves are a prefix of `new` (RFC 6962 §2.1.2).

    Raises:
        LogError: the sizes are not 0 ≤ old ≤ new.
    """
    if not 0 <= old <= new:
        raise LogError(f"expected sizes 0 <= old <= new, got {old} and {new}")
    hashes: list[bytes] = []
    low, high, whole = 0, new, True
    while 0 < old < new and high != old:
        middle = low + _split(high - low)
        if old <= middle:
            hashes.append(range_root(middle, high, node))
            high = middle
        else:
            hashes.append(range_root(low, middle, node))
            low, whole = middle, False
    if 0 < old < new and not whole:
        hashes.append(range_root(low, high, node))
    return ConsistencyProof(old=old, new=new, hashes=tuple(reversed(hashes)))


def verify_inclusion(proof: InclusionProof, leaf: bytes, root: bytes) -> None:
    """Refuse a proof that does not lead from the leaf hash to the root (RFC 9162 §2.1.3.2).

    Raises:
        LogTamperError: it does not.
    """
    # 1. The leaf is inside the tree.
    if not 0 <= proof.index < proof.size:
        raise LogTamperError("inclusion proof: the index is outside the tree")
    # 2. Walk from leaf to root.
    first, last, result = proof.index, proof.size - 1, leaf
    for sibling in proof.hashes:
        # 3. More hashes than levels.
        if last == 0:
            raise LogTamperError("inclusion proof: it is too long")
        if first & 1 or first == last:
            result = hash_children(sibling, result)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            result = hash_children(result, sibling)
        first, last = first >> 1, last >> 1
    # 4. The walk ended at the root, and the root is the signed one.
    if last != 0 or result != root:
        raise LogTamperError("inclusion proof: it does not lead to the checkpoint's root")


def verify_consistency(proof: ConsistencyProof, old_root: bytes, new_root: bytes) -> None:
    """Refuse a proof that does not show the old tree as a prefix (RFC 9162 §2.1.4.2).

    Raises:
        LogTamperError: it does not.
    """
    # 1. Sizes in order; equal and empty trees need no hashes.
    if not 0 <= proof.old <= proof.new:
        raise LogTamperError("consistency proof: the tree became smaller")
    if proof.old in {0, proof.new}:
        empty_is_empty = proof.old > 0 or old_root == EMPTY_ROOT
        same_is_same = proof.old < proof.new or old_root == new_root
        if proof.hashes or not empty_is_empty or not same_is_same:
            raise LogTamperError("consistency proof: two trees of one size differ")
        return
    # 2. A power of two is its own first hash.
    path = list(proof.hashes)
    if proof.old & (proof.old - 1) == 0:
        path.insert(0, old_root)
    # 3. and 4. Rebuild both roots.
    rebuilt = _both_roots(proof.old, proof.new, path)
    # 5. Both are the signed ones.
    if rebuilt != (old_root, new_root):
        raise LogTamperError("consistency proof: it does not lead to both roots")


def _both_roots(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    if not path:
        raise LogTamperError("consistency proof: it is empty")
    # 3. Skip the levels that both trees share.
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    # 4. Rebuild both roots.
    old_result = new_result = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise LogTamperError("consistency proof: it is too long")
        if first & 1 or first == last:
            old_result = hash_children(sibling, old_result)
            new_result = hash_children(sibling, new_result)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new_result = hash_children(new_result, sibling)
        first, last = first >> 1, last >> 1
    if last != 0:
        raise LogTamperError("consistency proof: it is too short")
    return old_result, new_result
