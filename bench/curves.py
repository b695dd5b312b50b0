"""Cost as the work grows: CPU seconds at three sizes, and the exponent between the last two.

An exponent of 1 means that ten times the work costs ten times the time; 0 that it costs the same.
Each point has a process of its own, start-up taken off. `docs/curves.json` keeps the last
release's exponents; `make curves` prints both, and one that grew by 0.2 ends with status 1.
"""

import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.tables import Table

from safehold.guard.gateway.access.store import MemoryStore
from safehold.guard.ledger import retention
from safehold.guard.ledger.coverage import StallLimits, audit, audit_since
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.writer import Ledger
from safehold.guard.scorers.rules import Rule, RuleSet, RuleStream
from safehold.guard.scorers.similar import KnownAttack
from safehold.secure.egress.declare.register import parse_register
from safehold.testing.egress import row
from safehold.testing.ledger import NOW, RowMaker
from safehold.testing.trust import vetted
from safehold.trust.exemptions import (
    Caller,
    Exemption,
    ExemptionAction,
    ExemptionBook,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
)

KEPT = Path(__file__).resolve().parent.parent / "docs" / "curves.json"
GREW = 0.2
LIMIT_S = 900
Run = Callable[[int], Callable[[], Any]]


def _ledger(n: int, *, old: int) -> str:
    """Return a ledger of `n` exchanges, `old` of them too old to keep."""
    url = f"{tempfile.mkdtemp()}/ledger.db"
    rows = RowMaker()

    async def fill() -> None:
        ledger = await Ledger.open(url)
        for start in range(0, n, 500):
            some: list[Any] = []
            for number in range(start, min(start + 500, n)):
                at = 0.0 if number < old else NOW
                some += [rows.prompt(f"d{number}", at=at), rows.final(f"d{number}", at=at)]
            await ledger.append(*some)
        await ledger.close()

    asyncio.run(fill())
    return url


def prune(n: int) -> Callable[[], Any]:
    """Half of a ledger pruned."""
    url = _ledger(n, old=n // 2)
    return lambda: retention.prune(url, older_than_s=86_400, clock=lambda: NOW)


def coverage(n: int) -> Callable[[], Any]:
    """The coverage audit of a ledger."""
    reader = LedgerReader.open(_ledger(n, old=0))
    return lambda: audit(reader, now=NOW, limits=StallLimits())


def coverage_on(n: int) -> Callable[[], Any]:
    """The coverage audit that goes on from a mark below which n exchanges lie."""
    url = _ledger(n, old=0)
    _, mark = audit_since(None, LedgerReader.open(url), now=NOW, limits=StallLimits())
    rows = RowMaker()

    async def more() -> None:
        ledger = await Ledger.open(url)
        for number in range(1_000):
            await ledger.append(rows.prompt(f"new{number}"), rows.final(f"new{number}"))
        await ledger.close()

    asyncio.run(more())
    reader = LedgerReader.open(url)
    return lambda: audit_since(mark, reader, now=NOW, limits=StallLimits())


def written_rules(n: int) -> Callable[[], Any]:
    """1,000 deltas of 40 characters under n written rules."""
    rules = RuleSet([Rule(f"r{i}", "c/d", rf"marker{i}\s+protocol") for i in range(n)])

    def go() -> None:
        stream = RuleStream(rules)
        for _ in range(1000):
            stream.feed("quite harmless words of some forty letters ")

    return go


def known_attacks(n: int) -> Callable[[], Any]:
    """1,000 deltas of 40 characters beside n known attacks of 400 characters."""
    known = [
        KnownAttack(id=f"k{i}", clause="c/d", text=" ".join(f"word{i}x{j}" for j in range(40)))
        for i in range(n)
    ]
    rules = RuleSet([], known)

    def go() -> None:
        stream = RuleStream(rules)
        for _ in range(1000):
            stream.feed("quite harmless words of some forty letters ")

    return go


def exemptions(n: int) -> Callable[[], Any]:
    """10,000 lookups in a book of n exemptions."""

    def one(number: int) -> Exemption:
        terms = ExemptionTerms(
            subject=Subject(SubjectKind.ORGANISATION, f"org-{number}"),
            relaxations=(Relaxation("c", ExemptionAction.AUDIT),),
            surfaces=("api",),
            use_case="u",
            seats=2,
            rate_per_hour=3,
            vetting=vetted(),
        )
        return Exemption(grant=f"g{number}", terms=terms, not_before=0, expires=10**9)

    book = ExemptionBook(tuple(map(one, range(n))), frozenset({"c"}))
    caller = Caller(organisation=f"org-{n - 1}", user="u", key="k", use_case="u")

    def go() -> None:
        for _ in range(10_000):
            book.action_for(caller, "c", "api", 5)

    return go


def register(n: int) -> Callable[[], Any]:
    """A register of n flows read and checked."""
    nets = [f'["10.{i // 256}.{i % 256}.0/24"]' for i in range(n)]
    text = "\n".join(row(f"f{i}", destination=net) for i, net in enumerate(nets))
    return lambda: parse_register("version = 1\n" + text)


def conversation(n: int) -> Callable[[], Any]:
    """A conversation of n turns kept, each turn on top of the last."""
    store = MemoryStore()

    def go() -> None:
        async def turns() -> None:
            for number in range(n):
                await store.put(f"history:{number}", b"x" * 1000, 3600)
                await store.get(f"history:{number}")

        asyncio.run(turns())

    return go


CURVES: dict[str, tuple[Run, tuple[int, int, int], float]] = {
    "ledger prune, half": (prune, (1_000, 10_000, 40_000), 1.1),
    "ledger coverage": (coverage, (1_000, 10_000, 40_000), 1.1),
    "ledger coverage, 1,000 exchanges after a mark": (coverage_on, (1_000, 10_000, 40_000), 0.5),
    "written rules, 1,000 deltas": (written_rules, (1, 100, 1_000), 0.5),
    "known attacks, 1,000 deltas": (known_attacks, (1, 100, 1_000), 0.5),
    "exemptions, 10,000 lookups": (exemptions, (10, 1_000, 10_000), 0.2),
    "egress register": (register, (10, 100, 1_000), 1.2),
    "responses kept": (conversation, (1_000, 10_000, 40_000), 1.1),
}
"""Each curve: what runs, at which sizes, and the exponent that it may have."""


def point(name: str, size: int) -> float:
    """Return the CPU seconds of one point, in a process of its own."""
    command = [sys.executable, "-m", "bench.curves", name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return float(done.stdout.split()[-1])


def measured(sizes: tuple[int, int, int], name: str) -> tuple[list[float], float]:
    """Return the CPU seconds at each size, and the exponent between the last two."""
    seconds = [point(name, size) for size in sizes]
    ratio = max(seconds[2], 1e-4) / max(seconds[1], 1e-4)
    return seconds, math.log(ratio) / math.log(sizes[2] / sizes[1])


def run(*, quick: bool = False) -> list[Table]:
    """Measure every curve."""
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    rows = []
    for name, (_, sizes, most) in CURVES.items():
        used = (sizes[0], sizes[0], sizes[1]) if quick and sizes[0] > 1 else sizes
        seconds, exponent = measured(used, name)
        before = kept.get(name)
        rows.append(
            (
                name,
                " / ".join(f"{size:,}" for size in used),
                " / ".join(f"{one:.3f}" for one in seconds),
                f"{exponent:.2f}",
                f"{most:.1f}",
                "-" if before is None else f"{before:.2f}",
            )
        )
        print(*rows[-1], sep="  ", flush=True)
    head = ("curve", "sizes", "CPU s", "exponent", "at most", "last release")
    return [Table(title="Cost as the work grows", columns=head, rows=tuple(rows))]


def main(arguments: list[str]) -> int:
    """Measure one point (NAME SIZE), or every curve; `--keep` writes them as the release's."""
    if len(arguments) == 2:
        go = CURVES[arguments[0]][0](int(arguments[1]))
        began = time.process_time()
        go()
        print(time.process_time() - began)
        return 0
    (table,) = run()
    exponents = {str(row[0]): float(row[3]) for row in table.rows}
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    if "--keep" in arguments:
        KEPT.write_text(json.dumps(exponents, indent=2) + "\n")
    worse = [name for name, value in exponents.items() if value > CURVES[name][2]]
    worse += [name for name, value in exponents.items() if value > kept.get(name, value) + GREW]
    for name in sorted(set(worse)):
        print(f"grew too fast: {name}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
