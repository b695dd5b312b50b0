"""The held meter: killing its worker at any moment opens nothing and forgets nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.weights.meter.budget import Tally
from safehold.secure.weights.meter.cell import TallyCell

KIB = 1024
_METER = """
import os, sys
from pathlib import Path
from safehold.secure.weights.meter.fanotify import open_gate
from safehold.secure.weights.meter.meter import ReadMeter
with open_gate([Path(sys.argv[1])]) as gate:
    meter = ReadMeter(gate, int(sys.argv[2]))
    meter.run_held(ready=lambda: print(gate.active.value, flush=True))
    print(meter.tally.charged, flush=True)
"""
_READ = """
import os, sys
got, refused = 0, 0
fd = os.open(sys.argv[1], os.O_RDONLY)
for turn in range(int(sys.argv[2])):
    try:
        got += len(os.pread(fd, 4096, 4096 * (turn % 64)))
    except OSError:
        refused += 1
print(got, refused)
"""


@given(rows=st.lists(st.tuples(*[st.integers(0, 2**60)] * 3), max_size=10), reason=st.text())
def test_cell_gives_back_what_was_stored_last(
    rows: list[tuple[int, int, int]], reason: str
) -> None:
    """The last stored tally is read; after the end there is a reason and nothing left."""
    cell = TallyCell(2**61)
    for row in rows:
        cell.store(Tally(2**61, *row))
        assert cell.tally == Tally(2**61, *row)
    cell.close(reason)
    assert cell.tally.reason
    assert cell.tally.left == 0


def _worker_of(holder: int) -> int:
    for _ in range(500):
        children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.002)
    raise AssertionError("no worker")


def test_killed_workers_let_no_read_pass_unmetered(tmp_path: Path) -> None:
    """While the worker is killed ten times, readers get at most the budget, and go on."""
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(256 * KIB))
    budget = 2000 * 4096
    meter = subprocess.Popen(
        [sys.executable, "-c", _METER, str(file), str(budget)], stdout=subprocess.PIPE, text=True
    )
    assert meter.stdout is not None
    with meter.stdout:
        if meter.stdout.readline().strip() != "pre-access":
            meter.terminate()
            pytest.skip("the file system has no pre-access events")
        reader = subprocess.Popen(
            [sys.executable, "-c", _READ, str(file), "4000"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(10):
            os.kill(_worker_of(meter.pid), signal.SIGKILL)
            time.sleep(0.03)
        got, refused = map(int, reader.communicate(timeout=120)[0].split())
        meter.send_signal(signal.SIGTERM)
        charged = int(meter.stdout.readline())
        meter.wait(60)
    # A kill between charging and answering costs the reader that read, never the meter.
    assert got <= charged <= budget
    assert got + 4096 * refused == 4000 * 4096
    assert budget - got <= 11 * 4096


def test_who_is_told_that_the_meter_is_ready_may_send_signals_at_once(tmp_path: Path) -> None:
    """SIGHUP with the first line changes nothing; SIGTERM ends it with its tally."""
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(4 * KIB))
    for number in (signal.SIGHUP, signal.SIGTERM):
        with subprocess.Popen(
            [sys.executable, "-c", _METER, str(file), "4096"], stdout=subprocess.PIPE, text=True
        ) as meter:
            assert meter.stdout is not None
            meter.stdout.readline()
            meter.send_signal(number)
            meter.send_signal(signal.SIGTERM)
            assert meter.stdout.readline() == "0\n"
            assert meter.wait(60) == 0
