"""The execution guard as it is now: its pulse, its policy, its records, and a live probe."""

import datetime as dt
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.govern.controls.facts.documents import AllowlistRow, EndpointDocument
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY
from safehold.secure.endpoint import policy as rules
from safehold.secure.endpoint.changing import OPERATION
from safehold.secure.endpoint.engines.equivalence import compare
from safehold.secure.endpoint.engines.table import ENGINES
from safehold.secure.endpoint.heartbeat import read_pulse
from safehold.secure.endpoint.interface import (
    Allowed,
    Ask,
    CodeKind,
    EndpointRecordError,
    ExecSubject,
    Target,
)
from safehold.secure.endpoint.inventory.book import Item, read_inventory
from safehold.secure.endpoint.publish import Published
from safehold.secure.endpoint.records import Denial, read_records
from safehold.secure.endpoint.service import PolicyInForce, load

COMPILERS = frozenset(
    (
        *("apt", "apt-get", "as", "cargo", "cc", "clang", "dpkg", "g++", "gcc", "go", "javac"),
        *("ld", "make", "npm", "pip", "pip3", "rustc", "tcc"),
    )
)
_PROBE_S = 20
_COMPARED = 600
_ROOT = ExecSubject(0, "/usr/bin/bash")


def endpoint(site: Site, log: LogReading, now: int) -> EndpointDocument:
    """Export the execution guard's document.

    Raises:
        EndpointError: the guard is silent, or its policy or an inventory does not hold.
    """
    at = site.export
    pulse = read_pulse(Path(at.endpoint_socket))
    loaded = load(Path(at.endpoint_policy), now)
    items = tuple(_items(loaded, Path(at.endpoint_policy).absolute().parent, now))
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    denials = _denials(Path(at.endpoint_records))
    stopped, ran = probe(Path(at.endpoint_probe))
    equal, differing = _engines(loaded, items, today)
    learned = [one for one in denials if one.mode != rules.Mode.ENFORCE]
    return EndpointDocument(
        written=now,
        mode=pulse.mode.value if pulse.policy == loaded.sha256 else "another policy",
        rows=tuple(_row(one, _approvers(log, loaded.sha256)) for one in loaded.policy.allow),
        inventory=len(items),
        inventory_signed=bool(loaded.policy.inventory),
        unowned=sum(not one.package and not _claimed(loaded, one) for one in items),
        stopped=stopped,
        ran=ran,
        policy_sha256=loaded.sha256,
        replay_differences=sum(_differs(loaded, one, today) for one in denials if _late(one, now)),
        engines_equal=equal,
        engines_differing=differing,
        dropped_events=pulse.lost,
        report_lag_s=_lag(Path(at.endpoint_records), now),
        learn_days=(learned[-1].time - learned[0].time) // DAY if learned else 0,
        would_block_per_day=_blocks(learned),
        compilers=tuple(sorted(_compilers(loaded, items, today))),
        approved_compilers=at.approved_compilers,
        preload=_preload(),
    )


def probe(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Try to run fresh programs where the guard watches; return what was stopped, and what ran.

    Each has a twin that must run; where the twin does not, the probe counts for neither.
    """
    stopped: list[str] = []
    ran: list[str] = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as name:
        for one, (make, twin) in _PROBES.items():
            if not _runs(twin):
                continue
            (ran if _runs(make(Path(name))) else stopped).append(one)
    return tuple(stopped), tuple(ran)


def _runs(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _fresh(path: Path, like: str) -> Path:
    """Copy a program with bytes at its end that nobody has seen: it runs, by another digest."""
    path.write_bytes(Path(like).resolve().read_bytes() + secrets.token_bytes(16))
    path.chmod(0o755)
    return path


def _text(path: Path) -> Path:
    path.write_text(f"# {secrets.token_hex(16)}\n")
    return path


def _load(library: str) -> list[str]:
    return [sys.executable, "-m", "safehold.govern.controls.exports.loading", library]


def _library() -> str:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(one.split()[-1] for one in lines if "/libc.so" in one)


_TRUE = shutil.which("true") or "/bin/true"
_Probe = tuple[Callable[[Path], list[str]], list[str]]
_PROBES: dict[str, _Probe] = {
    "unknown-elf": (lambda at: [str(_fresh(at / "prog", _TRUE))], [_TRUE]),
    "unknown-library": (
        lambda at: _load(str(_fresh(at / "lib.so", _library()))),
        _load("libc.so.6"),
    ),
    "shell-script": (lambda at: ["/bin/sh", str(_text(at / "x.sh"))], [_TRUE]),
    "python-script": (lambda at: [sys.executable, str(_text(at / "x.py"))], _load("libc.so.6")),
}


def _items(loaded: PolicyInForce, folder: Path, now: int) -> Iterator[Item]:
    for source in loaded.policy.inventory:
        yield from read_inventory(folder / source.file, source, loaded.policy.host, now)


def _row(row: rules.AllowRow, approvers: tuple[str, ...]) -> AllowlistRow:
    keyed = next(one for one in ("sha256", "package", "path", "signer") if getattr(row, one))
    last = row.expires
    end = dt.datetime(last.year, last.month, last.day, tzinfo=dt.UTC) if last else None
    return AllowlistRow(
        id=row.name,
        keyed_by=keyed,
        owner=row.owner,
        reason=row.reason,
        ticket=row.ticket,
        expires=int(end.timestamp()) + DAY if end else 0,
        approvers=approvers,
    )


def _approvers(log: LogReading, sha256: str) -> tuple[str, ...]:
    """Who carried this very policy: its digest is the grant's workload."""
    cases = [one for one in log.used(OPERATION) if one.workload_sha256 == sha256]
    return tuple(sorted({who for one in cases for who in one.carried_by}))


def _claimed(loaded: PolicyInForce, item: Item) -> bool:
    """Whether some row names a file that belongs to no package, by its digest or its signer."""
    signers = loaded.catalogue.vouching(item.sha256)
    return any(
        item.sha256 in row.sha256 or signers & set(row.signer) for row in loaded.policy.allow
    )


def _target(
    loaded: PolicyInForce, kind: CodeKind, path: str, sha256: str, *, owned: bool
) -> Target:
    known = loaded.catalogue
    return Target(kind, path, sha256, owned, known.package(sha256), known.vouching(sha256))


def _denials(path: Path) -> list[Denial]:
    return list(read_records(path)) if path.exists() else []


def _late(one: Denial, now: int) -> bool:
    return one.mode == rules.Mode.ENFORCE and now - one.time <= DAY


def _differs(loaded: PolicyInForce, one: Denial, today: dt.date) -> bool:
    target = _target(loaded, one.kind, one.path, one.sha256, owned=one.owned)
    return isinstance(
        rules.decide(loaded.policy, Ask(ExecSubject(one.uid, one.exe), target), today), Allowed
    )


def _engines(
    loaded: PolicyInForce, items: tuple[Item, ...], today: dt.date
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare every compiled engine with the policy, on known files and on unknown ones."""
    step = max(1, len(items) // _COMPARED)
    known = [
        Ask(_ROOT, _target(loaded, one.kind, one.path, one.sha256, owned=True))
        for one in items[::step]
    ]
    unknown = [
        Ask(_ROOT, Target(one.target.kind, one.target.path, secrets.token_hex(32)))
        for one in known[::3]
    ]
    found = [compare(engine, loaded.policy, items, (*known, *unknown), today) for engine in ENGINES]
    return (
        tuple(one.engine for one in found if one.compared and not one.differ),
        tuple(one.engine for one in found if one.differ),
    )


def _lag(records: Path, now: int) -> float:
    """How long the oldest refusal waits that no leaf tells yet."""
    if not records.exists():
        return 0.0
    memory = records.with_name(records.name + ".published")
    try:
        before = (
            msgspec.json.decode(memory.read_bytes(), type=Published)
            if memory.exists()
            else Published()
        )
        with records.open("rb") as file:
            file.seek(before.offset)
            first = file.readline()
        return float(max(0, now - msgspec.json.decode(first, type=Denial).time)) if first else 0.0
    except (OSError, msgspec.DecodeError) as error:
        raise EndpointRecordError(f"{records.name}: {error}") from error


def _blocks(learned: list[Denial]) -> float:
    """How many different things the last day of learning would have blocked."""
    if not learned:
        return 0.0
    since = learned[-1].time - DAY
    return float(len({(one.path, one.sha256) for one in learned if one.time > since}))


def _compilers(loaded: PolicyInForce, items: tuple[Item, ...], today: dt.date) -> Iterator[str]:
    for one in items:
        name = one.path.rsplit("/", 1)[1]
        if name in COMPILERS:
            target = _target(loaded, one.kind, one.path, one.sha256, owned=True)
            if isinstance(rules.decide(loaded.policy, Ask(_ROOT, target), today), Allowed):
                yield name


def _preload() -> str:
    try:
        return Path("/etc/ld.so.preload").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise EndpointRecordError(f"ld.so.preload: {error.strerror}") from error
