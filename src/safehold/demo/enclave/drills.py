"""Drills that the enclave plays for real, each with how long it took: leaves of its log."""

import os
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

from safehold.demo.enclave.parts import ETC, LURE, RUN, VAR, enforcer
from safehold.demo.enclave.people import APPROVERS, People
from safehold.errors import TrustError

SEALED = VAR / "weights" / "brewer"
_WAIT_S = 5.0


class Drills:
    """The drills of one enclave; `guard` and `meter` are the processes that hold the marks."""

    def __init__(self, people: People, *, guard: int, meter: int, publisher: Path) -> None:
        self._people = people
        self._guard = guard
        self._meter = meter
        self._publisher = publisher

    def table(self) -> Mapping[str, Callable[[], bool]]:
        """Return the drills by name: each is true if the enclave held."""
        return {
            "weights-open": self.weights_open,
            "weights-archiving": self.weights_archiving,
            "weights-gate-killed": self.weights_gate_killed,
            "endpoint-killed": self.endpoint_killed,
            "endpoint-reload": self.endpoint_reload,
            "decoy-weights": lambda: self._touched(VAR / "models" / "part-6.safetensors"),
            "decoy-credential": lambda: self._touched(VAR / "model" / "credentials"),
            "decoy-service": self.decoy_service,
            "egress-direct-https": lambda: not _reaches("192.0.2.99", 443),
            "metadata-service": lambda: not _reaches("169.254.169.254", 80),
            "egress-icmp": lambda: not _pings("192.0.2.99"),
            "egress-kill-switch": self.kill_switch,
            "grant-revoked": self.grant_revoked,
        }

    def play(self, say: Callable[[str], None]) -> int:
        """Play every drill and append its leaf; return how many passed."""
        passed = 0
        for name, drill in self.table().items():
            begun = time.monotonic()
            held = drill()
            seconds = f"{time.monotonic() - begun:.3f}"
            self._people.trust.time = int(time.time())
            facts = {"drill": name, "outcome": "passed" if held else "failed", "seconds": seconds}
            self._people.record("drill", facts)
            say(f"drill {name}: {facts['outcome']} in {seconds} s")
            passed += held
        return passed

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
        """A visit to the service that nobody needs is noted."""
        before = (RUN / "lure.jsonl").stat().st_size
        with socket.create_connection(("127.0.0.1", LURE), timeout=2) as to:
            to.sendall(b"who are you")
            to.recv(10)
        return _soon(lambda: (RUN / "lure.jsonl").stat().st_size > before)

    def kill_switch(self) -> bool:
        """Within a second of `egress block` the flow is closed in the kernel."""
        enforcer().block("metrics", "drill")
        listed = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True)
        return b"metrics" in listed.stdout and not _reaches("192.0.2.10", 4317)

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
