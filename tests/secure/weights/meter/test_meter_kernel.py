"""The meter on the real kernel: refusals, the fall-back, and what a killed meter leaves."""

import errno
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from safehold.secure.weights.meter.budget import Active, Read, Tally
from safehold.secure.weights.meter.fanotify import FanotifyGroup, MeterError, open_gate
from safehold.secure.weights.meter.meter import ReadMeter, sealed_files
from safehold.testing.weights import Publisher, write_model

MIB = 2**20


@pytest.fixture
def metered(tmp_path: Path) -> Iterator[Callable[..., ReadMeter]]:
    """A function that meters `tmp_path/file` (4 MiB) in a thread; needs root."""
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    (tmp_path / "file").write_bytes(os.urandom(4 * MIB))
    with ExitStack() as stack:

        def start(
            budget: int,
            active: Active = Active.PRE_ACCESS,
            on_refusal: Callable[[Read, Tally], None] | None = None,
        ) -> ReadMeter:
            try:
                gate = stack.enter_context(FanotifyGroup([tmp_path / "file"], active))
            except MeterError as error:
                pytest.skip(str(error))
            meter = ReadMeter(gate, budget, on_refusal=on_refusal)
            thread = threading.Thread(target=meter.run, daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            stack.callback(meter.stop)
            return meter

        yield start


def _read(path: Path, block: int = MIB) -> tuple[int, str]:
    """Read a file in another process; return the bytes it got and how it ended."""
    code = (
        "import os,sys\n"
        "fd=os.open(sys.argv[1],os.O_RDONLY); n=0\n"
        "try:\n"
        "    while b:=os.read(fd,int(sys.argv[2])): n+=len(b)\n"
        "    print(n,'end')\n"
        "except OSError as e: print(n,e.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(block)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return 0, "failed"
    count, how = done.stdout.split()
    return int(count), how


def test_read_beyond_the_budget_is_refused(
    tmp_path: Path, metered: Callable[..., ReadMeter]
) -> None:
    """Exactly the budget is read, then the reader gets EDQUOT, and the refusal is reported."""
    refused: queue.Queue[Read] = queue.Queue()
    meter = metered(2 * MIB, on_refusal=lambda read, _: refused.put(read))
    assert _read(tmp_path / "file") == (2 * MIB, str(errno.EDQUOT))
    assert meter.tally.charged == 2 * MIB
    # The reader is answered first and may be done before the report is made.
    first = refused.get(timeout=60)
    assert (first.file, first.offset) == ("file", 2 * MIB)


def test_budget_is_shared_by_all_readers(tmp_path: Path, metered: Callable[..., ReadMeter]) -> None:
    """A second process does not get a budget of its own."""
    metered(6 * MIB)
    assert _read(tmp_path / "file") == (4 * MIB, "end")
    assert _read(tmp_path / "file") == (2 * MIB, str(errno.EDQUOT))


def test_mapping_is_charged_in_full(tmp_path: Path, metered: Callable[..., ReadMeter]) -> None:
    """Mapping the file (as safetensors does) is charged at once with the whole range."""
    meter = metered(4 * MIB - 1)
    code = "import mmap,sys; f=open(sys.argv[1]); mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert meter.tally.refused >= 1


def test_nothing_is_read_after_the_grant_ended(
    tmp_path: Path, metered: Callable[..., ReadMeter]
) -> None:
    """When the grant ends, what is left of the budget is worth nothing."""
    meter = metered(100 * MIB)
    meter.end_grant("revoked")
    assert _read(tmp_path / "file")[0] == 0


def test_fall_back_charges_each_open_with_the_whole_file(
    tmp_path: Path, metered: Callable[..., ReadMeter]
) -> None:
    """Open-permission events allow one open within the budget and refuse the next."""
    meter = metered(5 * MIB, Active.OPEN)
    assert meter.active.value == "open-permission"
    assert _read(tmp_path / "file") == (4 * MIB, "end")
    assert _read(tmp_path / "file") == (0, "failed")
    assert meter.tally.charged == 4 * MIB


def test_gate_falls_back_where_pre_access_is_not_possible() -> None:
    """On a file system without pre-content events (tmpfs) the coarser gate is taken."""
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    file = Path("/dev/shm") / f"safehold-test-{os.getpid()}"
    file.write_bytes(b"x")
    try:
        with open_gate([file]) as gate:
            assert gate.active is Active.OPEN
    finally:
        file.unlink()


def test_empty_list_of_files_is_refused() -> None:
    """A meter of nothing is an error."""
    with pytest.raises(MeterError):
        open_gate([])


_METER = """
import sys
from pathlib import Path
from safehold.secure.weights.meter.fanotify import open_gate
from safehold.secure.weights.meter.meter import ReadMeter, sealed_files
with open_gate(sealed_files(Path(sys.argv[1]))) as gate:
    print(gate.active.value, flush=True)
    ReadMeter(gate, 0).run()
"""


def test_killed_meter_leaves_ciphertext_only(tmp_path: Path) -> None:
    """Fanotify fails open: after SIGKILL the files read again, and what they give is ciphertext."""
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    write_model(tmp_path / "plain")
    Publisher(tmp_path).seal()
    files = sealed_files(tmp_path / "sealed")
    child = subprocess.Popen(
        [sys.executable, "-c", _METER, str(tmp_path / "sealed")], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline()
        assert all(_read(file)[0] == 0 for file in files)
        child.send_signal(signal.SIGKILL)
        child.wait()
    stolen = b"".join(file.read_bytes() for file in files)
    assert len(stolen) == sum(file.stat().st_size for file in files)
    for path in (tmp_path / "plain").iterdir():
        data = path.read_bytes()
        for start in range(0, max(1, len(data) - 16), 499):
            assert data[start : start + 16] not in stolen
