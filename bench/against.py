"""Two revisions of this repository in one run: CPU time of the same work, in pairs that take turns.

    python -m bench --against REV --only guard              REV beside the working tree
    python -m bench --against REV --new REV2 --only gateway REV beside another revision

Each revision is a git worktree of its own, imported in processes of its own. `guard` feeds benign
prose to a session with the revision's own stock bundle, or with one written rule; `gateway` streams
through a served gateway with one written rule. A ratio is of CPU time within one pair: load on the
machine reaches both. Its bound is the exact one of a median, from the order of the ratios.
"""

import asyncio
import contextlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.contestants import client
from bench.contestants.server import Server, own
from bench.tables import Table

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("guard", "gateway")
GUARDS = (("stock", "session, own stock bundle", 2), ("rule", "session, a rule", 40))
"""Each guard, its name, and how often it reads all texts: about half a second of work a run."""
_ALLOWED = 1.05
"""Below this a difference is not told from the machine's own."""

# Runs in each tree; the names are those that its own `bench.guard` imports.
_GUARD = """
import sys, time
from pathlib import Path
from bench import guard as b
texts = Path(sys.argv[2]).read_text("utf-8").split("\\0")
if sys.argv[1] == "rule":
    from safehold.testing.guards import rule_guard
    guard, ask = rule_guard(), None
else:
    bundle = b.opened()
    guard, ask = b.Guard(bundle.cascade, b.ViewDecoder()), b.Watched(bundle)
for line in sys.stdin:
    began = time.process_time()
    for text in texts * int(sys.argv[3]):
        session = guard.session(b.user_says("Please go on."), b.SessionPolicy())
        for delta in b.deltas(text):
            if isinstance(b.drive(session.feed(b.Lane(), delta), ask), b.Block):
                break
        else:
            b.drive(session.finish(), ask)
    print(time.process_time() - began - (ask.seconds if ask else 0), flush=True)
    if ask:
        ask.seconds = 0.0
"""


@contextlib.contextmanager
def tree(revision: str | None) -> Iterator[Path]:
    """Give the files of a revision, checked out for the time being; None is the working tree."""
    if revision is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), revision], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


def environment(place: Path) -> dict[str, str]:
    """Return the environment in which a tree imports its own files."""
    return os.environ | {"PYTHONPATH": f"{place / 'src'}:{place}"}


@contextlib.contextmanager
def guard(place: Path, kind: str, texts: Path, times: int) -> Iterator[Callable[[], float]]:
    """Give a call that feeds all texts in a process of that tree, and returns its CPU seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _GUARD, kind, str(texts), str(times)],
        cwd=place, env=environment(place), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes")
    asks, answers = process.stdin, process.stdout

    def once() -> float:
        asks.write("go\n")
        asks.flush()
        return float(answers.readline())

    try:
        yield once
    finally:
        asks.close()
        process.wait(60)


@contextlib.contextmanager
def gateway(place: Path, url: str, folder: Path, streams: int) -> Iterator[Callable[[], float]]:
    """Give a call that streams through that tree's gateway, and returns its CPU seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.contestants.ours", url, "rule", str(folder)],
        cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    line = process.stdout.readline() if process.stdout else b""
    if not line.strip().isdigit():
        process.kill()
        raise RuntimeError(f"{place}: the gateway did not start")
    server = Server("ours", process, int(line))

    def once() -> float:
        before = server.cpu_s()
        if len(asyncio.run(client.burst(server.port, streams))) != streams:
            raise RuntimeError("a stream hung")
        return server.cpu_s() - before

    try:
        yield once
    finally:
        server.stop()


def upper(ratios: list[float]) -> float:
    """Return the exact one-sided 95 % upper bound of the median ratio; infinite with too few."""
    ordered, count = sorted(ratios), len(ratios)
    below = 0.0
    for rank in range(count):
        below += math.comb(count, rank) / 2**count
        if below >= 0.95:
            return ordered[rank]
    return math.inf


def paired(old: Callable[[], float], new: Callable[[], float], pairs: int) -> list[float]:
    """Return new over old, pair by pair; who goes first takes turns."""
    old(), new()
    ratios = []
    for number in range(pairs):
        if number % 2:
            after = new()
            before = old()
        else:
            before = old()
            after = new()
        ratios.append(after / before)
    return ratios


def row(name: str, ratios: list[float]) -> tuple[str, ...]:
    """Return a row of the table."""
    middle, bound = statistics.median(ratios), upper(ratios)
    verdict = "slower" if middle > _ALLOWED else "no slower"
    return (
        name,
        str(len(ratios)),
        f"{middle:.3f}",
        f"{min(ratios):.3f} to {max(ratios):.3f}",
        f"{bound:.3f}" if math.isfinite(bound) else "too few pairs",
        verdict,
    )


def compare(kinds: list[str], old: str, new: str | None, *, pairs: int, quick: bool) -> Table:
    """Measure both revisions in one run."""
    from bench.guard import prose  # noqa: PLC0415 - of the working tree, for both

    rows = []
    with tree(old) as before, tree(new) as after, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if "guard" in kinds:
            texts = folder / "texts"
            texts.write_text("\0".join(prose(6 if quick else 24)), encoding="utf-8")
            for kind, name, times in GUARDS:
                with (
                    guard(before, kind, texts, times) as one,
                    guard(after, kind, texts, times) as other,
                ):
                    rows.append(row(name, paired(one, other, pairs)))
        if "gateway" in kinds:
            mock = own("mock", "mock")
            url = f"http://127.0.0.1:{mock.port}/v1"
            streams = 10 if quick else 40
            try:
                with (
                    gateway(before, url, folder / "old", streams) as one,
                    gateway(after, url, folder / "new", streams) as other,
                ):
                    rows.append(row("gateway, a rule, burst", paired(one, other, pairs)))
            finally:
                mock.stop()
    return Table(
        title=f"CPU time of {new or 'the working tree'} over {old}",
        columns=("work", "pairs", "median ratio", "range", "95 % upper bound", "verdict"),
        rows=tuple(rows),
        note=f"A median of at most {_ALLOWED} is no slower.",
    )
