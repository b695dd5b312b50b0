"""Faults planted in the running enclave, one after another, each undone before the next.

What turns red after a fault, and was not before, must be exactly what claims it. A control that is
red already finds a fault when it names a reason that it did not name before.
"""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from safehold.demo.enclave.parts import HOST, VAR
from safehold.demo.enclave.people import People
from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.exports.table import Exported, export_all
from safehold.govern.controls.facts.host import LocalHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.library import stock_catalogue
from safehold.secure.endpoint.publish import publish

_TABLE = ("inet", "safehold_egress")
_SETTLE_S = 30.0
_DIGITS = re.compile(r"\d+")


_ON_ITS_WORD = (
    *("bin-01", "bin-02", "bin-03", "bin-04", "bin-05", "bin-07", "bin-08", "bin-09", "bin-10"),
    *("bin-13", "bin-14"),
)
"""What the guard's document says of it: without the guard nobody says it."""


class FaultFound(msgspec.Struct, frozen=True):
    """One planted fault: what claims it, and what turned red."""

    fault: str
    claims: tuple[str, ...]
    red: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether exactly its controls found it."""
        return self.claims == self.red


class Faults:
    """The faults of one enclave; processes by the names that its parts have.

    `late` is the log's cosigned head of two hours ago.
    """

    def __init__(self, site: Site, people: People, processes: dict[str, int], late: bytes) -> None:
        self._site = site
        self._late = late
        self._people = people
        self._pids = processes

    def table(self) -> dict[str, tuple[Callable[[], AbstractContextManager[None]], set[str]]]:
        """Return each fault with the controls that claim it; the guard's death comes last."""
        log = Path(self._site.log)
        return {
            "quota raised by hand": (
                lambda: self._rules(
                    ("add", "quota", *_TABLE, "q_metrics_day", "over 90 mbytes"),
                    ("add", "quota", *_TABLE, "q_metrics_day", "over 100000 bytes"),
                ),
                {"egr-03"},
            ),
            "ruleset changed by hand": (
                lambda: self._rules(
                    ("chain", *_TABLE, "output", "{ policy accept ; }"),
                    ("chain", *_TABLE, "output", "{ policy drop ; }"),
                ),
                {"egr-01"},
            ),
            "gateway hangs": (lambda: self._stopped("gateway"), {"mon-08"}),
            "log not cosigned": (lambda: _moved(log / "witnessed"), {"mon-02", "mon-10"}),
            "witness late": (lambda: _replaced(log / "witnessed", self._late), {"mon-02"}),
            "ledger gap": (lambda: _row_gone(VAR / "ledger.db"), {"mon-04"}),
            "decoy removed": (
                lambda: _moved(VAR / "models" / "part-6.safetensors"),
                {"dec-01"},
            ),
            "bundle unreleased": (
                lambda: _rewritten(VAR / "bundle" / "manifest.json"),
                {"chg-09", "sup-06"},
            ),
            "a plain model beside the sealed one": (
                lambda: _written(VAR / "weights" / "x.gguf", b"GGUF"),
                {"war-01", "sup-06"},
            ),
            "a unit that nobody declared": (
                lambda: _written(Path("/etc/cron.d/x"), b"* * * * * root true\n"),
                {"hst-11"},
            ),
            "endpoint guard dead": (
                lambda: self._killed("endpoint"),
                {"bin-15", "mon-08", *_ON_ITS_WORD},
            ),
        }

    def play(self, say: Callable[[str], None]) -> tuple[FaultFound, ...]:
        """Plant every fault, and return what found it."""
        before = self._red()
        found = []
        for name, (plant, claims) in self.table().items():
            _watching()
            with plant():
                red = {
                    one for one, why in self._red().items() if why - before.get(one, frozenset())
                }
            one = FaultFound(name, tuple(sorted(claims)), tuple(sorted(red)))
            say(f"fault {name}: red {', '.join(one.red) or 'nothing'}")
            found.append(one)
        return tuple(found)

    def _red(self) -> dict[str, frozenset[str]]:
        """Return what each control that is not satisfied says; numbers apart, which move."""
        collect(self._site, self._people)
        run = run_controls(stock_catalogue(), LocalHost(), self._site)
        return {
            one.control: frozenset(_DIGITS.sub("#", why) for why in one.reasons)
            for one in run.results
            if not one.satisfied
        }

    @contextlib.contextmanager
    def _rules(self, change: tuple[str, ...], back: tuple[str, ...]) -> Iterator[None]:
        """Change the kernel's rules while the watch, which would see it, stands still."""
        with self._stopped("watch"):
            subprocess.run(["nft", *change], check=True, capture_output=True, timeout=20)
            try:
                yield
            finally:
                subprocess.run(["nft", *back], check=True, capture_output=True, timeout=20)

    @contextlib.contextmanager
    def _stopped(self, name: str) -> Iterator[None]:
        os.kill(self._pids[name], signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pids[name], signal.SIGCONT)

    @contextlib.contextmanager
    def _killed(self, name: str) -> Iterator[None]:
        holder = self._pids[name]
        children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
        for pid in (holder, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        yield


def _watching() -> None:
    """Wait until the watch, which a fault may have stopped, looked again."""
    timeline = VAR / "egress" / "timeline.jsonl"
    begun, end = time.time(), time.monotonic() + _SETTLE_S
    while timeline.stat().st_mtime < begun and time.monotonic() < end:
        time.sleep(0.1)


def collect(site: Site, people: People) -> tuple[Exported, ...]:
    """Tell the log what the guard refused, and write every document."""
    records = Path(site.export.endpoint_records)
    now = people.trust.time = int(time.time())
    if records.exists():
        memory = records.with_name(records.name + ".published")
        publish(records, memory, HOST, now, people.trust.desk.record)
    return tuple(export_all(site, int(time.time())))


@contextlib.contextmanager
def _moved(path: Path) -> Iterator[None]:
    away = VAR / "away"
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Iterator[None]:
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        yield
    finally:
        path.unlink()


def _rewritten(path: Path) -> AbstractContextManager[None]:
    return _replaced(path, path.read_bytes() + b"\n")


@contextlib.contextmanager
def _row_gone(path: Path) -> Iterator[None]:
    """Delete the newest final row of a ledger, as root can; the row comes back as it was."""
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as ledger:
        with ledger:
            ledger.execute(
                "CREATE TEMP TABLE kept AS SELECT * FROM ledger_finals"
                " WHERE seq = (SELECT max(seq) FROM ledger_finals)"
            )
            ledger.execute("DELETE FROM ledger_finals WHERE seq IN (SELECT seq FROM kept)")
        try:
            yield
        finally:
            with ledger:
                ledger.execute("INSERT INTO ledger_finals SELECT * FROM kept")


@contextlib.contextmanager
def _replaced(path: Path, new: bytes) -> Iterator[None]:
    data = path.read_bytes()
    path.write_bytes(new)
    try:
        yield
    finally:
        path.write_bytes(data)
