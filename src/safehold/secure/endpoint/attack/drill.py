"""Drills in a stage: kill the worker at random moments under load; what an exec costs.

`python -m safehold.secure.endpoint.attack.drill kills|cost|cost-static BASE COUNT` (or
`learn BASE COMMAND...`), below
`unshare --mount --pid --fork`. Prints one line of JSON.
"""

# ruff: noqa: S311, T201 - random moments; it prints one line

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import msgspec

from safehold.errors import EndpointError
from safehold.secure.endpoint.attack import programs
from safehold.secure.endpoint.attack.bench import RECORDS, SOCKET, start_guard
from safehold.secure.endpoint.attack.stage import W, build, disk
from safehold.secure.endpoint.heartbeat import read_pulse
from safehold.secure.endpoint.interface import FILES
from safehold.secure.endpoint.policy import AllowRow, EndpointPolicy, Mode
from safehold.secure.endpoint.records import read_records
from safehold.secure.endpoint.suggest import Duty, suggested

_LOAD = 2
_MOST_WAIT_S = 10.0
_HUNG_MS = 5000


class Kills(msgspec.Struct, frozen=True):
    """How many kills; unknown programs that ran, tried and refused; the longest wait, in s.

    `refused_allowed` are allowed programs that a dead worker had taken: refused, as they must be.
    """

    kills: int
    unknown_ran: int
    unknown_tried: int
    allowed_ran: int
    refused_allowed: int
    longest_wait_s: float


class Cost(msgspec.Struct, frozen=True):
    """Pairs of execs of one program, marked and unmarked; medians and 99 % in ms.

    `guard_cpu_ms` is the processor time that the guard took for each marked exec, `questions` how
    often the kernel asked about one. `alone`: guard and programs had real-time priority, so that
    nobody else's load is in the figures.
    """

    pairs: int
    marked_ms: float
    unmarked_ms: float
    median_difference_ms: float
    marked_p99_ms: float
    unmarked_p99_ms: float
    hung: int
    guard_cpu_ms: float
    questions: float
    alone: bool


def _spawn(program: str) -> bool:
    """Run a program; tell whether the kernel let it."""
    try:
        pid = os.posix_spawn(
            program, [program], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)]
        )
    except PermissionError:
        return False
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _worker(holder: int) -> int:
    until = time.monotonic() + _MOST_WAIT_S
    while time.monotonic() < until:
        found = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.001)
    raise EndpointError("the holder has no worker")


def kills(base: Path, count: int) -> Kills:
    """Kill the worker `count` times while unknown and allowed programs are started."""
    place = build(base)
    holder = start_guard(place)
    ends = []
    for _ in range(_LOAD):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            _load(writer)
        os.close(writer)
        ends.append(reader)
    chance = random.Random(18)
    longest = 0.0
    for _ in range(count):
        time.sleep(chance.random() * 0.15)
        os.kill(_worker(holder), signal.SIGKILL)
        began = time.monotonic()
        while not _spawn("/bin/true"):
            if time.monotonic() - began > _MOST_WAIT_S:
                raise EndpointError("an allowed program was refused for ever")
        longest = max(longest, time.monotonic() - began)
    Path("/run/stop").touch()
    totals = [0, 0, 0, 0]
    for reader in ends:
        with os.fdopen(reader, "rb") as file:
            totals = [sum(pair) for pair in zip(totals, map(int, file.read().split()), strict=True)]
    os.kill(holder, signal.SIGTERM)
    return Kills(count, totals[0], totals[1], totals[2], totals[3], round(longest, 3))


def _load(writer: int) -> None:
    """Start an unknown and an allowed program in turn until told to stop."""
    ran = tried = allowed = refused = 0
    while not os.path.exists("/run/stop"):
        ran += _spawn(f"{W}/progs")
        tried += 1
        good = _spawn("/bin/true")
        allowed += good
        refused += not good
    os.write(writer, f"{ran} {tried} {allowed} {refused}".encode())
    os._exit(0)


def cost(base: Path, count: int, *, static: bool) -> Cost:
    """Time pairs of execs of `/bin/true`, in a root that is marked and in one that is not.

    The kernel would ask five times for a dynamic program (itself and its loader twice, its library
    once), twice for a static one. What everybody may execute and open is asked about once.
    """
    files = [
        os.path.realpath(one)
        for one in ("/bin/true", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6")
    ]
    place = build(base)
    unmarked = Path("/mnt/n")
    image = Path("/tmp/unmarked.img")
    disk(image, unmarked, 64)
    for root in (Path(W), unmarked):
        for source, name in zip(
            files,
            ("bin/true", "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"),
            strict=True,
        ):
            (root / "r" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / "r" / name)
        if static:
            (root / "r/bin/true").write_bytes(programs.static_program())
    device = unmarked.stat().st_dev
    leave = frozenset({f"{os.major(device)}:{os.minor(device)}"})
    content = tuple(Path(one).read_bytes() for one in files)
    time.sleep(0.2)  # a file that has just changed is hashed each time
    alone = _alone()
    holder = start_guard(place, content=(*content, programs.static_program()), leave=leave)
    roots = [_runner(Path(W) / "r"), _runner(unmarked / "r")]
    for _ in range(50):
        for one in roots:
            _one(one)
    worker = _worker(holder)
    cpu, asked = _cpu_ms(worker), read_pulse(SOCKET).asked
    times: list[list[float]] = [[], []]
    chance = random.Random(18)
    hung = 0
    for _ in range(count):
        order = [0, 1]
        chance.shuffle(order)
        for which in order:
            times[which].append(_one(roots[which]))
            hung += times[which][-1] > _HUNG_MS
    cpu, asked = _cpu_ms(worker) - cpu, read_pulse(SOCKET).asked - asked
    differences = sorted(a - b for a, b in zip(*times, strict=True))
    for taken in times:
        taken.sort()
    os.kill(holder, signal.SIGTERM)
    middle, late = count // 2, int(count * 0.99)
    return Cost(
        count,
        round(times[0][middle], 3),
        round(times[1][middle], 3),
        round(differences[middle], 3),
        round(times[0][late], 3),
        round(times[1][late], 3),
        hung,
        round(cpu / count, 3),
        round(asked / count, 2),
        alone,
    )


def _alone() -> bool:
    """Take real-time priority for this process and what it starts; tell whether that was given."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


def _cpu_ms(pid: int) -> float:
    """Return the processor time of a process so far, all threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e6


class LearnedCommand(msgspec.Struct, frozen=True):
    """One command learned and then enforced: its exit status both times, what was refused then.

    `unknown_ran` says whether a program that was not learned ran under enforcement: it must not.
    """

    learned: int
    rows: int
    first_status: int
    second_status: int
    refused: tuple[str, ...]
    unknown_ran: bool


def learn(base: Path, command: list[str]) -> LearnedCommand:
    """Run a command in learn mode, make rows of what was seen, and run it again enforced."""
    place = build(base)
    nothing = AllowRow(
        name="nothing", kinds=FILES, sha256=("0" * 64,), owner="drill", reason="drill", ticket="D-1"
    )
    policy = EndpointPolicy(
        version=1, mode=Mode.LEARN, host="stage", allow=(nothing,), dated_overlays=True
    )
    holder = start_guard(place, policy=policy)
    first = _status(command)
    time.sleep(2.0)  # what was seen is written once a second
    os.kill(holder, signal.SIGTERM)
    os.waitpid(holder, 0)
    seen = list(read_records(RECORDS))
    rows = suggested(seen, Duty("drill", "learned", "D-1"))
    RECORDS.unlink()
    strict = msgspec.structs.replace(policy, mode=Mode.ENFORCE, allow=(nothing, *rows))
    holder = start_guard(place, policy=strict)
    second = _status(command)
    time.sleep(2.0)
    refused = tuple(
        f"{one.kind} {one.path} by {one.exe}: {one.reason} ({one.count})"
        for one in read_records(RECORDS)
    )
    unknown = _spawn(f"{W}/progs")
    os.kill(holder, signal.SIGTERM)
    return LearnedCommand(len(seen), len(rows), first, second, refused, unknown)


def _status(command: list[str]) -> int:
    """Run a command with the guard's answers; return its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            quiet = os.open("/run/said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            os.chdir("/tmp")
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _runner(root: Path) -> tuple[int, int]:
    """Start a process in a root that runs its /bin/true when told; return its two pipes."""
    command, told = os.pipe()
    answers, answer = os.pipe()
    if os.fork() == 0:
        os.close(told)
        os.close(answers)
        os.chroot(root)
        os.chdir("/")
        while os.read(command, 1):
            began = time.perf_counter()
            pid = os.posix_spawn(
                "/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_CLOSE, 1)]
            )
            status = os.waitpid(pid, 0)[1]
            took = time.perf_counter() - began if status == 0 else 99.0
            os.write(answer, f"{took * 1000:.4f}\n".encode())
        os._exit(0)
    os.close(command)
    os.close(answer)
    return told, answers


def _one(runner: tuple[int, int]) -> float:
    os.write(runner[0], b"x")
    return float(os.read(runner[1], 64))


if __name__ == "__main__":
    what, base = sys.argv[1], Path(sys.argv[2])
    found: Kills | Cost | LearnedCommand
    if what == "kills":
        found = kills(base, int(sys.argv[3]))
    elif what == "learn":
        found = learn(base, sys.argv[3:])
    else:
        found = cost(base, int(sys.argv[3]), static=what == "cost-static")
    print(msgspec.json.encode(found).decode())
