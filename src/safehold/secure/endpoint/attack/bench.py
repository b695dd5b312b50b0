"""Run every attack against one engine, in a stage; print what ran as JSON.

`python -m safehold.secure.endpoint.attack.bench ENGINE BASE [ONLY]`, below
`unshare --mount --pid --fork`; with `--machine` on a machine that is thrown away.
"""

# ruff: noqa: T201 - it starts attacks, and prints one line of JSON

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from safehold.errors import EndpointError
from safehold.secure.endpoint.attack import fapolicyd, machine
from safehold.secure.endpoint.attack.attacks import ATTACKS
from safehold.secure.endpoint.attack.stage import (
    ACTS,
    StagePlace,
    T,
    W,
    build,
    build_machine,
    clear_machine,
    trusted_roots,
)
from safehold.secure.endpoint.engines.confine import confine, landlock
from safehold.secure.endpoint.facts import is_owned
from safehold.secure.endpoint.guard import ASKED, ExecGuard
from safehold.secure.endpoint.heartbeat import Heart, StaleGuardError, listen, read_pulse
from safehold.secure.endpoint.interface import FILES, CodeKind
from safehold.secure.endpoint.interpreters import known_interpreters
from safehold.secure.endpoint.inventory.book import InventoryBook, Item
from safehold.secure.endpoint.inventory.scan import scan
from safehold.secure.endpoint.policy import AllowRow, EndpointPolicy, Mode
from safehold.secure.endpoint.records import Records, open_records
from safehold.secure.fanotify.group import Group
from safehold.secure.fanotify.hold import Holder
from safehold.secure.fanotify.interface import Asked, Scope

_FEWEST = 3
"""Marks that are always there: root, disk and tmpfs."""

TRUSTED = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
SOCKET = Path("/run/guard.sock")
RECORDS = Path("/run/denials.jsonl")
_TIMEOUT_S = 60
_SLOW_TIMEOUT_S = 120
"""On an emulated processor each program takes its time."""
_DUTY = {"owner": "bench", "reason": "the stage's own programs", "ticket": "BENCH-1"}


class AttackRow(msgspec.Struct, frozen=True):
    """What one attack did under one engine: `ran`, or it was stopped."""

    attack: str
    ran: bool


class Column(msgspec.Struct, frozen=True):
    """All attacks under one engine."""

    engine: str
    rows: tuple[AttackRow, ...]
    after_kill: bool | None = None
    """Whether an unknown program ran after SIGKILL of the engine's daemon; None: it has none."""


def stage_policy() -> EndpointPolicy:
    """Return the stage's policy: what lies below /usr, true digests, `bash -c` for the bench."""
    # Path rows take only what root alone can change; elsewhere the digests are vouched for.
    candidates = (*trusted_roots(), machine.PRODUCT)
    roots = tuple(f"{root}/**" for root in candidates if is_owned(root))
    return EndpointPolicy(
        version=1,
        mode=Mode.ENFORCE,
        host="stage",
        allow=(
            AllowRow(name="system", kinds=FILES, path=("/usr/**", *roots), **_DUTY),  # type: ignore[arg-type]
            AllowRow(name="python", kinds=FILES, signer=("bench",), **_DUTY),  # type: ignore[arg-type]
            AllowRow(
                name="shell-commands",
                kinds=(CodeKind.INLINE,),
                path=("/usr/bin/bash",),
                # The bench itself, the attacks' way into a namespace, and into a unit.
                exes=(
                    os.path.realpath(sys.executable),
                    "/usr/bin/unshare",
                    "/usr/lib/systemd/systemd",
                ),
                **_DUTY,  # type: ignore[arg-type]
            ),
        ),
        dated_overlays=True,
    )


def _catalogue(content: tuple[bytes, ...]) -> InventoryBook:
    """Vouch for what the stage needs and no path row means, and for some programs' content."""
    items = [item for root in trusted_roots() if not is_owned(root) for item in _scan(root)]
    items += _scan(ACTS)
    digests = {item.sha256 for item in items}
    digests |= {hashlib.sha256(data).hexdigest() for data in content}
    return InventoryBook({}, {one: frozenset({"bench"}) for one in digests})


def _scan(root: str) -> list[Item]:
    return scan((root,), {}, {})[0]


def start_guard(
    place: StagePlace,
    asked: Asked = ASKED,
    scope: Scope = Scope.FILESYSTEM,
    *,
    content: tuple[bytes, ...] = (),
    leave: frozenset[str] = frozenset(),
    policy: EndpointPolicy | None = None,
) -> int:
    """Start holder and worker in the stage; return the holder's id.

    Args:
        place: The stage.
        asked: What the kernel asks about.
        scope: What a mark covers.
        content: What may run beside `/bin/true`, wherever it lies.
        leave: Devices that are not marked.
        policy: Another one than the stage's.

    Raises:
        EndpointError: it does not answer.
    """
    policy = policy or stage_policy()
    catalogue = _catalogue((Path("/bin/true").read_bytes(), *content))
    interpreters = known_interpreters(("/usr/bin", str(Path(place.python).parent)))
    records = Records(open_records(RECORDS), policy.mode)
    listener = listen(SOCKET)
    heart = Heart(listener, "0" * 64, policy.mode, policy.host)
    group = Group()
    holder = os.fork()
    if holder == 0:
        guard = ExecGuard(
            policy,
            catalogue,
            interpreters=interpreters,
            records=records,
            asked=asked,
            scope=scope,
            leave=leave,
            beside=heart.beat,
        )
        notes = os.open("/run/notes", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def note(line: str) -> None:
            os.write(notes, line.encode() + b"\n")

        Holder(group, guard.work, note=note).run()
        os._exit(0)
    group.close()
    listener.close()
    for _ in range(1200):
        try:
            if read_pulse(SOCKET).marks > _FEWEST:
                return holder
        except StaleGuardError:
            pass
        time.sleep(0.05)
    said = Path("/run/notes").read_text()[-300:]
    raise EndpointError(f"the guard did not start: {said}")


def _noexec() -> None:
    for point in (W, T, "/dev/shm", "/tmp", "/run", "/var/tmp"):
        command = ["mount", "-o", "remount,bind,noexec,nosuid,nodev", point]
        subprocess.run(command, check=True)


# Somebody else's program: not among those that are run unless they are named.
OUTSIDE = ("fapolicyd",)
# What is tried in the virtual machine; `none` says which attacks its older kernel knows at all.
MACHINE = (
    "none", "guard", "apparmor", "systemd", "bpf-lsm", "guard+systemd", "guard+bpf-lsm", "ima",
)  # fmt: skip
# Which parts an engine has. `guard`: our daemon; `confine`: Landlock, seccomp and W^X.
ENGINES: dict[str, tuple[str, ...]] = {
    "none": (),
    "guard-exec": ("exec",),
    "guard-mount": ("mount",),
    "guard": ("guard",),
    "noexec": ("noexec",),
    "landlock": ("landlock",),
    "confine": ("confine",),
    "guard+confine": ("guard", "confine"),
    "all": ("guard", "confine", "noexec"),
    "fapolicyd": ("fapolicyd",),
    # These need a kernel or a PID 1 that only a machine of their own has.
    "systemd": ("systemd",),
    "apparmor": ("apparmor",),
    "bpf-lsm": ("bpf-lsm",),
    "ima": ("ima",),
    "guard+systemd": ("guard", "systemd"),
    "guard+bpf-lsm": ("guard", "bpf-lsm"),
}
_FLOORS = frozenset({"noexec", "landlock", "confine", "systemd", "apparmor"})


def run(engine: str, base: Path, only: str = "", *, whole: bool = False) -> Column:
    """Run the attacks whose name contains `only`; `whole` takes the machine itself for a stage.

    Raises:
        EndpointError: the stage can't be built or the engine not started.
    """
    parts = ENGINES[engine]
    if whole:
        machine.require_throwaway()
    place = build_machine(base) if whole else build(base)
    nameless = Path("/proc/sys/vm/memfd_noexec")
    if nameless.exists():
        nameless.write_text("0")
    bench = _Attacks(place, engine, [part for part in parts if part in _FLOORS], whole=whole)
    daemons = _start(parts, place, bench)
    rows = [
        AttackRow(attack.name, bench.ran(attack.command))
        for attack in ATTACKS
        if only in attack.name
    ]
    killed = bench.after_kill(daemons) if daemons else None
    if whole:
        # No namespace ends with us here: what was started is stopped.
        for daemon in daemons:
            os.kill(daemon, signal.SIGTERM)
            os.waitpid(daemon, 0)
        clear_machine()
    return Column(engine, tuple(rows), killed)


def _start(parts: tuple[str, ...], place: StagePlace, bench: "_Attacks") -> tuple[int, ...]:
    """Start what an engine is made of; return its daemons."""
    daemons = []
    if "bpf-lsm" in parts:
        daemons.append(machine.start_lsm(stage_policy(), _scan))
    if "ima" in parts:
        machine.start_ima(stage_policy(), _scan)
    if "apparmor" in parts:
        machine.start_apparmor(stage_policy())
    if "guard" in parts:
        daemons.append(start_guard(place))
    elif "exec" in parts:
        daemons.append(start_guard(place, Asked.EXEC, Scope.FILESYSTEM))
    elif "mount" in parts:
        daemons.append(start_guard(place, scope=Scope.MOUNT))
    elif "fapolicyd" in parts:
        daemons.append(
            fapolicyd.start(stage_policy(), _scan(ACTS), lambda: not bench.ran("{w}/progs"))
        )
    return tuple(daemons)


class _Attacks:
    """Runs commands as an attacker would, on the floors of one engine."""

    def __init__(self, place: StagePlace, engine: str, floor: list[str], *, whole: bool) -> None:
        self._place = place
        self._floor = floor
        self._timeout_s = _SLOW_TIMEOUT_S if whole else _TIMEOUT_S
        self._unit = f"attack-{engine.replace('+', '-')}"
        self._number = 0

    def after_kill(self, daemons: tuple[int, ...]) -> bool:
        """Kill each daemon or its worker; tell whether an unknown program ran then."""
        for daemon in daemons:
            children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
            for child in children or [str(daemon)]:
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.1)
        return self.ran("{w}/progs")

    def ran(self, command: str) -> bool:
        """Run one attack as a child in its own session; tell whether it printed RAN.

        Raises:
            EndpointError: it did not end: a machine too busy to run it has not stopped it.
        """
        reader, writer = os.pipe()
        self._number += 1
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.close(reader)
                null = os.open("/dev/null", os.O_RDONLY)
                for number, handle in ((0, null), (1, writer), (2, writer)):
                    os.dup2(handle, number)
                os.chdir("/")
                self._attack(self._place.fill(command))
            finally:
                os._exit(99)
        os.close(writer)
        began = time.monotonic()
        said, ended = _drain(reader, began + self._timeout_s)
        for member in (pid, *_session(pid)):
            try:
                os.kill(member, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os.waitpid(pid, 0)
        if "-v" in sys.argv:
            took = f"{time.monotonic() - began:.1f} s"
            print(took, command[:70], "|", said[:150], file=sys.stderr, flush=True)
        if not ended and b"RAN" not in said:
            raise EndpointError(f"within {self._timeout_s} s this did not end: {command[:70]}")
        return b"RAN" in said

    def _attack(self, text: str) -> None:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        if "systemd" in self._floor:
            unit = f"{self._unit}-{self._number}"
            words = machine.in_unit(stage_policy(), unit, text, self._timeout_s)
            os.execve(words[0], words, environment)
        if "noexec" in self._floor:
            _noexec()
        executable = (*TRUSTED, str(Path(self._place.python).parent))
        if "landlock" in self._floor:
            landlock(executable)
        if "confine" in self._floor:
            Path("/proc/sys/vm/memfd_noexec").write_text("2")
            confine(executable)
        if "apparmor" in self._floor:
            machine.enter_apparmor()
        os.execve("/bin/bash", ["bash", "-c", text], environment)


def _drain(reader: int, until: float) -> tuple[bytes, bool]:
    """Return what is said until then or until RAN, and whether it ended by itself."""
    os.set_blocking(reader, False)
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as file:
        while time.monotonic() < until and b"RAN" not in said:
            part = file.read(4096)
            if part is None:
                time.sleep(0.01)
                continue
            if not part:
                return said, True
            said += part
    return said, False


def _session(leader: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, leader):
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            if stat.rpartition(")")[2].split()[3] == str(leader):
                found.append(int(name))
    return found


if __name__ == "__main__":
    words = [one for one in sys.argv[1:] if one not in {"-v", "--machine"}]
    column = run(words[0], Path(words[1]), "".join(words[2:3]), whole="--machine" in sys.argv)
    print(msgspec.json.encode(column).decode())
