"""Egress under test: rows, plans, a clock to move, and a world behind two namespaces."""

import contextlib
import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link, Local
from safehold.secure.egress.declare.register import Register, parse_register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import Clock, StateFile
from safehold.secure.egress.interface import Authorization, Authorizer, KernelError, RefuseAll
from safehold.secure.egress.kernel.cgroup import cgroup_root
from safehold.secure.egress.kernel.netns import Pair, enter
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.repeats import RepeatReader

PORTS = (8443, 9000, 53)
TODAY = dt.date(2026, 11, 21)

ROW = """
[[flow]]
id = "{id}"
owner = "serving team"
purpose = "answers to clients"
data_class = "model-output"
protocol = "{protocol}"
{ports}
destination = {destination}
source = {{ uid = {uid} }}
expires = 2099-01-01
[flow.budget]
hour = {hour}
day = {day}
week = {week}
month = {month}
"""


def row(
    name: str = "replies",
    *,
    protocol: str = "tcp",
    port: int = 8443,
    hour: int = 10_000_000,
    destination: str = '["10.231.7.0/24", "fd5a:fe:7::/64"]',
    uid: int = 0,
    day: int = 0,
) -> str:
    """One register row as text."""
    ports = f"ports = [{port}]" if protocol in {"tcp", "udp"} else ""
    day = day or hour * 4
    return ROW.format(
        id=name,
        protocol=protocol,
        ports=ports,
        destination=destination,
        uid=uid,
        hour=hour,
        day=day,
        week=day * 7,
        month=day * 28,
    )


def register(*rows: str) -> Register:
    """A register of these rows."""
    return parse_register("version = 1\n" + "".join(rows))


def plan(**changes: object) -> EgressPlan:
    """A plan for the test namespace: unshaped, one interface."""
    settings: dict[str, object] = {
        "bound": Bound(weight_bytes=10**12),
        "link": Link(interfaces=("up0",), rate_bit_s=10**9, shape=False),
        "local": Local(),
    }
    return EgressPlan(**{**settings, **changes})  # type: ignore[arg-type]


class FakeClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.uptime = 1000.0
        self.boot = "boot-1"
        self.wall = 1_795_000_000.0

    def forward(self, seconds: float) -> None:
        """Let time pass, for this boot and on the wall."""
        self.uptime += seconds
        self.wall += seconds

    def uptime_s(self) -> float:
        """Seconds since boot."""
        return self.uptime

    def boot_id(self) -> str:
        """The boot's name."""
        return self.boot

    def wall_s(self) -> float:
        """The wall clock."""
        return self.wall


@contextlib.contextmanager
def control_group(name: str) -> Iterator[Path]:
    """Make a control group of this process's own, and remove it once it is empty.

    Raises:
        KernelError: It is still in use a minute later.
    """
    group = cgroup_root() / f"safehold-{name}-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        end = time.monotonic() + 60
        while (group / "cgroup.procs").read_text():
            if time.monotonic() > end:
                raise KernelError(f"control group {group.name} does not empty")
            time.sleep(0.05)
        group.rmdir()


class FullDisk:
    """A small file system of its own that can be filled to the last byte; needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), (self.folder / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        """Make room again."""
        (self.folder / "fill").unlink()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[FullDisk]:
    """Mount a file system of 256 KiB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "safehold-test", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield FullDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class GrantExactly:
    """An authorizer with one live grant."""

    def __init__(self, operation: str, resource: str) -> None:
        self.granted = (operation, resource)

    def require(self, operation: str, resource: str) -> Authorization:
        """Return the grant when it covers exactly this."""
        if (operation, resource) != self.granted:
            return RefuseAll().require(operation, resource)
        return Authorization(grant_id="grant-1")


def joining(group: Path | None, command: list[str]) -> list[str]:
    """Return the command line that runs `command` in a control group."""
    if group is None:
        return command
    return ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs"), *command]


class World:
    """The outside namespace's receiver, and a way to send from the inside."""

    def __init__(self, both: Pair, folder: Path) -> None:
        self.pair = both
        self.folder = folder
        command = [sys.executable, "-m", "safehold.secure.egress.simulation.traffic", "receive"]
        self._receiver = subprocess.Popen(
            enter(both.outside, [*command, *map(str, PORTS)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != "ready\n":
            raise KernelError("the receiver did not start")

    def _line(self) -> str:
        return self._receiver.stdout.readline() if self._receiver.stdout else ""

    def received(self) -> dict[str, int]:
        """Payload bytes that truly arrived, by channel."""
        if self._receiver.stdin is None:
            raise KernelError("the receiver has no input")
        self._receiver.stdin.write("\n")
        self._receiver.stdin.flush()
        return msgspec.json.decode(self._line(), type=dict[str, int])

    def send(
        self,
        channel: str,
        count: int,
        *,
        port: int = 8443,
        address: str | None = None,
        seconds: float = 60.0,
        uid: int | None = None,
        group: Path | None = None,
    ) -> None:
        """Try to send synthetic bytes from the inside, for at most `seconds`.

        `group` is the control group that the sender belongs to.
        """
        command = self._sender(channel, count, port, address, seconds, uid)
        subprocess.run(joining(group, command), check=False, timeout=180)

    @contextlib.contextmanager
    def sending(
        self, channel: str, count: int, *, port: int = 8443, seconds: float = 180.0
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Send synthetic bytes from the inside meanwhile, until the end of the block at most."""
        command = self._sender(channel, count, port, None, seconds, None)
        with subprocess.Popen(command) as sender:
            try:
                yield sender
            finally:
                sender.kill()

    def _sender(
        self,
        channel: str,
        count: int,
        port: int,
        address: str | None,
        seconds: float,
        uid: int | None,
    ) -> list[str]:
        arguments = [channel, address or self.pair.outside_v4, str(port), str(count), str(seconds)]
        arguments += [str(uid)] if uid is not None else []
        program = [sys.executable, "-m", "safehold.secure.egress.simulation.traffic", "send"]
        return enter(self.pair.inside, [*program, *arguments])

    def enforcer(
        self,
        flows: Register,
        the_plan: EgressPlan | None = None,
        *,
        clock: Clock | None = None,
        authorizer: Authorizer | None = None,
        repeats: RepeatReader | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Enforcer:
        """An enforcer of the inside namespace."""
        return Enforcer(
            register=flows,
            plan=the_plan or plan(),
            store=StateFile(self.folder / "state"),
            audit=ChainedLog(self.folder / "audit.jsonl"),
            authorizer=authorizer or RefuseAll(),
            kernel=NftKernel(self.pair.inside),
            clock=clock,
            today=TODAY,
            repeats=repeats,
            files=files,
        )

    def close(self) -> None:
        """End the receiver."""
        for stream in (self._receiver.stdin, self._receiver.stdout):
            if stream is not None:
                stream.close()
        self._receiver.kill()
        self._receiver.wait()
