"""A worker that hangs is killed and replaced; a disk that fills again and again loses nothing."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.guard.gateway.operate.supervisor import HANG_S
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.upstream import MockUpstream, says

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_crash import Client, check
from gateway_process import ask, served
from gateway_wire import PATHS, body_for

pytestmark = pytest.mark.soak
ROUNDS = int(os.environ.get("SAFEHOLD_SOAK_DISK_ROUNDS", "6"))
SLOW = msgspec.structs.replace(says("Words of an answer that is told slowly. " * 6), delay_s=0.01)


def workers_of(parent: int) -> set[int]:
    """Return the children of a process that serve."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in listed}
    return {pid for pid, line in lines.items() if b"spawn_main" in line}


def test_worker_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    """A stopped worker is gone after `HANG_S`, another stands in its place, and all is answered."""
    store = f"sqlite:///{tmp_path}/store.db"
    with (
        MockUpstream() as upstream,
        served(tmp_path, upstream.url, "--workers", "2", store=store) as at,
    ):
        before = workers_of(at.process.pid)
        hung = min(before)
        began = time.monotonic()
        os.kill(hung, signal.SIGSTOP)
        while hung in (now := workers_of(at.process.pid)) or len(now) < len(before):
            assert time.monotonic() - began < 4 * HANG_S
            time.sleep(0.5)
        took = time.monotonic() - began
        until = time.monotonic() + 60
        while [ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) for _ in range(8)] != [200] * 8:
            assert time.monotonic() < until
    print(json.dumps({"hung_worker_replaced_after_s": round(took, 1)}))  # noqa: T201
    assert took >= HANG_S / 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own takes root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount") or "/usr/bin/mount"
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run([shutil.which("umount") or "/usr/bin/umount", "-l", str(place)], check=True)


def test_disk_that_fills_again_and_again_loses_no_delivered_text(
    tmp_path: Path, small_disk: Path
) -> None:
    """The disk of ledger and journal fills amid streams, is emptied, and fills again."""
    clients: list[Client] = []
    refused = 0
    ballast = small_disk / "ballast"
    with (
        MockUpstream(SLOW) as upstream,
        served(tmp_path, upstream.url, ledger=f"{small_disk}/ledger.db") as at,
    ):
        for _ in range(ROUNDS):
            batch = [Client(at.port, PATHS[number % 3]) for number in range(8)]
            for client in batch:
                client.start()
            time.sleep(0.3)
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 65536)
            refused += ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) == 503
            for client in batch:
                client.join(120)
            clients += batch
            ballast.unlink()
            until = time.monotonic() + 60
            while ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) != 200:
                assert time.monotonic() < until
                time.sleep(0.2)
        time.sleep(3)  # what the ledger did not take is told again every second
        reader = LedgerReader.open(at.ledger)
        spoken = [client for client in clients if client.text]
        for client in spoken:
            check(reader, client)
    figures = {"rounds": ROUNDS, "streams": len(clients), "with_text": len(spoken)}
    print(json.dumps(figures | {"refused_while_full": refused}))  # noqa: T201
    assert spoken
