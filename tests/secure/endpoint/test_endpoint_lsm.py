"""The BPF LSM engine outside of a kernel that takes it: object, rows, keys, commands."""

import hashlib
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.endpoint import endpoint
from safehold.errors import TrustError
from safehold.secure.endpoint.lsm.keys import FileKeys, LsmRow, LsmRowError, pack_key, read_rows
from safehold.secure.endpoint.lsm.program import OBJECT, LsmError, checked_object, state


def sha(data: bytes) -> str:
    """The digest of some content."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file that is listed."""
    path = tmp_path / "program"
    path.write_bytes(b"allowed")
    return path


def keys_of(*rows: LsmRow, device: int) -> FileKeys:
    """Keys on a machine that has this device."""
    return FileKeys(rows, lambda: frozenset({device}))


def test_shipped_object_is_the_one_that_was_built() -> None:
    """Its digest is the one in the loader, and it has the three hooks."""
    assert checked_object() == os.fsencode(OBJECT)
    data = OBJECT.read_bytes()
    for hook in (b"lsm/bprm_check_security", b"lsm/mmap_file", b"lsm/file_mprotect"):
        assert hook in data


def test_altered_object_is_not_loaded(tmp_path: Path) -> None:
    """One changed byte, and the loader refuses it before the kernel sees it."""
    data = bytearray(OBJECT.read_bytes())
    data[-1] ^= 1
    (tmp_path / "allow.bpf.o").write_bytes(data)
    with pytest.raises(LsmError, match=r"allow\.bpf\.o: expected"):
        checked_object(tmp_path / "allow.bpf.o")


@pytest.mark.parametrize(
    "text", ["", "{}\n", "no json\n", '{"path": "/a", "sha256": "b", "x": 1}\n']
)
def test_rows_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    """An empty list would stop the host, and a line that is no row is not left out in silence."""
    (tmp_path / "allow.jsonl").write_text(text)
    with pytest.raises(LsmRowError, match=r"allow\.jsonl"):
        read_rows(tmp_path / "allow.jsonl")


def test_key_follows_the_file(program: Path) -> None:
    """A hard link moves the change time: the old key is void, and the file is judged anew."""
    keys = keys_of(LsmRow(str(program), sha(b"allowed")), device=program.stat().st_dev)
    (first,), void = keys.refresh()
    assert void == []
    assert keys.refresh() == ([], [])
    program.with_name("second").hardlink_to(program)
    fresh, void = keys.refresh()
    assert void == [first]
    assert len(fresh) == 1
    assert fresh != [first]


def test_changed_content_loses_its_key(program: Path) -> None:
    """Rewritten in place, also with the times put back, it has no key any more."""
    keys = keys_of(LsmRow(str(program), sha(b"allowed")), device=program.stat().st_dev)
    (first,), _ = keys.refresh()
    before = program.stat()
    program.write_bytes(b"another")
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert keys.refresh() == ([], [first])
    assert "another" in keys.refused[str(program)]


def test_file_with_a_writer_gets_no_key(program: Path) -> None:
    """Who has it open for writing could change it after it was hashed; afterwards it is judged."""
    keys = keys_of(LsmRow(str(program), sha(b"allowed")), device=program.stat().st_dev)
    with program.open("r+b"):
        assert keys.refresh() == ([], [])
    assert len(keys.refresh()[0]) == 1


def test_file_of_an_overlay_gets_no_key(program: Path) -> None:
    """Its inodes say another device to the kernel than to us: no key is better than a wrong one."""
    keys = keys_of(LsmRow(str(program), sha(b"allowed")), device=program.stat().st_dev + 1)
    assert keys.refresh() == ([], [])
    assert "another device" in keys.refused[str(program)]


def test_file_that_is_gone_loses_its_key_and_a_new_one_is_judged(program: Path) -> None:
    """An update by rename: the new file at the place is hashed, and listed content gets a key."""
    rows = [LsmRow(str(program), sha(b"allowed")), LsmRow(str(program), sha(b"version 2"))]
    keys = keys_of(*rows, device=program.stat().st_dev)
    (first,), _ = keys.refresh()
    program.unlink()
    assert keys.refresh() == ([], [first])
    program.with_name("new").write_bytes(b"version 2")
    program.with_name("new").rename(program)
    assert len(keys.refresh()[0]) == 1


def test_key_has_the_layout_of_the_program(program: Path) -> None:
    """40 bytes: device as the kernel numbers it inside, inode, time in two parts, size."""
    found = program.stat()
    key = pack_key(found, 7)
    assert len(key) == 40
    assert int.from_bytes(key[8:16], "little") == found.st_ino
    assert int.from_bytes(key[16:24], "little") == found.st_ctime_ns // 10**9
    assert int.from_bytes(key[28:32], "little") == 7
    assert int.from_bytes(key[32:40], "little") == len(b"allowed")


def test_status_says_what_is_not_in_force(tmp_path: Path) -> None:
    """Without pins nothing is claimed: the missing ones are named."""
    with pytest.raises(LsmError, match="not in force: on_exec"):
        state(tmp_path)
    found = CliRunner().invoke(endpoint, ["lsm", "status", "--pins", str(tmp_path)])
    assert isinstance(found.exception, LsmError)


def test_stopping_needs_a_grant(tmp_path: Path) -> None:
    """Without a log nobody may take the program out of force; its pins stay."""
    (tmp_path / "on_exec").touch()
    found = CliRunner().invoke(
        endpoint,
        ["lsm", "stop", "--host", "gpu-1", "--pins", str(tmp_path)],
        env={"SAFEHOLD_LOG": ""},
    )
    assert isinstance(found.exception, TrustError)
    assert (tmp_path / "on_exec").exists()
