"""Files that are made once or appended to: whole, or as they were, whatever the disk does."""

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import safehold
from safehold.detect.bounty.sealing import new_triage_key, read_triage_key
from safehold.errors import SafeholdError
from safehold.guard.bundle.signing import load_or_make_key, load_public_key
from safehold.guard.ledger.sealing import make_key
from safehold.secure.egress.watch.timeline_files import TimelineFile, timeline_rows
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.trust.log.files import append_whole, write_new

SOURCE = Path(safehold.__file__).parent


@contextmanager
def full_disk(at: int) -> Iterator[None]:
    """Let no file grow beyond `at` bytes: a write puts down a part, and then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


MAKERS: dict[str, Callable[[Path], object]] = {
    "bundle": load_or_make_key,
    "ledger": make_key,
    "triage": new_triage_key,
    "plain": lambda path: write_new(path, b"x" * 100),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_key_that_the_disk_had_no_room_for_is_not_there(maker: str, tmp_path: Path) -> None:
    """Nothing of it is left, so that the same command makes it once there is room."""
    path = tmp_path / "new.key"
    with full_disk(7), pytest.raises((SafeholdError, OSError)):
        MAKERS[maker](path)
    assert list(tmp_path.iterdir()) == []
    MAKERS[maker](path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size > 7


def test_of_two_who_make_a_bundle_key_at_once_both_hold_the_same(tmp_path: Path) -> None:
    """No one signs with a key that is not the one on disk."""
    path, made = tmp_path / "keys" / "k.pem", []
    threads = [
        threading.Thread(target=lambda: made.append(load_or_make_key(path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    public = load_public_key(path.with_suffix(".pub")).public_bytes_raw()
    assert [one.public_key().public_bytes_raw() for one in made] == [public] * 8
    assert sorted(one.name for one in path.parent.iterdir()) == ["k.pem", "k.pub"]


def test_a_bundle_key_whose_public_half_was_never_written_gets_it(tmp_path: Path) -> None:
    """A kill between the two files costs nothing; a public key that is there stays as it is."""
    path = tmp_path / "k.pem"
    key = load_or_make_key(path)
    public = path.with_suffix(".pub")
    public.unlink()
    load_or_make_key(path)
    assert load_public_key(public).public_bytes_raw() == key.public_key().public_bytes_raw()
    public.write_bytes(b"another")
    load_or_make_key(path)
    assert public.read_bytes() == b"another"


def test_a_file_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """The twin: what stands there stays, and no rest is left beside it."""
    path = tmp_path / "k"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_new(path, b"new")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]
    new_triage_key(tmp_path / "t")
    assert read_triage_key(tmp_path / "t")


def test_no_other_code_makes_a_secret_file_by_itself() -> None:
    """Whoever makes a file that must be new calls `write_new`: one place knows how."""
    own = {"trust/log/files.py"}
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if "os.O_CREAT | os.O_EXCL" in path.read_text() and "0o600" in path.read_text()
    }
    assert found - own == set()


@given(
    before=st.lists(st.binary(max_size=20).map(lambda one: one.replace(b"\n", b"")), max_size=4),
    torn=st.binary(max_size=20).map(lambda one: one.replace(b"\n", b"")),
    room=st.integers(0, 40),
)
def test_lines_are_appended_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], torn: bytes, room: int
) -> None:
    """Whatever tore before, and wherever the disk is full, the file is whole lines."""
    path = tmp_path_factory.mktemp("lines") / "log"
    whole = b"".join(line + b"\n" for line in before)
    path.write_bytes(whole + torn)
    more = b"one line\nand another\n"
    with full_disk(len(whole) + room):
        try:
            append_whole(path, more)
            kept = more
        except OSError:
            kept = b""
    assert path.read_bytes() == whole + kept
    assert (kept == more) is (room >= len(more))
    append_whole(path, b"last\n", sync=True)
    assert path.read_bytes() == whole + kept + b"last\n"


def test_a_timeline_is_read_after_the_disk_was_full(tmp_path: Path) -> None:
    """The row that had no room is missing; all before and after it are there."""
    path = tmp_path / "timeline.jsonl"
    timeline = TimelineFile(path)

    def row(at: int) -> TimelineRow:
        return TimelineRow(
            time=1e9 + at, passed={"a": at}, remaining={}, residual={}, undeclared=0, line=1
        )

    for at in range(5):
        timeline.append(row(at))
    with full_disk(path.stat().st_size + 4), pytest.raises(SafeholdError, match="appended"):
        timeline.append(row(5))
    timeline.append(row(6))
    timeline.append(row(7))
    assert [one.passed["a"] for one in timeline_rows(path)] == [0, 1, 2, 3, 4, 6, 7]
