"""A real exfiltration attempt with synthetic bytes, between two network namespaces of this host.

Everything runs in namespaces that the drill makes and removes; the host's own rules and traffic
are not touched. The bytes are zeros.
"""

import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link
from safehold.secure.egress.declare.register import parse_register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.interface import KernelError, RefuseAll
from safehold.secure.egress.kernel.netns import Pair, enter, pair
from safehold.secure.egress.kernel.nft import NftKernel

BUDGET = 2_000_000
_OPEN, _CLOSED, _DNS = 9000, 9001, 53
_TRY = 400_000

_REGISTER = f"""version = 1
[[flow]]
id = "permitted"
owner = "drill"
purpose = "the one permitted flow of the drill"
data_class = "public"
protocol = "udp"
ports = [{_OPEN}]
destination = ["10.231.7.2/32"]
source = {{ uid = 0 }}
expires = 2099-01-01
budget = {{ hour = {BUDGET}, day = {BUDGET}, week = {BUDGET}, month = {BUDGET} }}
"""


class DrillAttempt(msgspec.Struct, frozen=True):
    """One way out that was tried: what was pushed, what may pass, what truly arrived."""

    name: str
    pushed: int
    allowed: int
    arrived: int

    @property
    def held(self) -> bool:
        """Whether no byte more than allowed arrived."""
        return self.arrived <= self.allowed


class DrillReport(msgspec.Struct, frozen=True):
    """What got through, and how fast a block took hold."""

    attempts: tuple[DrillAttempt, ...]
    block_s: float
    host: str
    kernel: str

    @property
    def passed(self) -> bool:
        """Whether every attempt was held and the block took less than a second."""
        return all(attempt.held for attempt in self.attempts) and self.block_s < 1.0


class Receiver:
    """Counts what arrives in the outer namespace."""

    def __init__(self, both: Pair) -> None:
        command = [sys.executable, "-m", "safehold.secure.egress.simulation.traffic", "receive"]
        self._process = subprocess.Popen(
            enter(both.outside, [*command, *map(str, (_OPEN, _CLOSED, _DNS))]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != "ready\n":
            raise KernelError("the drill's receiver did not start")

    def _line(self) -> str:
        return self._process.stdout.readline() if self._process.stdout else ""

    def total(self) -> int:
        """Payload bytes that arrived so far, on any channel."""
        if self._process.stdin is None:
            raise KernelError("the drill's receiver has no input")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return sum(msgspec.json.decode(self._line(), type=dict[str, int]).values())

    def close(self) -> None:
        """End the receiver."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait()


def run_drill(say: Callable[[str], None] | None = None) -> DrillReport:
    """Try every way out and count what arrives.

    Raises:
        KernelError: Not root, or the kernel lacks namespaces or nftables.
    """
    if os.geteuid() != 0:
        raise KernelError("a drill makes network namespaces: run it as root")
    tell = say or (lambda _: None)
    with tempfile.TemporaryDirectory() as folder, pair(f"shd{os.getpid()}") as both:
        enforcer = Enforcer(
            register=parse_register(_REGISTER),
            plan=EgressPlan(
                bound=Bound(weight_bytes=10**12),
                link=Link((both.inside_interface,), 10**9, shape=False),
            ),
            store=StateFile(Path(folder)),
            audit=ChainedLog(Path(folder) / "audit.jsonl"),
            authorizer=RefuseAll(),
            kernel=NftKernel(both.inside),
            today=dt.datetime.now(dt.UTC).date(),
        )
        enforcer.apply(first=True)
        receiver = Receiver(both)
        try:
            attempts = []
            for attempt in _attempts(both, enforcer, receiver):
                attempts.append(attempt)
                tell(f"{attempt.name}: {attempt.arrived} of {attempt.pushed} bytes arrived")
            begin = time.monotonic()
            enforcer.block("permitted", "drill")
            block_s = time.monotonic() - begin
            attempts.append(_try(both, receiver, "permitted flow after the block", "udp", _OPEN))
        finally:
            receiver.close()
    return DrillReport(tuple(attempts), block_s, os.uname().nodename, os.uname().release)


def _attempts(both: Pair, enforcer: Enforcer, receiver: Receiver) -> Iterator[DrillAttempt]:
    v4, v6 = both.outside_v4, both.outside_v6
    for name, channel, port, address in (
        ("TCP to an undeclared port", "tcp", _CLOSED, v4),
        ("UDP to an undeclared port (QUIC-like)", "udp", _CLOSED, v4),
        ("TCP over IPv6", "tcp", _CLOSED, v6),
        ("UDP over IPv6", "udp", _CLOSED, v6),
        ("ICMP echo payload", "icmp", 0, v4),
        ("ICMPv6 echo payload", "icmp", 0, v6),
        ("DNS names", "dns", _DNS, v4),
        ("raw frames past the IP stack", "raw", _OPEN, v4),
    ):
        yield _try(both, receiver, name, channel, port, address=address)
    yield _try(both, receiver, "permitted flow as another user", "udp", _OPEN, uid=12_345)
    spent = _try(both, receiver, "permitted flow over its budget", "udp", _OPEN, pushed=6 * 10**6)
    spent = msgspec.structs.replace(spent, allowed=BUDGET)
    yield spent
    enforcer.apply()
    again = _try(both, receiver, "permitted flow after a reload", "udp", _OPEN)
    yield msgspec.structs.replace(again, allowed=BUDGET - spent.arrived)


def _try(
    both: Pair,
    receiver: Receiver,
    name: str,
    channel: str,
    port: int,
    *,
    address: str = "",
    pushed: int = _TRY,
    uid: int | None = None,
) -> DrillAttempt:
    before = receiver.total()
    target = [
        channel,
        address or both.outside_v4,
        str(port),
        str(pushed),
        "6" if channel != "tcp" else "1.5",
    ]
    command = [sys.executable, "-m", "safehold.secure.egress.simulation.traffic", "send", *target]
    command += [str(uid)] if uid is not None else []
    subprocess.run(enter(both.inside, command), check=False, timeout=180)
    return DrillAttempt(name, pushed, 0, receiver.total() - before)
