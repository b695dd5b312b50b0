"""Make the enclave, run the product in it, collect its documents, and judge its controls.

`python -m safehold.demo.enclave.run BASE`, below `unshare --mount --pid --net --uts --fork`. Prints
one document of JSON.
"""

# ruff: noqa: T201 - it prints one line of JSON

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from safehold.demo.enclave import parts as made
from safehold.demo.enclave.drills import Drills
from safehold.demo.enclave.faults import FaultFound, Faults, collect
from safehold.demo.enclave.people import DECOYS, People
from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.exports.host import units
from safehold.govern.controls.exports.table import Exported
from safehold.govern.controls.facts.host import LocalHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.sources import ArtefactSource, CopySource, ExportSources
from safehold.govern.controls.interface import Assurance, ControlError, ControlRun, ControlStatus
from safehold.govern.controls.library import stock_catalogue
from safehold.secure.endpoint.attack.stage import build
from safehold.testing.trust import person_id
from safehold.testing.upstream import MockUpstream

_LIMIT_S = 400
_SETUID = (
    *(
        f"/usr/bin/{name}"
        for name in (
            *("chage", "chfn", "chsh", "expiry", "gpasswd", "mount", "newgrp", "passwd", "su"),
            *("ssh-agent", "sudo", "umount", "wall", "write", "crontab", "fusermount3"),
        )
    ),
    "/usr/sbin/unix_chkpwd",
)
"""The distribution's own, which the site lists as such."""
_PROGRAM = "#!/bin/sh\n# Starts the enclave's serving process.\nexec safehold serve\n"


class ControlCounts(msgspec.Struct, frozen=True):
    """How many automatic controls there are, and how many a fact decided, for or against."""

    automatic: int
    live: int


class EnclaveReport(msgspec.Struct, frozen=True):
    """What came of it: the run, the documents, drills that passed, and seconds by step."""

    run: ControlRun
    documents: tuple[Exported, ...]
    drills_passed: int
    seconds: dict[str, float]
    faults: tuple[FaultFound, ...] = ()

    @property
    def judged(self) -> ControlCounts:
        """Count the automatic controls that passed, failed, or can't apply by a fact."""
        automatic = {one.id for one in stock_catalogue().controls if one.way is Assurance.AUTOMATIC}
        by_fact = {ControlStatus.PASSED, ControlStatus.FAILED, ControlStatus.NOT_APPLICABLE}
        live = [
            one for one in self.run.results if one.control in automatic and one.status in by_fact
        ]
        return ControlCounts(len(automatic), len(live))


def enclave(say: Callable[[str], None], *, faults: bool = False) -> EnclaveReport:
    """Make the enclave in namespaces of its own, and judge it; nothing of the machine is changed.

    Args:
        say: Told of each step.
        faults: Plant faults in it afterwards, and say what finds them.

    Raises:
        ControlError: not root, or a part did not start.
    """
    if os.geteuid() != 0:
        raise ControlError("the enclave is made of namespaces: run it as root")
    with tempfile.TemporaryDirectory(prefix="safehold-enclave-") as base:
        command = [
            "unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child",
            sys.executable, "-m", "safehold.demo.enclave.run", base, *(["faults"] * faults),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as child:
            try:
                out, err = child.communicate(timeout=_LIMIT_S)
            except subprocess.TimeoutExpired as error:
                child.kill()
                raise ControlError(f"the enclave was not ready within {_LIMIT_S} s") from error
    lines = err.decode(errors="replace").strip().splitlines()
    for line in lines:
        say(line)
    if child.returncode:
        raise ControlError(f"the enclave: {lines[-1] if lines else 'no output'}")
    return msgspec.json.decode(out, type=EnclaveReport)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def step(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 1)
        print(f"{name}: {self.seconds[name]:g} s", file=sys.stderr, flush=True)
        self._last = now


def _site(base: str) -> Site:
    var = made.VAR
    at = ExportSources(
        repository=str(var / "settings"),
        repository_base=base,
        repository_ref="main",
        approved_compilers=("apt", "apt-get", "dpkg"),
        indexes=("mirror.example",),
        artefacts=tuple(
            ArtefactSource(
                name=name, kind=kind, path=path, provenance=f"{path}.intoto", sbom=f"{path}.sbom"
            )
            for name, kind, path in (
                ("serve.sh", "program", str(var / "settings" / "serve.sh")),
                ("stock", "bundle", str(var / "bundle")),
            )
        ),
        builders=("https://example.org/builder",),
        secret_zones={"enclave": (str(made.ETC),), "model": (str(var / "model"),)},
        copies=(
            CopySource(
                name="nightly",
                kind="transfer",
                folder=str(var / "backup"),
                source=str(var / "backup"),
            ),
        ),
        ledger=str(var / "ledger.db"),
        gateway=f"http://127.0.0.1:{made.PORT}",
        gateway_settings=str(made.ETC / "gateway.yaml"),
        key_quota=10**6,
        edges=("gateway-collector",),
        decoy_services={"admin": made.LURE},
        cases=str(var / "cases"),
        decoy_team=DECOYS,
        locks=tuple(str(one) for one in (made.ETC / "locks").glob("*.txt")),
        models=(str(var / "bundle"),),
        bundle_keys=(str(made.ETC / "bundle.pub"),),
    )
    return Site(
        resolvers=("192.0.2.53/32",),
        proxies=("192.0.2.80/32",),
        mirrors=("mirror.example",),
        listening=(made.PORT, made.LURE),
        workloads=("ab" * 32,),
        accounts=("root",),
        setuid=_SETUID,
        export=at,
    )


def _staff(now: int) -> None:
    people = ("dev-one", "dev-two", "dev-three", "dev-four", "sec-one", "sec-two", "release-desk")
    present = ", ".join(f'"{person_id(one)}"' for one in people)
    today = time.strftime("%Y-%m-%d", time.gmtime(now))
    teams = ("t-everybody", "t-development", "t-serving", "t-security", DECOYS)
    lines = [
        f"present = [{present}]",
        'conflicting_roles = [["t-serving", "t-security"]]',
        f'admin_sets = [["{person_id("sec-one")}", "{person_id("sec-two")}"]]',
        f'services = [{{ name = "keyd", owner = "{person_id("sec-one")}", rotated = {today} }}]',
        "[recertified]",
        *(f"{one} = {today}" for one in teams),
    ]
    (made.ETC / "staff.toml").write_text("\n".join(lines) + "\n")


def inside(base: Path, *, faults: bool = False) -> EnclaveReport:
    """Do all of it in the namespaces that we are in.

    Raises:
        ControlError: a part did not start.
    """
    clock = _Clock()
    locks = {one.name: one.read_bytes() for one in Path("locks").glob("demo.txt")}
    build(base, tuple(one for one in sys.path if Path(one).is_dir()))
    made.root()
    socket.sethostname(made.HOST)
    work = Path("/var/tmp/enclave")  # noqa: S108 - the stage's own
    for folder in (work, made.ETC, made.VAR, made.RUN, made.VAR / "model", made.VAR / "endpoint"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in locks.items():
        (made.ETC / "locks").mkdir(exist_ok=True)
        (made.ETC / "locks" / name).write_bytes(data)
    made.network()
    clock.step("stage")
    now = int(time.time())
    (made.ETC / "flows.toml").write_text(made.FLOWS)
    (made.ETC / "egress.toml").write_text(made.PLAN)
    header = made.weights(work)
    _backup()
    where = made.VAR / "bundle"
    digest = made.bundle(where)
    clock.step("weights and bundle")
    people = People(made.VAR / "trust-log", now)
    (made.ETC / "log.json").write_bytes((made.VAR / "trust-log" / "log.json").read_bytes())
    first, head = people.repository(made.VAR / "settings", {"serve.sh": _PROGRAM})
    policy = made.software(now)
    people.history(header, digest, policy, made.HOST)
    people.witness(now - 2 * 3600)
    late = (made.VAR / "trust-log" / "witnessed").read_bytes()
    for path, name in ((made.VAR / "settings" / "serve.sh", "serve.sh"), (where, "stock")):
        data = (where / "manifest.json" if path == where else path).read_bytes()
        vouched = people.vouched(name, data, head, "https://example.org/builder")
        Path(f"{path}.intoto").write_bytes(vouched)
        Path(f"{path}.sbom").write_text("{}")
    _staff(now)
    baseline = units(ExportSources().units)
    (made.ETC / "baseline.json").write_bytes(msgspec.json.encode(baseline))
    clock.step("people")
    return _running(work, people, clock, _site(first), now, faults=late if faults else None)


def _running(
    work: Path, people: People, clock: _Clock, site: Site, now: int, *, faults: bytes | None
) -> EnclaveReport:
    """Start the parts, play the drills, collect and judge.

    `faults` is the cosigned head of two hours ago, for the fault of a late witness.
    """
    parts = made.EnclaveParts(work)
    where = made.VAR / "bundle"
    with MockUpstream() as upstream, contextlib.ExitStack() as stack:
        stack.callback(parts.stop)
        made.gateway(parts, where, upstream.url)
        made.lures(parts, now, made.VAR / "model")
        meter = made.meter(parts)
        made.egress(parts)
        parts.wait()
        made.questions()
        guard = made.guard(parts)
        parts.wait()
        clock.step("parts")
        drills = Drills(people, guard=guard, meter=meter, work=work)
        passed = drills.play(_say)
        people.witness(int(time.time()))
        clock.step("drills")
        time.sleep(1.2)  # the guard's figures are of its last round
        documents = collect(site, people)
        clock.step("collect")
        passed += drills.audit(site, _say)
        people.witness(int(time.time()))
        found = run_controls(stock_catalogue(), LocalHost(), site)
        clock.step("run")
        planted: tuple[FaultFound, ...] = ()
        if faults is not None:
            planted = Faults(site, people, parts.processes, faults).play(_say)
            clock.step("faults")
    return EnclaveReport(found, documents, passed, clock.seconds, planted)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _backup() -> None:
    source, to = made.VAR / "weights" / "brewer", made.VAR / "backup"
    to.mkdir()
    for one in source.iterdir():
        if one.is_file():
            (to / one.name).write_bytes(one.read_bytes())


def main(argv: list[str]) -> None:
    """Print the report."""
    found = inside(Path(argv[0]), faults="faults" in argv[1:])
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
