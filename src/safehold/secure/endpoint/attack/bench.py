"""Run every attack against one engine, in a stage; print what ran as JSON.

`python -m safehold.secure.endpoint.attack.bench ENGINE BASE`, below `unshare --mount --pid --fork`.
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
from safehold.secure.endpoint.attack import fapolicyd
from safehold.secure.endpoint.attack.attacks import ATTACKS
from safehold.secure.endpoint.attack.stage import ACTS, StagePlace, T, W, build, trusted_roots
from safehold.secure.endpoint.engines.confine import confine, landlock
from safehold.secure.endpoint.facts import is_owned
from safehold.secure.endpoint.guard import ASKED, ExecGuard, known_interpreters
from safehold.secure.endpoint.heartbeat import Heart, StaleGuardError, listen, read_pulse
from safehold.secure.endpoint.interface import FILES, CodeKind
from safehold.secure.endpoint.inventory.book import InventoryBook, Item
from safehold.secure.endpoint.inventory.scan import scan
from safehold.secure.endpoint.policy import AllowRow, EndpointPolicy, Mode
from safehold.secure.endpoint.records import Records, open_records
from safehold.secure.fanotify.group import Group
from safehold.secure.fanotify.hold import Holder
from safehold.secure.fanotify.interface import Asked, Scope

_FEWEST = 3
"""Marks that are always there: root, disk and tmpfs."""
_ENGINE_AT = 3
"""The place of the engine among the arguments: program, folder, engine."""

TRUSTED = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
SOCKET = Path("/run/guard.sock")
RECORDS = Path("/run/denials.jsonl")
_TIMEOUT_S = 4
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
    roots = tuple(f"{root}/**" for root in trusted_roots() if is_owned(root))
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
                # The bench itself, and the attacks' way into a namespace.
                exes=(os.path.realpath(sys.executable), "/usr/bin/unshare"),
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
    for _ in range(200):
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
}


def run(engine: str, base: Path, only: str = "") -> Column:
    """Run the attacks whose name contains `only`.

    Raises:
        EndpointError: the stage can't be built or the engine not started.
    """
    parts = ENGINES[engine]
    place = build(base)
    Path("/proc/sys/vm/memfd_noexec").write_text("0")
    holder = 0
    if "guard" in parts:
        holder = start_guard(place)
    elif "exec" in parts:
        holder = start_guard(place, Asked.EXEC, Scope.FILESYSTEM)
    elif "mount" in parts:
        holder = start_guard(place, scope=Scope.MOUNT)
    elif "fapolicyd" in parts:
        holder = fapolicyd.start(
            stage_policy(), _scan(ACTS), lambda: not _ran(place, "{w}/progs", [])
        )
    floor = [part for part in parts if part in {"noexec", "landlock", "confine"}]
    rows = [
        AttackRow(attack.name, _ran(place, attack.command, floor))
        for attack in ATTACKS
        if only in attack.name
    ]
    killed = _after_kill(place, holder, floor) if holder else None
    return Column(engine, tuple(rows), killed)


def _after_kill(place: StagePlace, holder: int, floor: list[str]) -> bool:
    children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
    for child in children or [str(holder)]:
        os.kill(int(child), signal.SIGKILL)
    time.sleep(0.1)
    return _ran(place, "{w}/progs", floor)


def _ran(place: StagePlace, command: str, floor: list[str]) -> bool:
    """Run one attack as a child in its own session; tell whether it printed RAN."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(reader)
            null = os.open("/dev/null", os.O_RDONLY)
            for number, handle in ((0, null), (1, writer), (2, writer)):
                os.dup2(handle, number)
            os.chdir("/")
            if "noexec" in floor:
                _noexec()
            executable = (*TRUSTED, str(Path(place.python).parent))
            if "landlock" in floor:
                landlock(executable)
            if "confine" in floor:
                Path("/proc/sys/vm/memfd_noexec").write_text("2")
                confine(executable)
            text = place.fill(command)
            os.execve("/bin/bash", ["bash", "-c", text], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        finally:
            os._exit(99)
    os.close(writer)
    said = _drain(reader, time.monotonic() + _TIMEOUT_S)
    for member in (pid, *_session(pid)):
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.waitpid(pid, 0)
    if "-v" in sys.argv:
        print(command[:70], "|", said[:150], file=sys.stderr)
    return b"RAN" in said


def _drain(reader: int, until: float) -> bytes:
    os.set_blocking(reader, False)
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as file:
        while time.monotonic() < until:
            part = file.read(4096)
            if part is None:
                time.sleep(0.01)
                continue
            if not part:
                break
            said += part
    return said


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
    only = "".join(one for one in sys.argv[_ENGINE_AT : _ENGINE_AT + 1] if one != "-v")
    print(msgspec.json.encode(run(sys.argv[1], Path(sys.argv[2]), only)).decode())
