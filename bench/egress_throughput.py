"""Throughput of a permitted flow: unruled, ruled, behind a TCP proxy, behind Squid delay pools.

All four in one run on one host, in rounds whose order is shuffled, so that a busy machine slows all
alike; what counts is the median over rounds of the ratio to the unruled transfer of the same
round, with an interval of order statistics. Twice: over a link of 10 Gbit/s, as a host has one, and
over a link without a rate with all processes on one core, where nothing but the processor limits
and every rule counts. On a busy machine the processor time of all processes on the way, which
others lengthen less, says more than the clock on the wall. Needs root; Squid is left out, with a
note, when it is not installed.
"""

import argparse
import contextlib
import math
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.tables import Table

from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link
from safehold.secure.egress.declare.register import parse_register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.interface import RefuseAll
from safehold.secure.egress.kernel.netns import Pair, enter, pair
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.ruleset import removal

DIRECT, PROXY, SQUID = 9000, 9001, 9002
LINK = "10gbit"
BIG = 4 * 10**18

REGISTER = f"""version = 1
[[flow]]
id = "replies"
owner = "bench"
purpose = "the transfer that is timed"
data_class = "public"
direction = "serve"
protocol = "tcp"
ports = [{DIRECT}]
destination = ["10.231.7.0/24"]
source = {{ uid = 0 }}
expires = 2099-01-01
budget = {{ hour = {BIG}, day = {BIG}, week = {BIG}, month = {BIG} }}
"""

SQUID_CONF = """http_port {port}
http_access allow all
cache deny all
access_log none
cache_log {folder}/cache.log
pid_filename {folder}/squid.pid
coredump_dir {folder}
delay_pools 1
delay_class 1 1
delay_parameters 1 2000000000/2000000000
delay_access 1 allow all
shutdown_lifetime 1 second
"""


def serve(port: int, count: int) -> None:
    """Answer every HTTP request with `count` zero bytes."""
    memory = os.memfd_create("zeros")
    os.ftruncate(memory, count)
    with socket.create_server(("", port)) as listener:
        while True:
            client = listener.accept()[0]
            threading.Thread(target=_answer, args=(client, memory, count), daemon=True).start()


def _answer(client: socket.socket, memory: int, count: int) -> None:
    with client, contextlib.suppress(ConnectionError):
        while client.recv(65_536):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count)
            at = 0
            while at < count:
                at += os.sendfile(client.fileno(), memory, at, count - at)


def proxy(port: int, origin: int) -> None:
    """Forward TCP as fast as Python can: both ways by splice through a pipe."""
    with socket.create_server(("", port)) as listener:
        while True:
            client = listener.accept()[0]
            upstream = _connected("127.0.0.1", origin)
            upstream.settimeout(None)  # A splice knows no time limit.
            for pair_ in ((client, upstream), (upstream, client)):
                threading.Thread(target=_splice, args=pair_, daemon=True).start()


def _splice(source: socket.socket, target: socket.socket) -> None:
    out, into = os.pipe()
    with contextlib.suppress(OSError):
        while count := os.splice(source.fileno(), into, 1 << 20):
            while count:
                count -= os.splice(out, target.fileno(), count)
        target.shutdown(socket.SHUT_WR)
    os.close(out)
    os.close(into)


def _connected(address: str, port: int) -> socket.socket:
    """Connect, once the server is up."""
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((address, port), timeout=60)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def fetch(address: str, port: int, count: int) -> tuple[float, float]:
    """Fetch the bytes once; return bits per second and this process's seconds of processor."""
    buffer = bytearray(1 << 20)
    with _connected(address, port) as link:
        target = f"http://127.0.0.1:{DIRECT}/x" if port == SQUID else "/x"
        head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{DIRECT}\r\nConnection: close\r\n\r\n"
        link.sendall(head.encode())
        begin, worked = time.perf_counter(), time.process_time()
        got = 0
        while got < count and (size := link.recv_into(buffer)):
            got += size
    if got < count:
        raise SystemExit(f"only {got} of {count} bytes came over port {port}")
    return got * 8 / (time.perf_counter() - begin), time.process_time() - worked


@contextlib.contextmanager
def processes(both: Pair, folder: Path, count: int, *, squid: bool) -> Iterator[list[int]]:
    """Run the origin, the proxy and Squid inside; hand out their process numbers."""
    here = [sys.executable, "-m", "bench.egress_throughput"]
    commands = [[*here, "--serve", str(count)], [*here, "--proxy"]]
    if squid:
        folder.chmod(0o777)  # Squid gives up root.
        conf = folder / "squid.conf"
        conf.write_text(SQUID_CONF.format(port=SQUID, folder=folder))
        commands.append(["squid", "-N", "-n", f"bench{os.getpid()}", "-f", str(conf)])
    running = [
        subprocess.Popen(
            enter(both.inside, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for command in commands
    ]
    try:
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.terminate()
            process.wait()


class Transfer(NamedTuple):
    """Bits per second, and seconds of processor per gigabyte."""

    rate: float
    cpu: float


def worked_s(pids: list[int]) -> float:
    """Seconds of processor that processes used so far, by clock_getcpuclockid(3)."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def measure(rounds: int, count: int, seed: int, link: str = "") -> dict[str, list[Transfer]]:
    """Run all variants in shuffled rounds; return the transfers by variant.

    `link` is the rate of the sender's device, as tc(8) writes it; without one, all on one core.
    """
    squid = shutil.which("squid") is not None
    chooser = random.Random(seed)  # noqa: S311 - an order, not a secret
    with (
        tempfile.TemporaryDirectory() as name,
        pair(f"shb{os.getpid()}") as both,
        contextlib.nullcontext() if link else one_core(),
    ):
        folder = Path(name)
        if link:
            limit = f"tc qdisc add dev {both.inside_interface} root tbf rate {link}"
            limit = f"{limit} burst 4mb latency 20ms"
            subprocess.run(enter(both.inside, limit.split()), check=True)
        kernel = NftKernel(both.inside)
        variants = {"unruled": DIRECT, "ruled": DIRECT, "tcp proxy": PROXY}
        variants |= {"squid delay pools": SQUID} if squid else {}
        result: dict[str, list[Transfer]] = {variant: [] for variant in variants}
        with processes(both, folder, count, squid=squid) as pids:
            for number in range(rounds + 1):
                order = list(variants.items())
                chooser.shuffle(order)
                for variant, port in order:
                    kernel.apply(removal())
                    if variant == "ruled":
                        enforcer(kernel, both, folder / f"state{number}").apply(first=True)
                    size = count // 10 if port == SQUID else count
                    before = worked_s(pids)
                    rate, cpu = outside(both, port, size)
                    cpu += worked_s(pids) - before
                    if number:  # The first round warms up.
                        result[variant].append(Transfer(rate, cpu / size * 1e9))
            kernel.apply(removal())
    return result


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def enforcer(kernel: NftKernel, both: Pair, folder: Path) -> Enforcer:
    """An enforcer with a memory of its own: a table that vanished would be charged in full."""
    return Enforcer(
        register=parse_register(REGISTER),
        plan=EgressPlan(
            bound=Bound(weight_bytes=10**12),
            link=Link((both.inside_interface,), 10**11, shape=False),
        ),
        store=StateFile(folder),
        audit=ChainedLog(folder / "audit.jsonl"),
        authorizer=RefuseAll(),
        kernel=kernel,
    )


def outside(both: Pair, port: int, count: int) -> tuple[float, float]:
    """Fetch from the outer namespace; see `fetch`."""
    command = [
        sys.executable,
        "-m",
        "bench.egress_throughput",
        "--fetch",
        both.inside_v4,
        str(port),
        str(count),
    ]
    done = subprocess.run(
        enter(both.outside, command), capture_output=True, text=True, check=True, timeout=120
    )
    rate, cpu = map(float, done.stdout.split())
    return rate, cpu


def main() -> None:
    """Be one of the processes of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int)
    parser.add_argument("--proxy", action="store_true")
    parser.add_argument("--fetch", nargs=3)
    options = parser.parse_args()
    if options.serve:
        serve(DIRECT, options.serve)
    elif options.proxy:
        proxy(PROXY, DIRECT)
    elif options.fetch:
        address, port, count = options.fetch
        print(*fetch(address, int(port), int(count)))
    else:
        parser.error("run it by `python -m bench --only egress_throughput`")


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's call
    """Measure all variants; a quick run takes few, small rounds."""
    rounds, megabytes = (3, 100) if quick else (40, 500)
    size = megabytes * 10**6
    return [
        table(measure(rounds, size, 7, LINK), megabytes, "over a link of 10 Gbit/s"),
        table(measure(rounds, size, 7), megabytes, "on one core, as fast as it goes"),
    ]


def table(found: dict[str, list[Transfer]], megabytes: int, way: str) -> Table:
    """Medians, and the median ratios to the unruled transfer of the same round."""
    base = found["unruled"]
    rows = []
    for variant, values in found.items():
        faster = [v.rate / b.rate for v, b in zip(values, base, strict=True)]
        cheaper = [b.cpu / v.cpu for v, b in zip(values, base, strict=True)]
        rows.append(
            (
                variant,
                f"{statistics.median(v.rate for v in values) / 1e9:.2f}",
                *_share(faster),
                f"{statistics.median(v.cpu for v in values):.2f}",
                *_share(cheaper),
                str(len(values)),
            )
        )
    note = (
        f"{megabytes} MB a transfer, a tenth of it through Squid. Processor time is that of the "
        "sender, the receiver and what is between them."
    )
    if "squid delay pools" not in found:
        note += " Squid is not installed: left out."
    return Table(
        title=f"Throughput of a permitted flow {way}",
        columns=(
            "variant",
            "Gbit/s (median)",
            "of unruled, by the clock",
            "95 % interval",
            "CPU s per GB",
            "of unruled, by processor time",
            "95 % interval ",
            "rounds",
        ),
        rows=tuple(rows),
        note=note,
        bars="of unruled, by the clock",
    )


def _share(ratios: list[float]) -> tuple[str, str]:
    ratios = sorted(ratios)
    low, high = median_interval(len(ratios))
    return f"{statistics.median(ratios):.1%}", f"{ratios[low]:.1%} to {ratios[high]:.1%}"


def median_interval(count: int) -> tuple[int, int]:
    """Ranks (from 0) between which the median lies with at least 95 %, by the sign test."""
    below, rank = 0.0, 0
    while rank < count // 2:
        below += math.comb(count, rank) / 2**count
        if below > 0.025:
            break
        rank += 1
    low = max(0, rank - 1)
    return low, count - 1 - low


if __name__ == "__main__":
    main()
