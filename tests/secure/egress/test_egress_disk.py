"""A full disk and torn files: nothing opens, and what was dropped stays dropped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.interface import StateError
from safehold.secure.egress.watch.response import Rung, Step, carry_out
from safehold.testing.egress import FullDisk, World, register, row, small_disk

BULK = row("bulk", protocol="udp", port=9000, hour=10**8)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    """A disk of this test's own."""
    with small_disk(tmp_path / "disk") as made:
        yield made


@pytest.fixture
def remembering(world: World, disk: FullDisk) -> World:
    """A world that keeps its state on the small disk."""
    world.folder = disk.folder
    return world


class Revocations:
    """Counts how often everything was revoked."""

    count = 0

    def revoke_all(self, reason: str) -> int:
        """Count."""
        del reason
        self.count += 1
        return 1


def test_full_disk_keeps_no_flow_open(remembering: World, disk: FullDisk) -> None:
    """A block on a full disk drops at once and says that it is not durable; later it is."""
    enforcer = remembering.enforcer(register(BULK))
    enforcer.apply(first=True)
    disk.fill()
    with pytest.raises(StateError, match="in the kernel but not durable"):
        enforcer.block("bulk", "test")
    remembering.send("udp", 50_000, port=9000)
    assert remembering.received() == {}
    disk.empty()
    enforcer.block("bulk", "test")
    assert enforcer.state() is not None
    remembering.enforcer(register(BULK)).apply()
    remembering.send("udp", 50_000, port=9000)
    assert remembering.received() == {}


def test_full_disk_does_not_save_the_grants(remembering: World, disk: FullDisk) -> None:
    """A seal that can't be made durable drops everything and revokes all the same."""
    enforcer = remembering.enforcer(register(BULK))
    enforcer.apply(first=True)
    disk.fill()
    grants = Revocations()
    steps = [Step(Rung.SEAL, "*", "test"), Step(Rung.BLOCK, "bulk", "test")]
    with pytest.raises(StateError, match="not durable"):
        carry_out(steps, enforcer, grants, ChainedLog(disk.folder / "audit.jsonl"))
    assert grants.count == 1
    remembering.send("udp", 50_000, port=9000)
    assert remembering.received() == {}


def test_full_disk_refunds_no_budget(remembering: World, disk: FullDisk) -> None:
    """What was sent while nothing could be written is charged when it can."""
    enforcer = remembering.enforcer(register(BULK))
    enforcer.apply(first=True)
    disk.fill()
    remembering.send("udp", 300_000, port=9000)
    with pytest.raises(StateError, match="No space left"):
        enforcer.tick()
    disk.empty()
    assert enforcer.tick().passed["bulk"] > 300_000


def test_audit_log_goes_on_after_a_full_disk(disk: FullDisk) -> None:
    """An event that found no room is an error, and the chain is whole afterwards."""
    log = ChainedLog(disk.folder / "audit.jsonl")
    log.append("one", {})
    disk.fill()
    with pytest.raises(StateError, match="can't be appended"):
        log.append("two", {"long": "x" * 9000})
    disk.empty()
    log.append("three", {})
    assert [entry.kind for entry in log.read()] == ["one", "three"]


def test_torn_audit_line_is_cut_off(tmp_path: Path) -> None:
    """Half a line of a crash does not end the log for ever."""
    log = ChainedLog(tmp_path / "audit.jsonl")
    log.append("one", {})
    with log.path.open("ab") as file:
        file.write(b'{"index":1,"ti')
    log.append("two", {})
    assert [entry.kind for entry in log.read()] == ["one", "two"]


def test_state_folder_that_is_a_file_is_one_error(tmp_path: Path) -> None:
    """What can't be a folder says so."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="can't be used"), StateFile(tmp_path / "file").locked():
        pass
