"""Records that runs go on from: one writer at a time, and nothing of a killed one is in the way."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import safehold
from safehold.errors import BusyError, DataError
from safehold.record_file import RecordFile, alone_in

SRC = Path(safehold.__file__).parent
APPENDS_ITSELF = {
    "record_file.py",
    "cli/_endpoint_floor.py",  # a case of a drill, in a folder of its own
    "guard/gateway/relaying/crash_journal.py",  # its folder is locked
    "secure/egress/enforcement/audit.py",  # each row under a lock that waits
    "secure/egress/enforcement/state.py",  # a lock that waits, without content
    "secure/egress/explain/ledger.py",  # each row under a lock that waits
    "trust/log/files.py",  # a lock that waits, without content
    "secure/endpoint/records.py",  # the daemon's log: a line is one write
    "secure/endpoint/attack/bench.py",  # what a measured program writes
    "secure/endpoint/attack/drill.py",  # what an attacker writes
    "demo/heist/hosts.py",  # what a played host notes
}
"""Who opens a file to append to it without going on from what is there."""
APPENDING = re.compile(r"O_APPEND|open\([^()]*[\"']a[bt+]*[\"']")
WRITER = (
    "import sys, time; from pathlib import Path\n"
    "from safehold.record_file import RecordFile\n"
    "record = RecordFile(Path(sys.argv[1]))\n"
    "record.append(b'{\"n\":1}'); print('held', flush=True); time.sleep(120)\n"
)


def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    """One line says that another one writes; after a kill the next goes on with its lines."""
    path = tmp_path / "record.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match="being written by another process") as caught:
            RecordFile(path)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_status == 2
        writer.send_signal(signal.SIGKILL)
    with RecordFile(path) as record:
        assert record.lines == [b'{"n":1}']
        with pytest.raises(BusyError):
            RecordFile(path)


def test_a_torn_line_goes_with_the_first_new_one(tmp_path: Path) -> None:
    """Whoever only reads changes no byte; whoever writes drops what had no end."""
    path = tmp_path / "record.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":')
    with RecordFile(path) as record:
        assert record.lines == [b'{"n":1}']
        assert path.read_bytes() == b'{"n":1}\n{"n":'
        record.append(b'{"n":2}')
        record.append(b'{"n":3}')
    assert path.read_bytes() == b'{"n":1}\n{"n":2}\n{"n":3}\n'


@pytest.mark.parametrize("content", [b"precious", b"one\nprecious", b"\x00\x01"])
def test_text_that_is_no_record_is_not_cut(tmp_path: Path, content: bytes) -> None:
    """A file without an end of line that holds something else is refused and keeps its bytes."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="JSON lines"):
        RecordFile(path)
    assert path.read_bytes() == content


def test_a_record_is_a_file(tmp_path: Path) -> None:
    """A folder, a device and a place below a file are refused in one line."""
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, Path("/dev/null"), tmp_path / "file" / "record.jsonl"):
        with pytest.raises(DataError):
            RecordFile(path)


def test_a_folder_is_filled_by_one_process(tmp_path: Path) -> None:
    """The second one is refused while the first is at work, and may go on afterwards."""
    folder = tmp_path / "guards" / "mine"
    with (
        alone_in(folder, "mine is being filled"),
        pytest.raises(BusyError, match="filled by another process"),
        alone_in(folder, "mine is being filled"),
    ):
        pass
    with alone_in(folder, "mine is being filled"):
        assert folder.is_dir()


def test_a_line_that_did_not_fit_is_no_part_of_the_record(tmp_path: Path) -> None:
    """A write that the system refuses half-way names the file, and the next line is whole."""
    path = tmp_path / "record.jsonl"
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from safehold.record_file import RecordFile\n"
        "def most(size):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
        "with RecordFile(Path(sys.argv[1])) as record:\n"
        "    record.append(b'{\"n\":1}')\n"
        "    most(20)\n"
        "    try:\n"
        "        record.append(b'{\"n\":\"' + b'x' * 99 + b'\"}')\n"
        "    except OSError as error:\n"
        "        print(error.filename)\n"
        "    most(resource.RLIM_INFINITY)\n"
        "    record.append(b'{\"n\":2}')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True
    )
    assert run.stdout == f"{path}\n"
    assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'


def test_no_record_is_appended_to_in_another_way() -> None:
    """Whoever keeps lines to go on from does so through a record file, which has one writer."""
    found = {
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        if APPENDING.search(path.read_text("utf-8"))
    }
    assert found == APPENDS_ITSELF
