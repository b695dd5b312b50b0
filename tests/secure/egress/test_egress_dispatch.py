"""Packets without an owner: what TCP sends after `close`, and its answer to a new connection."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.netns import enter, run_in
from safehold.testing.egress import World, control_group, joining, register, row

COUNT = 400_000
PORT = 9443
WINDOW = 50_000
"""More than a receiver with a buffer of 8 kB may be sent before it reads."""

HOLD = """
import os, socket, sys
way, address, port, count, uid = sys.argv[1:]
os.setuid(int(uid))
if way == "serve":
    listener = socket.create_server(("", int(port)))
    print("ready", flush=True)
    link = listener.accept()[0]
else:
    link = socket.create_connection((address, int(port)), timeout=60)
link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(count))
link.sendall(bytes(int(count)))
link.close()
"""
"""Put everything into the kernel's send buffer, close, and be gone."""

DRAIN = """
import socket, sys
way, address, port, patience = sys.argv[1:]
if way == "serve":
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    link.settimeout(60)
    link.connect((address, int(port)))
else:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    listener.bind(("", int(port)))
    listener.listen()
    print("ready", flush=True)
    link = listener.accept()[0]
print("joined", flush=True)
sys.stdin.readline()
link.settimeout(float(patience))
got = 0
try:
    while piece := link.recv(65536):
        got += len(piece)
except TimeoutError:
    pass
print(got, flush=True)
"""
"""Read nothing until told to, so that the rest must come from a socket that is closed."""


LISTEN = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
"""
KNOCK = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.5)
"""


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command and kill it in the end."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Tail:
    """A sender that is gone, and a receiver that has read nothing yet."""

    def __init__(
        self, world: World, way: str = "serve", uid: int = 0, group: Path | None = None
    ) -> None:
        self.world, self.way, self.uid, self.group = world, way, uid, group

    @contextlib.contextmanager
    def left(self, patience: float = 60.0) -> Iterator[subprocess.Popen[str]]:
        """Hand out the receiver once the sender has closed its socket and ended."""
        pair = self.world.pair
        hold = [self.way, pair.outside_v4, str(PORT), str(COUNT), str(self.uid)]
        drain = [self.way, pair.inside_v4, str(PORT), str(patience)]
        starts = [
            enter(pair.inside, joining(self.group, [sys.executable, "-c", HOLD, *hold])),
            enter(pair.outside, [sys.executable, "-c", DRAIN, *drain]),
        ]
        first, second = starts if self.way == "serve" else starts[::-1]
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(running(first))
            assert listening.stdout is not None
            assert listening.stdout.readline() == "ready\n"
            joined = stack.enter_context(running(second))
            sender, receiver = (listening, joined) if self.way == "serve" else (joined, listening)
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "joined\n"
            assert sender.wait(60) == 0
            yield receiver

    @staticmethod
    def drained(receiver: subprocess.Popen[str]) -> int:
        """Let the receiver read; return how many bytes came."""
        return int(receiver.communicate("\n", timeout=120)[0])


def flow(way: str = "serve", *, uid: int = 0) -> str:
    """A row for the sender."""
    text = row("replies", port=PORT, hour=10**8, uid=uid)
    return text.replace("purpose =", f'direction = "{way}"\npurpose =')


@pytest.mark.parametrize("way", ["serve", "out"])
def test_what_a_closed_socket_held_arrives_whole(world: World, way: str) -> None:
    """A process that writes, closes and ends has everything delivered and nothing undeclared."""
    enforcer = world.enforcer(register(flow(way)))
    enforcer.apply(first=True)
    with Tail(world, way).left() as receiver:
        assert Tail.drained(receiver) == COUNT
    snapshot = enforcer.tick()
    assert snapshot.undeclared == 0
    assert COUNT < snapshot.passed["replies"] < COUNT * 1.1


def grouped(group: Path) -> str:
    """A row for a control group that serves."""
    return flow().replace("{ uid = 0 }", f'{{ cgroup = "{group.name}" }}')


def test_closed_socket_of_a_control_group_stays_in_its_flow(world: World) -> None:
    """A control group that serves can be connected to, and loses no tail."""
    with control_group("serves") as group:
        enforcer = world.enforcer(register(grouped(group)))
        enforcer.apply(first=True)
        with Tail(world, group=group).left() as receiver:
            assert Tail.drained(receiver) == COUNT
        assert enforcer.tick().undeclared == 0


def test_listener_of_another_group_is_not_answered_for(world: World) -> None:
    """On a control group's port a process of another group opens no connection."""
    with control_group("serves") as group, control_group("other") as other:
        enforcer = world.enforcer(register(grouped(group)))
        enforcer.apply(first=True)
        listen = joining(other, [sys.executable, "-c", LISTEN, str(PORT)])
        with subprocess.Popen(
            enter(world.pair.inside, listen), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == b"ready\n"
            with pytest.raises(KernelError, match="timed out"):
                run_in(
                    world.pair.outside,
                    [sys.executable, "-c", KNOCK, world.pair.inside_v4, str(PORT)],
                )
            listener.kill()
        assert enforcer.tick().passed["replies"] == 0


def test_bound_connection_survives_a_reload(world: World) -> None:
    """Rules made anew, with the rows in another order, still know the connection."""
    other = row("other", port=8443)
    enforcer = world.enforcer(register(flow(), other))
    enforcer.apply(first=True)
    with Tail(world).left() as receiver:
        world.enforcer(register(other, flow())).apply()
        assert Tail.drained(receiver) == COUNT


@pytest.mark.parametrize("way", ["block", "seal", "row"])
def test_blocked_flow_sends_no_tail(world: World, way: str) -> None:
    """A block, a seal and a row taken out stop what closed sockets still hold."""
    other = row("other", port=8443)
    enforcer = world.enforcer(register(flow(), other))
    enforcer.apply(first=True)
    with Tail(world).left(1.0) as receiver:
        match way:
            case "block":
                enforcer.block("replies", "test")
            case "seal":
                enforcer.close_all("test")
            case _:
                world.enforcer(register(other)).apply()
        assert Tail.drained(receiver) < WINDOW


def test_tail_pays_the_budget(world: World) -> None:
    """A closed socket's bytes stop at the flow's budget like all others."""
    enforcer = world.enforcer(register(flow().replace(str(10**8), "200000")))
    enforcer.apply(first=True)
    with Tail(world).left(1.0) as receiver:
        assert 0 < Tail.drained(receiver) < 200_000
    assert enforcer.tick().passed["replies"] <= 200_000


def test_undeclared_connection_gains_nothing_by_closing(world: World) -> None:
    """A connection of another user, made before there were rules, sends no tail."""
    with Tail(world, uid=12345).left(1.0) as receiver:
        enforcer = world.enforcer(register(flow()))
        enforcer.apply(first=True)
        assert Tail.drained(receiver) < WINDOW
    assert enforcer.tick().undeclared > 0
