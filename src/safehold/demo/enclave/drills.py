"""Drills that the enclave plays for real, each with how long it took: leaves of its log."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import msgspec

from safehold.demo.enclave import detect
from safehold.demo.enclave.losses import Losses
from safehold.demo.enclave.parts import ETC, LURE, VAR, enforcer
from safehold.demo.enclave.people import APPROVERS, People
from safehold.errors import TrustError, WeightsError
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import ControlKind
from safehold.govern.controls.library import stock_catalogue
from safehold.secure.weights.header import open_header, read_header
from safehold.secure.weights.interface import Header
from safehold.secure.weights.keys import ReleasedKeys, derive_keys, unwrap_data_key
from safehold.secure.weights.opened import SealedModel, digest_plain
from safehold.secure.weights.providers.shares import ShareProvider
from safehold.secure.weights.signer import SealVerifier
from safehold.testing.planted import tried_judges

SEALED = VAR / "weights" / "brewer"
_WAIT_S = 5.0


class DrillResult(msgspec.Struct, frozen=True):
    """Whether the enclave held; seconds that were measured, and which controls were tried."""

    held: bool
    seconds: float | None = None
    controls: tuple[str, ...] = ()


class Drills:
    """The drills of one enclave; `guard` and `meter` are the processes that hold the marks.

    `work` is the folder where the publisher's keys and the key's shares lie.
    """

    def __init__(self, people: People, *, guard: int, meter: int, work: Path) -> None:
        self._people = people
        self._guard = guard
        self._meter = meter
        self._work = work
        self._losses = Losses(people)

    def table(self) -> Mapping[str, Callable[[], bool | DrillResult]]:
        """Return the drills by name: each is true if the enclave held."""
        return {
            "judges": try_judges,
            "weights-open": self.weights_open,
            "weights-archiving": self.weights_archiving,
            "weights-gate-killed": self.weights_gate_killed,
            "weights-verify": self.weights_verify,
            "weights-sample": self.weights_sample,
            "endpoint-killed": self.endpoint_killed,
            "endpoint-reload": self.endpoint_reload,
            "decoy-weights": lambda: self._touched(VAR / "models" / "part-6.safetensors"),
            "decoy-credential": lambda: self._touched(VAR / "model" / "credentials"),
            "decoy-service": self.decoy_service,
            "egress-direct-https": lambda: not _reaches("192.0.2.99", 443),
            "metadata-service": lambda: not _reaches("169.254.169.254", 80),
            "egress-icmp": lambda: not _pings("192.0.2.99"),
            "egress-drift": lambda: _found_in(detect.drift()),
            "egress-slow": lambda: _found_in(detect.slow()),
            "egress-ratio": lambda: _found_in(detect.ratio()),
            "egress-beacon": lambda: _found_in(detect.beacon()),
            "exfiltration": self._losses.exfiltration,
            "loss-estimate": self._losses.loss_estimate,
            "egress-kill-switch": self.kill_switch,
            "grant-revoked": self.grant_revoked,
            "mass-revocation": self._losses.mass_revocation,
            "incident": self._losses.incident,
        }

    def play(self, say: Callable[[str], None]) -> int:
        """Play every drill and append its leaf; return how many passed."""
        passed = 0
        for name, drill in self.table().items():
            begun = time.monotonic()
            found = drill()
            result = found if isinstance(found, DrillResult) else DrillResult(found)
            took = time.monotonic() - begun
            seconds = took if result.seconds is None else result.seconds
            passed += self._told(name, result, seconds, say)
        return passed

    def audit(self, site: Site, say: Callable[[str], None]) -> int:
        """Re-execute a sample of the controls; return 1 if they say what they said before."""
        begun, seed = time.monotonic(), int(time.time())
        held, sample = self._losses.sample_audit(site, seed)
        more = {"seed": str(seed), "sample": sample}
        return self._told("sample-audit", DrillResult(held), time.monotonic() - begun, say, more)

    def _told(
        self,
        name: str,
        result: DrillResult,
        seconds: float,
        say: Callable[[str], None],
        more: Mapping[str, str] | None = None,
    ) -> int:
        outcome = "passed" if result.held else "failed"
        facts = {"drill": name, "outcome": outcome, "seconds": f"{seconds:.3f}", **(more or {})}
        if result.controls:
            facts["controls"] = " ".join(result.controls)
        self._people.trust.time = int(time.time())
        self._people.record("drill", facts)
        say(f"drill {name}: {outcome} in {facts['seconds']} s")
        return int(result.held)

    def weights_open(self) -> bool:
        """Nobody reads a sealed file without a grant, root included."""
        return not _reads(_shard())

    def weights_archiving(self) -> bool:
        """An archive of the sealed folder can't be made."""
        try:
            with tarfile.open(fileobj=BytesIO(), mode="w") as archive:
                archive.add(SEALED)
        except OSError:
            return True
        return False

    def weights_gate_killed(self) -> bool:
        """While the meter's worker is dead nobody reads, and another takes over."""
        _kill_worker(self._meter)
        return not _reads(_shard())

    def weights_verify(self) -> bool:
        """The backup is what the publisher sealed, chunk by chunk; an altered one is refused."""
        copy = self._work / "altered"
        shutil.copytree(VAR / "backup", copy)
        victim = next(one for one in copy.iterdir() if one.name.endswith(".sealed"))
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(bytes(data))
        return self._verifies(VAR / "backup") and not self._verifies(copy)

    def weights_sample(self) -> bool:
        """A chunk drawn at random from each shard of the backup opens under its tag."""
        header, keys = self._keys(VAR / "backup")
        with SealedModel(VAR / "backup", header, keys) as model:
            for shard in header.shards:
                reader = model.reader(shard.name)
                begin, length = reader.layout.plain(secrets.randbelow(reader.layout.count))
                try:
                    reader.read_into(begin, memoryview(bytearray(length)))
                except WeightsError:
                    return False
        return bool(header.shards)

    def _keys(self, folder: Path) -> tuple[Header, ReleasedKeys]:
        """Open a sealed folder as a reader does, with the shares that persons hold."""
        header = open_header(read_header(folder), SealVerifier.read(self._work / "publisher"))
        shares = ShareProvider(
            self._work / "shares", lambda _: "a long enough passphrase", shares=3, threshold=2
        )
        data_key, _ = unwrap_data_key(header, [shares])
        return header, derive_keys(data_key, header, [one.name for one in header.shards])

    def _verifies(self, folder: Path) -> bool:
        try:
            header, keys = self._keys(folder)
            found = [
                digest_plain(header, one, keys.key(one.name), folder / f"{one.name}.sealed")
                for one in header.shards
            ]
        except WeightsError:
            return False
        return [one for one, _ in found] == [one.plain_digest for one in header.shards]

    def endpoint_killed(self) -> bool:
        """An unknown program does not run while the guard's worker is dead; a known one does."""
        fresh = VAR / "endpoint" / "unknown"
        fresh.write_bytes(Path("/bin/true").resolve().read_bytes() + os.urandom(16))
        fresh.chmod(0o755)
        _kill_worker(self._guard)
        try:
            ran = subprocess.run([str(fresh)], check=False, timeout=20).returncode == 0
        except OSError:
            ran = False
        known = shutil.which("true") or "/bin/true"
        return not ran and subprocess.run([known], check=False, timeout=20).returncode == 0

    def endpoint_reload(self) -> bool:
        """A tighter policy holds after SIGHUP, and the old one again after the next."""
        policy = ETC / "endpoint.toml"
        before = policy.read_text()
        tighter = (
            '\n[[deny]]\nname = "drill"\nkinds = ["elf"]\npath = ["/usr/bin/uptime"]\n'
            'reason = "the drill"\n'
        )
        policy.write_text(before + tighter)
        os.kill(self._guard, signal.SIGHUP)
        stopped = _soon(lambda: not _starts("/usr/bin/uptime")) and _starts("/usr/bin/true")
        policy.write_text(before)
        os.kill(self._guard, signal.SIGHUP)
        return stopped and _soon(lambda: _starts("/usr/bin/uptime"))

    def _touched(self, path: Path) -> bool:
        before = set((VAR / "cases").iterdir())
        command = [sys.executable, "-m", "safehold.demo.enclave.touch", str(path)]
        subprocess.run(command, check=False, timeout=20)
        return _soon(lambda: bool(set((VAR / "cases").iterdir()) - before))

    def decoy_service(self) -> bool:
        """A visit to the service that nobody needs is a case."""
        before = set((VAR / "cases").glob("*-admin-*"))
        with socket.create_connection(("127.0.0.1", LURE), timeout=2) as to:
            to.sendall(b"who are you")
            to.recv(100)
        return _soon(lambda: bool(set((VAR / "cases").glob("*-admin-*")) - before))

    def kill_switch(self) -> DrillResult:
        """When `egress block` is done the flow is closed in the kernel; how long that took."""
        begun = time.monotonic()
        enforcer().block("metrics", "drill")
        took = time.monotonic() - begun
        listed = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True)
        closed = b"metrics" in listed.stdout and not _reaches("192.0.2.10", 4317)
        return DrillResult(closed, took)

    def grant_revoked(self) -> bool:
        """A grant that was taken back is used no more."""
        trust = self._people.trust
        trust.time = int(time.time())
        request = trust.ask("dev-one", "host.shell")
        trust.file(request)
        trust.approve(request, *APPROVERS[-2:])
        note = trust.note(request)
        trust.desk.revoke(note, self._people.revoke(note))
        try:
            trust.use(request)
        except TrustError:
            trust.desk.alarm(request.sha256, "refused", "a grant that was taken back")
            return True
        return False


def try_judges() -> DrillResult:
    """Try each judge by the faults that it claims, on a recorded host; name the detections."""
    tried = tried_judges()
    detections = tuple(
        one.id
        for one in stock_catalogue().controls
        if one.kind is ControlKind.DETECTIVE and tried.get(one.id, False)
    )
    return DrillResult(all(tried.values()), controls=detections)


def _found_in(seconds: float | None) -> DrillResult:
    return DrillResult(seconds is not None, seconds)


def _shard() -> Path:
    return next(one for one in SEALED.iterdir() if one.name.endswith(".sealed"))


def _reads(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def _starts(program: str) -> bool:
    try:
        return subprocess.run([program], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _kill_worker(holder: int) -> None:
    children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)


def _soon(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def _reaches(address: str, port: int) -> bool:
    with socket.socket() as trial:
        trial.settimeout(0.5)
        return trial.connect_ex((address, port)) == 0


def _pings(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as trial:
        try:
            trial.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", (address, 0))
        except OSError:
            return False
    return True
