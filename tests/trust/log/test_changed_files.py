"""Files that many processes add to: nobody's part is lost, and a refusal leaves what was there."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import safehold
from safehold.trust.log.files import change_whole
from safehold.trust.release.interface import ReleaseError, Seen
from safehold.trust.released.memory import begin_memory, read_memory, write_memory

SOURCE = Path(safehold.__file__).parent
COUNT = """
import sys
from pathlib import Path
from safehold.trust.log.files import change_whole
for _ in range(25):
    change_whole(Path(sys.argv[1]), lambda data: str(int(data or b"0") + 1).encode())
"""


def together(*works: Callable[[], object]) -> None:
    """Do all of it at once, each in its thread; an error of one is an error."""
    failed: list[Exception] = []

    def tried(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told by the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=tried, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_no_process_undoes_what_another_added(tmp_path: Path) -> None:
    """Three processes count to 75 in one file that is not there at first; nothing is left over."""
    path = tmp_path / "count"
    started = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(3)]
    assert [one.wait(600) for one in started] == [0, 0, 0]
    assert path.read_bytes() == b"75"
    assert list(tmp_path.iterdir()) == [path]


def test_no_thread_undoes_what_another_added(tmp_path: Path) -> None:
    """Eight threads of one process are as apart as eight processes."""
    path = tmp_path / "names"
    together(
        *(
            lambda one=one: change_whole(path, lambda data: (data or b"") + one)  # type: ignore[misc]
            for one in (b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h")
        )
    )
    assert sorted(path.read_bytes()) == sorted(b"abcdefgh")


def test_a_change_that_refuses_leaves_the_file_and_gives_the_lock_back(tmp_path: Path) -> None:
    """What `change` raises reaches the caller; the next one changes the file as ever."""
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def refuses(data: bytes | None) -> bytes:
        raise ValueError(data)

    with pytest.raises(ValueError, match="before"):
        change_whole(path, refuses)
    assert path.read_bytes() == b"before"
    assert change_whole(path, lambda _: b"after") == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_an_equal_content_is_not_written_again(tmp_path: Path) -> None:
    """A look that finds nothing to add costs no write."""
    path = tmp_path / "file"
    path.write_bytes(b"same")
    before = path.stat()
    change_whole(path, lambda data: data or b"")
    assert path.stat() == before or path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_changed_file_keeps_who_may_read_it(mode: int, tmp_path: Path) -> None:
    """A file for one person does not become one for all; a new one has the process's default."""
    path = tmp_path / "file"
    path.write_bytes(b"1")
    path.chmod(mode)
    change_whole(path, lambda _: b"2")
    assert path.stat().st_mode & 0o777 == mode
    umask = os.umask(0o027)
    try:
        change_whole(tmp_path / "new", lambda _: b"2")
    finally:
        os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """A folder and a pipe give an error at once; nobody hangs."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=r"directory|plain file"):
            change_whole(tmp_path / name, lambda _: b"")


def test_the_memory_of_releases_never_goes_back(tmp_path: Path) -> None:
    """A process that read an older log writes last: what the other accepted stays."""
    path = tmp_path / "seen.json"
    begin_memory(path, origin="o", channel="gw")
    first = read_memory(path)
    newer = msgspec.structs.replace(first, log_size=9, version=3, release_sha256="a" * 64)
    older = msgspec.structs.replace(first, log_size=7, version=2, release_sha256="b" * 64)
    together(*(lambda one=one: write_memory(path, one) for one in [newer, *[older] * 5]))  # type: ignore[misc]
    assert read_memory(path) == newer
    write_memory(path, msgspec.structs.replace(newer, log_size=10))
    assert read_memory(path).log_size == 10


def test_of_two_who_begin_a_memory_one_does(tmp_path: Path) -> None:
    """A second beginning would forget what was accepted; a lost memory is not begun by itself."""
    path = tmp_path / "seen.json"
    with pytest.raises(ReleaseError, match="already"):
        together(*[lambda: begin_memory(path, origin="o", channel="gw")] * 4)
    seen = read_memory(path)
    assert seen == Seen(origin="o", channel="gw", log_size=0, version=0, release_sha256="")
    path.unlink()
    with pytest.raises(ReleaseError, match="lost"):
        write_memory(path, seen)
    assert not path.exists()


LOCKS = {
    "trust/log/files.py": "the way of every file that is added to",
    "trust/log/store.py": "the log: many files under one lock",
    "trust/log/witness.py": "a witness: one look at a time",
    "secure/weights/storage.py": "a sealed folder has one owner",
    "secure/egress/enforcement/state.py": "the kernel and the file under one lock",
    "secure/egress/enforcement/audit.py": "appends with a chain",
    "secure/egress/explain/ledger.py": "appends with a chain",
    "guard/gateway/bundles/trial_memory.py": "once for each exchange: not synced",
    "guard/gateway/relaying/crash_journal.py": "held as long as the worker lives",
    "record_file.py": "a record that a run goes on from: one run at a time",
}


def test_whoever_locks_a_file_by_itself_says_why() -> None:
    """Anything new that reads a file, adds to it and puts it back calls `change_whole`."""
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "fcntl.flock" in path.read_text(encoding="utf-8")
    }
    assert found == set(LOCKS)
