"""Databases that stop and start, few descriptors, slow clients, an upgrade of two hosts."""

import collections
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.guard.gateway.policy import digest_key
from safehold.guard.ledger.interface import FinalRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.guards import MARKER
from safehold.testing.postgres import EmbeddedPostgres
from safehold.testing.upstream import MockUpstream, says

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_crash import Client, check
from gateway_process import ask, get, served
from gateway_redis import RealRedis
from gateway_wire import PATHS, body_for, ending, unchunked

pytestmark = pytest.mark.soak
TEXT = "Harmless words of an answer that takes its time to be told. " * 8
SLOW = msgspec.structs.replace(says(TEXT, size=8), delay_s=0.02)
STREAMS = int(os.environ.get("SAFEHOLD_SOAK_STREAMS", "200"))
STORM_S = float(os.environ.get("SAFEHOLD_SOAK_STORM_S", "60"))
SLOW_STREAMS = max(2, STREAMS // 4)
FEW_FILES = 48


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def status_of(client: Client) -> int:
    """Return the status that a client got, 0 for none."""
    return int(client.got.split(b" ")[1]) if client.got.startswith(b"HTTP/") else 0


def test_databases_that_stop_in_the_middle_lose_no_delivered_text(tmp_path: Path) -> None:
    """PostgreSQL and Redis crash and come back under streams: what left is in the ledger."""
    with (
        tempfile.TemporaryDirectory(prefix="shpg-") as name,
        EmbeddedPostgres(Path(name)) as postgres,
        tempfile.TemporaryDirectory(prefix="shr-") as place,
        RealRedis(Path(place)) as redis,
        MockUpstream(SLOW) as upstream,
        served(tmp_path, upstream.url, ledger=postgres.url, store=redis.unix_url) as at,
    ):
        clients: list[Client] = []
        until = time.monotonic() + STORM_S
        turn = 0
        while time.monotonic() < until:
            batch = [Client(at.port, PATHS[number % 3]) for number in range(8)]
            for client in batch:
                client.start()
            time.sleep(0.3)
            server = (postgres, redis)[turn % 2]
            (postgres.crash if server is postgres else redis.stop)()
            time.sleep(0.4)
            server.start()
            for client in batch:
                client.join(120)
            clients += batch
            turn += 1
        deadline = time.monotonic() + 60
        while ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(5)  # what the ledger did not take is told again every second
        reader = LedgerReader.open(postgres.url)
        spoken = [client for client in clients if client.text]
        for client in spoken:
            check(reader, client)
        statuses = sorted({status_of(client) for client in clients})
    figures = {"crashes": turn, "streams": len(clients), "with_text": len(spoken)}
    print(json.dumps(figures | {"statuses": statuses}))  # noqa: T201
    assert spoken
    assert set(statuses) <= {0, 200, 503}


def test_descriptors_that_run_out_refuse_and_come_back(tmp_path: Path) -> None:
    """With almost no descriptors left nothing unlogged leaves; with some again all goes on."""
    with MockUpstream(SLOW) as upstream, served(tmp_path, upstream.url) as at:
        limits = resource.prlimit(at.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(at.process.pid, resource.RLIMIT_NOFILE, (FEW_FILES, limits[1]))
        clients = [Client(at.port, PATHS[number % 3]) for number in range(FEW_FILES)]
        for client in clients:
            client.start()
        time.sleep(5)
        resource.prlimit(at.process.pid, resource.RLIMIT_NOFILE, limits)
        for client in clients:
            client.join(120)
        assert ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) == 200
        reader = LedgerReader.open(at.ledger)
        spoken = [client for client in clients if client.text]
        for client in spoken:
            check(reader, client)
    whole = sum(TEXT.startswith(client.text) and client.text == TEXT for client in spoken)
    print(json.dumps({"clients": len(clients), "with_text": len(spoken), "whole": whole}))  # noqa: T201


def test_slow_client_on_every_stream_costs_bounded_memory(tmp_path: Path) -> None:
    """Clients that read a few bytes a second hold up nobody else and little memory."""
    script = msgspec.structs.replace(says("word " * 20_000, size=400), delay_s=0.0)
    with (
        MockUpstream(script) as upstream,
        served(tmp_path, upstream.url, limits={"stall_timeout_s": 3.0}) as at,
        contextlib.ExitStack() as stack,
    ):
        assert ask(at.port, PATHS[1], body_for(PATHS[1], "hi")) == 200
        before = resident_mb(at.process.pid)
        body = json.dumps(body_for(PATHS[0], "hi")).encode()
        head = (
            f"POST {PATHS[0]} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode()
        for _ in range(SLOW_STREAMS):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", at.port))
            sock.sendall(head + body)
        peak = before
        deadline = time.monotonic() + 1200
        while b"safehold_open_exchanges 0.0" not in get(at.port, "/metrics"):
            peak = max(peak, resident_mb(at.process.pid))
            assert time.monotonic() < deadline
            time.sleep(0.5)
        rows = [entry.row for entry in LedgerReader.open(at.ledger).after(0, limit=10_000)]
        finals = sum(isinstance(row, FinalRow) for row in rows)
    figures = {"slow_streams": SLOW_STREAMS, "mb_before": round(before), "mb_peak": round(peak)}
    print(json.dumps(figures))  # noqa: T201
    assert finals == SLOW_STREAMS + 1
    assert peak - before < 50 + 1.5 * SLOW_STREAMS


class Host:
    """A network namespace with an address of its own, in which a gateway runs."""

    def __init__(
        self, number: int, folder: Path, upstream: int, databases: tuple[str, str]
    ) -> None:
        self.name = f"shsoak{os.getpid() % 10_000}{number}"
        self.outside, self.address = f"10.213.{number}.1", f"10.213.{number}.2"
        self._upstream = upstream
        self._ledger, self._store = databases
        self.folder = folder / self.name
        self.folder.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        ip("netns", "add", self.name)
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.outside}/24", "dev", self.name)
        ip("link", "set", self.name, "up")
        for command in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", self.name, *command)

    def start(self) -> None:
        """Start a gateway in this namespace and wait until it takes requests."""
        rule = {"id": "marker", "clause": "test/marker", "pattern": MARKER, "example": MARKER}
        (self.folder / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
        given = {
            "host": self.address,
            "port": 8400,
            "keys": [{"id": "k", "sha256": DIGEST}],
            "limits": {"verdict_wait_s": 60},
            "upstream": {"url": f"http://{self.outside}:{self._upstream}/v1"},
            "ledger": self._ledger,
            "store": self._store,
            "bundle": str(self.folder / "rules.yaml"),
            "journal": str(self.folder / "journal"),
            "canary": {"enabled": False},
            "log": "none",
        }
        (self.folder / "gateway.yaml").write_text(json.dumps(given))
        command = ["ip", "netns", "exec", self.name, sys.executable, "-m", "safehold", "serve"]
        self.process = subprocess.Popen([*command, "--config", str(self.folder / "gateway.yaml")])
        deadline = time.monotonic() + 90
        while not ready(self.address):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def drain(self) -> int:
        """Ask the gateway to end, and return its status when it has."""
        self.process.terminate()
        return self.process.wait(120)

    def close(self) -> None:
        """Remove what was made."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        ip("netns", "del", self.name)


KEY = "sk-safehold-0123456789abcdefghijklmnop"
DIGEST = digest_key(KEY)


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run([shutil.which("ip") or "/usr/sbin/ip", *arguments], check=True)


def ready(address: str) -> bool:
    """Whether a gateway says that it is ready."""
    try:
        with socket.create_connection((address, 8400), timeout=5) as sock:
            sock.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return b" 200 " in sock.recv(64)
    except OSError:
        return False


class Visitor(threading.Thread):
    """A client behind a balancer, which asks again as the vendors' clients do.

    A host that refuses the connection is passed over, and so is one that closed it or answered
    503 before anything was told. Once an answer began, its end is its end.
    """

    def __init__(self, addresses: list[str], path: str) -> None:
        super().__init__(daemon=True)
        self._addresses = addresses
        self._path = path
        self.end = "unanswered"
        self.turned_away: list[str] = []

    def run(self) -> None:
        """Stream one answer to its end."""
        for attempt in range(400):
            got = self._asked(self._addresses[attempt % len(self._addresses)])
            top, _, rest = got.partition(b"\r\n\r\n")
            if b" 200 " in top[:20]:
                self.end = ending(self._path, unchunked(rest))
                return
            if top and b" 503 " not in top[:20]:
                self.end = top[:40].decode()
                return
            self.turned_away.append("503" if top else "closed")
            time.sleep(0.05)

    def _asked(self, address: str) -> bytes:
        body = json.dumps(body_for(self._path, "hi")).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"x-api-key: {KEY}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        got = bytearray()
        with contextlib.suppress(OSError), socket.create_connection((address, 8400), 60) as sock:
            sock.sendall(head.encode() + body)
            while part := sock.recv(65536):
                got += part
        return bytes(got)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Two hosts with one PostgreSQL and one Redis, which they reach by Unix sockets."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces take root")
    made: list[Host] = []
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shpg-")))
        postgres = stack.enter_context(EmbeddedPostgres(place))
        other = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shr-")))
        redis = stack.enter_context(RealRedis(other))
        upstream = stack.enter_context(MockUpstream(SLOW, host="0.0.0.0"))
        port = int(upstream.url.rsplit(":", 1)[1].split("/")[0])
        for number in (1, 2):
            host = Host(number, tmp_path, port, (postgres.url, redis.unix_url))
            stack.callback(host.close)
            made.append(host)
        yield made


def test_two_hosts_are_upgraded_under_streams_without_a_dropped_one(hosts: list[Host]) -> None:
    """Each host drains, ends with status 0 and starts anew, while streams go on: none is cut."""
    for host in hosts:
        host.start()
    at = [host.address for host in hosts]
    visitors = [Visitor(at[n % 2 :] + at[: n % 2], PATHS[n % 3]) for n in range(STREAMS)]
    for number, visitor in enumerate(visitors):
        visitor.start()
        if number == STREAMS // 3:
            first = threading.Thread(target=lambda: (hosts[0].drain(), hosts[0].start()))
            first.start()
        time.sleep(0.02)
    first.join(300)
    late = [Visitor(at[n % 2 :] + at[: n % 2], PATHS[n % 3]) for n in range(STREAMS)]
    for visitor in late:
        visitor.start()
    assert hosts[1].drain() == 0
    hosts[1].start()
    for visitor in (*visitors, *late):
        visitor.join(300)
    both = [*visitors, *late]
    ends = collections.Counter(visitor.end for visitor in both)
    away = collections.Counter(why for visitor in both for why in visitor.turned_away)
    print(json.dumps({"streams": len(both), "ends": ends, "asked_again": away}))  # noqa: T201
    assert set(ends) == {"done"}
