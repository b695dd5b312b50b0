"""CPU, delay, leaks, memory and size of the gateway, beside a bare proxy, LiteLLM and NeMo.

One mock upstream (200 deltas), one raw-socket client, the contestants interleaved round by round,
each server a process of its own. CPU time is the kernel's clock of the server's process, so a busy
machine disturbs it little. The peers are installed from PyPI on first use (`contestants/peers.py`).

Run: `python -m bench --only gateway`, or `python -m bench.gateway [--rounds N] [--no-peers]`.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from bench.contestants import client, leaks, peers
from bench.contestants.ours import HOLD
from bench.contestants.server import ROOT, Server, own
from bench.tables import Table

from safehold.testing.upstream import MockUpstream, SaidRun, Script

STREAMS = 40
PEER_STREAMS = 10
PEER_ROUNDS = 2
"""The peers take a hundred times longer."""
CROWD_S = 300.0
PEER_CROWD_S = 30.0
PASSING = "Safehold, pass-through"
GUARDED = f"Safehold, one regex rule, hold({HOLD})"
PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/responses")


class Contestant(msgspec.Struct):
    """A running server and what was measured of it."""

    name: str
    server: Server
    guarded: bool
    peer: bool = False
    leaks_only: bool = False
    size_mb: float | None = None
    burst_us: list[float] = []
    paced_us: list[float] = []
    first_s: list[float] = []
    memory_mb: tuple[float, bool] | None = None
    leaks: list[int] = []
    hung: int = 0

    def cpu_per_token(
        self, run: Callable[[int, int], Coroutine[Any, Any, list[float]]], count: int
    ) -> list[float]:
        """Return µs of the server's CPU per streamed token of one run; none if a stream hung.

        Raises:
            RuntimeError: A stream of ours hung.
        """
        before = self.server.cpu_s()
        ended = len(asyncio.run(run(self.server.port, count)))
        self.hung += count - ended
        if self.hung and not self.peer:
            raise RuntimeError(f"{self.name}: streams hung")
        spent = self.server.cpu_s() - before
        return [spent / (count * client.DELTAS) * 1e6] if ended == count else []


class Found(msgspec.Struct):
    """All contestants, and what needs no server."""

    rounds: int
    contestants: list[Contestant]
    direct_s: float
    own_leaks: dict[str, list[int]]
    install_mb: float | None


def enter(stack: ExitStack, folder: Path, *, with_peers: bool) -> tuple[Server, list[Contestant]]:
    """Start the mock and every contestant that can be started."""
    mock = own("mock", "mock")
    stack.callback(mock.stop)
    url = f"http://127.0.0.1:{mock.port}/v1"
    rows = [
        Contestant("bare proxy", own("bare", "bare", url), guarded=False),
        Contestant(PASSING, own("open", "ours", url, "none", f"{folder}/none"), guarded=False),
        Contestant(GUARDED, own("rule", "ours", url, "rule", f"{folder}/rule"), guarded=True),
    ]
    for row in rows:
        stack.callback(row.server.stop)
    for number, peer in enumerate(peers.PEERS if with_peers else ()):
        place = peers.environment(peer.package)
        if place is None:
            continue
        print(f"{peer.name} ...", file=sys.stderr)
        try:
            server = peer.serve(place, url, folder / str(number))
        except RuntimeError as error:
            print(f"{error}; left out", file=sys.stderr)
            continue
        stack.callback(server.stop)
        rows.append(
            Contestant(
                peer.name,
                server,
                guarded=peer.guarded,
                peer=True,
                leaks_only=peer.leaks_only,
                size_mb=peers.size_mb(place),
            )
        )
    return mock, rows


def own_leaks(folder: Path) -> dict[str, list[int]]:
    """Return the marker's characters that the gateway let out, by protocol, case by case."""
    found: dict[str, list[int]] = {}
    with MockUpstream() as upstream:
        server = own("leaks", "ours", upstream.url, "rule", f"{folder}/leaks")
        try:
            for path in PATHS:
                body: dict[str, Any] = {"model": "m", "stream": True}
                if path == "/v1/responses":
                    body["input"] = "hello"
                else:
                    body["messages"] = [{"role": "user", "content": "hello"}]
                    body["max_tokens"] = 999
                for position, parts in leaks.cases():
                    words = [f"w{number % 10} " for number in range(leaks.DELTAS)]
                    words[position:position] = leaks.cut(parts)
                    upstream.script = Script(said=(SaidRun(tuple(words)),))
                    came = asyncio.run(leaks.ask(server.port, client.post(path, body), position))
                    found.setdefault(path, []).append(came)
        finally:
            server.stop()
    return found


def chat_leaks(row: Contestant) -> None:
    """Find what a contestant lets out on Chat Completions, at a pace of 2 ms a token."""
    for position, parts in leaks.cases():
        asked = client.request(leaks.DELTAS, 2, position, parts)
        row.leaks.append(asyncio.run(leaks.ask(row.server.port, asked, position)))


def one_round(row: Contestant) -> None:
    """Let a contestant stream in a burst, paced, and for its first text."""
    count = PEER_STREAMS if row.peer else STREAMS
    row.burst_us += row.cpu_per_token(client.burst, count)
    row.paced_us += row.cpu_per_token(client.paced, client.PACED_STREAMS)
    row.first_s.append(asyncio.run(client.first_text(row.server.port)))


def measure(rounds: int, *, with_peers: bool, whole: bool) -> Found:
    """Run every contestant, interleaved."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        mock, rows = enter(stack, folder, with_peers=with_peers)
        for row in rows:
            asyncio.run(client.burst(row.server.port, 3))
        for number in range(rounds):
            for row in rows:
                if not row.leaks_only and (number < PEER_ROUNDS or not row.peer):
                    one_round(row)
        direct = [asyncio.run(client.first_text(mock.port)) for _ in range(rounds)]
        for row in rows:
            if row.guarded:
                chat_leaks(row)
        leaked = own_leaks(folder)
        for row in rows if whole else ():
            if not row.leaks_only:
                limit_s = PEER_CROWD_S if row.peer else CROWD_S
                row.memory_mb = asyncio.run(client.crowd(row.server, limit_s))
        size = install_mb(folder) if whole else None
    return Found(rounds, rows, statistics.median(direct), leaked, size)


def install_mb(folder: Path) -> float:
    """Install the package without extras into a new environment; return its size, no bytecode."""
    place = folder / "install"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    target = next((place / "lib").glob("python*")) / "site-packages"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(ROOT)], check=True, stdout=sys.stderr)
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6


# -- the tables ----------------------------------------------------------------------------------


def figures(values: list[float], floor: float) -> tuple[str, str, str]:
    """Return the median of some figures, their range, and the median over a floor."""
    if not values:
        return ("0 (not measured)", "", "")
    middle = statistics.median(values)
    return (f"{middle:,.1f}", f"{min(values):,.1f} to {max(values):,.1f}", f"{middle / floor:,.1f}")


def cpu_table(found: Found) -> Table:
    """Return CPU per token; the ratio is to the bare proxy of the same run."""
    floor = statistics.median(found.contestants[0].burst_us)
    floor_paced = statistics.median(found.contestants[0].paced_us)
    rows = []
    for row in (row for row in found.contestants if not row.leaks_only):
        name = row.name + (f" ({row.hung} streams not done in ten minutes)" if row.hung else "")
        rows.append((name, *figures(row.burst_us, floor), *figures(row.paced_us, floor_paced)))
    return Table(
        title="CPU per streamed token",
        columns=("contestant", "burst, µs", "range", "x bare", "paced, µs", "range", "x bare"),
        rows=tuple(rows),
        note=(
            f"{client.DELTAS} deltas; burst: one stream after another; paced: "
            f"{client.PACED_STREAMS} streams at {client.PACED_MS} ms a token. Medians of "
            f"{found.rounds} rounds ({PEER_ROUNDS} of the peers). Asked of ours: pass-through 20 "
            "and 60 µs, one rule 40 and 90 µs. The bare proxy looks at nothing and keeps nothing; "
            "ours keeps two durable rows a stream, whose cost is in its burst."
        ),
        bars="burst, µs",
    )


def delay_table(found: Found) -> Table:
    """Return the delay to the first text, at a model's pace."""
    rows = [("direct", f"{found.direct_s * 1000:,.0f}", "")]
    for row in (row for row in found.contestants if not row.leaks_only):
        first = statistics.median(row.first_s)
        rows.append((row.name, f"{first * 1000:,.0f}", f"{(first - found.direct_s) * 1000:,.0f}"))
    held = HOLD * client.FIRST_MS
    ours = statistics.median(found.contestants[2].first_s) - found.direct_s - held / 1000
    return Table(
        title="Time to the first text",
        columns=("contestant", "ms", "over direct, ms"),
        rows=tuple(rows),
        note=(
            f"{client.FIRST_STREAMS} streams at {client.FIRST_MS} ms a token, medians. hold({HOLD})"
            f" waits for {HOLD} tokens ({held} ms) by design; on top of direct and of these it "
            f"took {ours * 1000:.0f} ms (60 allowed). Windows and chunks of 5 wait less and leak: "
            "see below."
        ),
    )


def leak_table(found: Found) -> Table:
    """Return what was let out of the marker."""
    all_of = len(leaks.MARKER)
    listed = [(f"{GUARDED}: {path}", counts) for path, counts in found.own_leaks.items()] + [
        (f"{row.name}: {PATHS[0]}, paced", row.leaks) for row in found.contestants if row.guarded
    ]
    rows = [
        (
            name,
            str(len(counts)),
            str(sum(1 for count in counts if count)),
            str(sum(1 for count in counts if count == all_of)),
            f"{max(counts) / all_of:.0%}",
        )
        for name, counts in listed
    ]
    return Table(
        title="Characters of a forbidden phrase that reached the client",
        columns=("contestant", "cases", "with any of it", "with all of it", "most of it"),
        rows=tuple(rows),
        note=(
            f"{len(leaks.POSITIONS)} positions in {leaks.DELTAS} deltas, times the phrase in 1 to "
            f"{max(leaks.PARTS)} deltas. The peers were asked on Chat Completions only."
        ),
    )


def weight_table(found: Found) -> Table:
    """Return memory and installed size."""
    rows = []
    for row in (row for row in found.contestants if not row.leaks_only):
        memory = ""
        if row.memory_mb is not None:
            highest, ended = row.memory_mb
            memory = f"{highest:,.0f}" + ("" if ended else f" (cut after {PEER_CROWD_S:.0f} s)")
        size = "" if row.size_mb is None else f"{row.size_mb:,.0f}"
        if row.name == GUARDED and found.install_mb is not None:
            size = f"{found.install_mb:,.0f}"
        rows.append((row.name, memory, size))
    return Table(
        title="Memory and size",
        columns=("contestant", "memory, MB", "installed, MB"),
        rows=tuple(rows),
        note=(
            f"The highest resident memory while {client.MEMORY_STREAMS} streams of "
            f"{client.MEMORY_DELTAS} tokens ran at once; the packages of the gateway alone, without"
            " the bytecode that Python makes of them (150 MB each is asked of ours)."
        ),
    )


def tables(found: Found, *, whole: bool) -> list[Table]:
    """Return every table."""
    return [
        cpu_table(found),
        delay_table(found),
        leak_table(found),
        *([weight_table(found)] if whole else []),
    ]


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - what `bench.__main__` calls
    """Return the tables of this benchmark."""
    found = measure(1 if quick else 5, with_peers=not quick, whole=not quick)
    return tables(found, whole=not quick)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--whole", action="store_true", help="memory and installed size too")
    given = parser.parse_args()
    found = measure(given.rounds, with_peers=not given.no_peers, whole=given.whole)
    for table in tables(found, whole=given.whole):
        print(table.markdown())


if __name__ == "__main__":
    main()
