"""Inventory files: rows, one Merkle root, one signed note beside them (`FILE.note`)."""

import datetime as dt
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from safehold.errors import TrustError
from safehold.secure.endpoint.interface import CodeKind, InventoryError
from safehold.secure.endpoint.policy import EndpointPolicy, Hex32, InventorySource
from safehold.trust.log.merkle import EMPTY_ROOT, hash_children, hash_leaf
from safehold.trust.log.note import Note, SigningKey, parse_note, parse_vkey, sign_note

_TITLE = "safehold endpoint inventory"
_FUTURE_S = 300


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file that can run: absolute path, size in bytes, digest, kind, package and version."""

    path: str
    size: int
    sha256: Hex32
    kind: CodeKind
    package: str = ""
    version: str = ""
    setuid: bool = False


class Stated(msgspec.Struct, frozen=True):
    """What the signed note says: host, time (POSIX seconds), number of rows, their root."""

    host: str
    made: int
    count: int
    root: str


def merkle_root(rows: Sequence[bytes]) -> str:
    """Return the root over the rows, RFC 6962 hashes, an odd node carried up."""
    level = [hash_leaf(row) for row in rows]
    if not level:
        return EMPTY_ROOT.hex()
    while len(level) > 1:
        pairs = [hash_children(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0].hex()


def write_inventory(
    path: Path, items: Iterable[Item], host: str, made: int, key: SigningKey
) -> int:
    """Write rows and signed note; return how many rows there are.

    Raises:
        InventoryError: the disk refused.
    """
    rows = [msgspec.json.encode(item) for item in sorted(items, key=lambda item: item.path)]
    text = f"{_TITLE}\n{host}\n{made}\n{len(rows)}\n{merkle_root(rows)}\n"
    try:
        _replace(path, b"".join(row + b"\n" for row in rows))
        _replace(note_path(path), str(sign_note(text, key)).encode())
    except OSError as error:
        raise InventoryError(f"{path.name}: can't be written ({error.strerror})") from error
    return len(rows)


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def note_path(path: Path) -> Path:
    """Return where an inventory's note lies."""
    return path.with_name(path.name + ".note")


def read_inventory(path: Path, source: InventorySource, host: str, now: int) -> tuple[Item, ...]:
    """Return the rows of an inventory that is what it must be.

    1. Signed by the source's key. 2. For this host. 3. Not too old, not of the future.
    4. Exactly the signed rows.

    Raises:
        InventoryError: it is not, with the step named.
    """
    try:
        note = parse_note(note_path(path).read_bytes())
        data = path.read_bytes()
    except OSError as error:
        raise InventoryError(f"{path.name}: unsigned or missing ({error.strerror})") from error
    except TrustError as error:
        raise InventoryError(f"{path.name}: unsigned: {error}") from error
    stated = _stated(path.name, note, source)
    if stated.host != host:
        raise InventoryError(f"{path.name}: for another host: expected {host}, got {stated.host}")
    age = now - stated.made
    if age > source.max_age_days * 86400 or age < -_FUTURE_S:
        day = dt.datetime.fromtimestamp(stated.made, dt.UTC).date()
        raise InventoryError(
            f"{path.name}: out of date: made {day}, expected within {source.max_age_days} days"
        )
    rows = data.splitlines()
    if len(rows) != stated.count or merkle_root(rows) != stated.root:
        raise InventoryError(f"{path.name}: its rows are not those that were signed")
    try:
        return tuple(msgspec.json.decode(row, type=Item) for row in rows)
    except msgspec.ValidationError as error:
        raise InventoryError(f"{path.name}: {error}") from error


def _stated(name: str, note: Note, source: InventorySource) -> Stated:
    try:
        note.verify([parse_vkey(source.key)])
        title, host, made, count, root = note.text.splitlines()
        if title != _TITLE:
            raise InventoryError(f"{name}: expected a note of an inventory")
        return Stated(host, int(made), int(count), root)
    except TrustError as error:
        raise InventoryError(f"{name}: unsigned by {source.signer}: {error}") from error
    except ValueError as error:
        raise InventoryError(f"{name}: expected a note of an inventory") from error


class InventoryBook(msgspec.Struct, frozen=True):
    """What verified inventories say of a digest."""

    packages: dict[str, str] = {}
    signers: dict[str, frozenset[str]] = {}

    def package(self, sha256: str) -> str:
        """Return the package that the digest belongs to; empty: none."""
        return self.packages.get(sha256, "")

    def vouching(self, sha256: str) -> frozenset[str]:
        """Return the names of the keys that vouch for the digest."""
        return self.signers.get(sha256, frozenset())


def catalogue(policy: EndpointPolicy, folder: Path, now: int) -> InventoryBook:
    """Read every inventory that the policy names; paths are meant beside the policy.

    Raises:
        InventoryError: one is not what it must be.
    """
    packages: dict[str, str] = {}
    signers: dict[str, frozenset[str]] = {}
    for source in policy.inventory:
        for item in read_inventory(folder / source.file, source, policy.host, now):
            if item.package:
                packages.setdefault(item.sha256, item.package)
            signers[item.sha256] = signers.get(item.sha256, frozenset()) | {source.signer}
    return InventoryBook(packages, signers)
