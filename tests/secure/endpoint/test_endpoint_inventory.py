"""Inventories: what must be refused, what is cached, what is suggested, what drifted."""

import os
from pathlib import Path

import msgspec
import pytest

from safehold.secure.endpoint.drift import drift
from safehold.secure.endpoint.interface import CodeKind, InventoryError
from safehold.secure.endpoint.inventory.book import Item, note_path, read_inventory, write_inventory
from safehold.secure.endpoint.inventory.scan import load_cache, scan, store_cache
from safehold.secure.endpoint.policy import InventorySource, parse_policy
from safehold.secure.endpoint.records import Denial
from safehold.secure.endpoint.suggest import Duty, rows_text, suggested
from safehold.trust.log.note import SigningKey

NOW = 1_790_000_000
DAY = 86400
ITEM = Item("/usr/bin/tool", 3, "ab" * 32, CodeKind.ELF, "tool", "1")


@pytest.fixture
def key() -> SigningKey:
    """The key of the inventory's signer."""
    return SigningKey.generate("platform")


@pytest.fixture
def file(tmp_path: Path, key: SigningKey) -> Path:
    """A good inventory."""
    path = tmp_path / "inventory.jsonl"
    write_inventory(path, [ITEM], "gpu-1", NOW, key)
    return path


def source(key: SigningKey) -> InventorySource:
    """The policy's row of it."""
    return InventorySource("inventory.jsonl", "platform", str(key.verifier))


def test_signed_inventory_is_read(file: Path, key: SigningKey) -> None:
    """The benign twin: rows come back as they were written."""
    assert read_inventory(file, source(key), "gpu-1", NOW + 29 * DAY) == (ITEM,)


def test_inventory_out_of_date_is_refused(file: Path, key: SigningKey) -> None:
    """One day too old, or made in the future, is refused."""
    for now in (NOW + 31 * DAY, NOW - DAY):
        with pytest.raises(InventoryError, match="out of date"):
            read_inventory(file, source(key), "gpu-1", now)


def test_inventory_of_another_host_is_refused(file: Path, key: SigningKey) -> None:
    """A good inventory of a neighbour says nothing here."""
    with pytest.raises(InventoryError, match="another host"):
        read_inventory(file, source(key), "gpu-2", NOW)


def test_unsigned_inventory_is_refused(file: Path, key: SigningKey) -> None:
    """Without a note, or by another key of the same name, it is unsigned."""
    with pytest.raises(InventoryError, match="unsigned"):
        read_inventory(file, source(SigningKey.generate("platform")), "gpu-1", NOW)
    note_path(file).unlink()
    with pytest.raises(InventoryError, match="unsigned"):
        read_inventory(file, source(key), "gpu-1", NOW)


@pytest.mark.parametrize("how", ["altered", "added", "removed", "note"])
def test_changed_inventory_is_refused(file: Path, key: SigningKey, how: str) -> None:
    """A row altered, added or removed, or another time in the note, does not verify."""
    data = file.read_bytes()
    match how:
        case "altered":
            file.write_bytes(data.replace(b"ab", b"ac", 1))
        case "added":
            file.write_bytes(data + data)
        case "removed":
            file.write_bytes(b"")
        case _:
            note = note_path(file)
            note.write_bytes(note.read_bytes().replace(str(NOW).encode(), str(NOW + 1).encode()))
    with pytest.raises(InventoryError):
        read_inventory(file, source(key), "gpu-1", NOW)


def test_scan_hashes_again_only_what_changed(tmp_path: Path) -> None:
    """A second scan takes the cached digest; a rewrite with its times put back is seen."""
    tool = tmp_path / "tool"
    tool.write_bytes(b"#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    (tmp_path / "note.txt").write_text("no program")
    items, cache, missed = scan((str(tmp_path),), {}, {})
    assert ([item.path for item in items], missed) == ([str(tool)], [])
    store_cache(tmp_path / "cache", cache)
    assert load_cache(tmp_path / "cache") == cache
    before = tool.stat()
    tool.write_bytes(b"#!/bin/sh\nexit 1\n")
    os.utime(tool, ns=(before.st_atime_ns, before.st_mtime_ns))
    again, _, _ = scan((str(tmp_path),), cache, {})
    assert again[0].sha256 != items[0].sha256


def test_cache_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    """A cache for all to write could name any digest: it is ignored."""
    store_cache(tmp_path / "cache", {})
    (tmp_path / "cache").write_bytes(b"{}")
    (tmp_path / "cache").chmod(0o666)
    assert load_cache(tmp_path / "cache") == {}


def test_drift_names_what_differs() -> None:
    """New, changed, gone and newly set-user-id files are named; the same file is not."""
    other = msgspec.structs.replace(ITEM, path="/usr/bin/other")
    moved = msgspec.structs.replace(ITEM, setuid=True)
    found = drift((ITEM, other), [moved, msgspec.structs.replace(ITEM, path="/usr/bin/new")])
    assert (found.new, found.changed, found.gone) == (
        ("/usr/bin/new",),
        ("/usr/bin/tool",),
        ("/usr/bin/other",),
    )
    assert not drift((ITEM,), [ITEM]).any


def denial(
    path: str, digest: str, *, package: str = "", owned: bool = True, kind: CodeKind = CodeKind.ELF
) -> Denial:
    """One line of the record."""
    return Denial(
        NOW, 1, "learn", kind, path, digest, package, owned, 33, "/usr/bin/cron", "", "no row"
    )


def test_suggested_rows_are_the_narrowest_and_can_be_read(base_text: str) -> None:
    """Package before digest, a path only for what changes and root owns, inline to one program."""
    seen = [
        denial("/usr/bin/tool", "ab" * 32, package="tool"),
        denial("/opt/a", "01" * 32),
        denial("/opt/moving", "02" * 32),
        denial("/opt/moving", "03" * 32),
        denial("/tmp/moving", "04" * 32, owned=False),
        denial("/tmp/moving", "05" * 32, owned=False),
        denial("/usr/bin/dash", "06" * 32, kind=CodeKind.INLINE),
    ]
    rows = suggested(seen, Duty("o", "r", "t"), frozenset({"learned-elf-1"}))
    text = rows_text(rows)
    read = parse_policy(base_text + "\n" + text).allow[1:]
    assert read == tuple(rows)
    by_name = {row.name: row for row in rows}
    assert by_name["learned-packages-1"].package == ("tool",)
    assert by_name["learned-elf-2"].sha256 == ("01" * 32, "04" * 32, "05" * 32)
    assert by_name["learned-elf-paths-1"].path == ("/opt/moving",)
    inline = by_name["learned-inline-1"]
    assert (inline.path, inline.exes, inline.uids) == (
        ("/usr/bin/dash",),
        ("/usr/bin/cron",),
        (33,),
    )
