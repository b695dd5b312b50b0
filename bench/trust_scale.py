"""Trust commands beside a long log: the first, those after it, and an append while ten list.

Run `python -m bench.trust_scale [--leaves N] [--folder DIR]`; the log stays in the folder, so that
it is made once. Its leaves are grants from request to use, each signed as the desk signs them.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.tables import Table

from safehold.canonical import sha256_hex
from safehold.testing.trust import Enclave, person_id
from safehold.trust.grants.events import Approved, GrantIssued, Requested, Used
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.interface import SignedRequest
from safehold.trust.log import LogStore, sign_envelope
from safehold.trust.log.log_entries import Leaf, statement_of
from safehold.trust.people.statement import Act

READERS = 10
APPROVERS = ("dev-two", "dev-three", "sec-one")
_BATCH = 600
_LEAVES_A_GRANT = 6
_SPACING_S = 60
Row = tuple[str, ...]


def grants(enclave: Enclave, count: int) -> Iterator[list[Leaf]]:
    """Yield the leaves of one grant after another."""
    for number in range(count):
        enclave.time += _SPACING_S
        now = enclave.time
        asked = enclave.ask(nonce=sha256_hex(b"%d" % number)[:32])
        proof = enclave.keys["dev-one"].sign(Act.REQUEST, asked)
        name = asked.sha256
        yield [
            Requested(time=now, signed=SignedRequest(request=asked, proof=proof)),
            *(
                Approved(time=now, request=name, proof=enclave.keys[who].sign(Act.APPROVE, asked))
                for who in APPROVERS
            ),
            GrantIssued(
                time=now,
                request=name,
                approvers=tuple(map(person_id, APPROVERS)),
                expires=asked.expires,
            ),
            Used(time=now, request=name, host=asked.host, workload_sha256=asked.workload_sha256),
        ]


def make(folder: Path, leaves: int) -> Path:
    """Make the log and its keys, unless they are there."""
    log = folder / f"log-{leaves}"
    keys = log.with_name(log.name + ".keys")
    if (keys / "made").exists():
        return log
    keys.mkdir(parents=True, mode=0o700)
    enclave = Enclave(log)
    for name, key in (("log.key", enclave.log_key), ("emitter.key", enclave.emitter)):
        (keys / name).touch(mode=0o600)
        (keys / name).write_text(key.text() + "\n")
    entries: list[bytes] = []
    for some in grants(enclave, leaves // _LEAVES_A_GRANT):
        entries += [sign_envelope(statement_of(leaf), enclave.emitter) for leaf in some]
        if len(entries) >= _BATCH:
            enclave.desk.store.append(entries)
            entries.clear()
            if isinstance(enclave.desk.store, LogStore):
                enclave.desk.store.publish()
    if entries:
        enclave.desk.store.append(entries)
        enclave.desk.store.publish()
    (keys / "made").touch()
    return log


def command(*words: str) -> tuple[float, float]:
    """Run a command; return its CPU seconds and the megabytes of the largest so far."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = [sys.executable, "-m", "safehold", *words]
    subprocess.run(asked, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, after.ru_maxrss / 1024


def append_beside(log: Path, readers: int, repeats: int = 20) -> Row:
    """Append from a warm desk while others list; the readers give way to whoever appends."""
    from safehold.cli._trust import open_desk  # noqa: PLC0415 - the command's own way in

    desk: Desk = open_desk(log, None)
    _ = desk.state
    asked = [sys.executable, "-m", "safehold", "grant", "list", "--log", str(log)]
    loop = f"import subprocess\nwhile True: subprocess.run({asked!r}, stdout=-3)"
    listing = [
        subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", loop], start_new_session=True)
        for _ in range(readers)
    ]
    try:
        time.sleep(3.0 if readers else 0.0)
        walls, cpus = [], []
        for number in range(repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            desk.alarm("bench", "note", f"append {number}")
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
            time.sleep(0.05)
    finally:
        for one in listing:
            os.killpg(one.pid, signal.SIGTERM)
            one.wait()
    walls.sort()
    median = walls[len(walls) // 2]
    return (
        f"a warm append, {readers} readers",
        f"{sum(cpus) / repeats:.3f}",
        f"{median:.3f} (slowest {walls[-1]:.3f})",
    )


def measured(folder: Path, leaves: int) -> Table:
    """Measure one size."""
    log = make(folder, leaves)
    snapshot = log.with_name(log.name + ".keys") / "state.snapshot"
    snapshot.unlink(missing_ok=True)
    rows: list[Row] = []
    for name, words in (
        ("the first command: every leaf judged", ("grant", "list", "--log", str(log))),
        ("grant list", ("grant", "list", "--log", str(log))),
        ("grant list --all --json", ("grant", "list", "--all", "--json", "--log", str(log))),
        ("log append", ("log", "append", str(log), "--kind", "note", "--fact", "text=x")),
    ):
        wall = time.perf_counter()
        used, most = command(*words)
        wall = time.perf_counter() - wall
        rows.append((f"{name} (up to {most:,.0f} MB)", f"{used:.2f}", f"{wall:.2f}"))
        print(leaves, *rows[-1], sep="  ", flush=True)
    rows += [append_beside(log, 0), append_beside(log, READERS)]
    size = snapshot.stat().st_size / 1e6 if snapshot.exists() else 0.0
    return Table(
        title=f"Trust commands beside a log of {leaves:,} leaves",
        columns=("work", "CPU s", "seconds"),
        rows=tuple(rows),
        note=f"The snapshot of the state takes {size:,.1f} MB.",
    )


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure 100,000 leaves; `quick` takes 3,000. A million are for the command line."""
    with tempfile.TemporaryDirectory(prefix="sht-") as name:
        return [measured(Path(name), 3_000 if quick else 100_000)]


def main() -> None:
    """Measure one size in a folder that stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    print(measured(given.folder, given.leaves).markdown())


if __name__ == "__main__":
    main()
