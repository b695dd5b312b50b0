"""Detection's figures: speed, scale, honest accounts, a search, campaigns, and three askers.

`python -m bench.monitoring [--quick] [--only NAME] [--exchanges N]`; NAME is one of speed, scale,
accounts, campaigns, askers (bench/askers.py); N is for the speed alone. The re-scan under
`kill -9`, by the pool and by Ray, is `scripts/outside ray`.
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench.askers import askers, dice
from bench.tables import Table
from sqlalchemy import insert

from safehold.detect.monitoring.accounts import (
    Caps,
)
from safehold.detect.monitoring.campaigns import Background, Sighting, campaigns
from safehold.detect.monitoring.scan.guard_scanners import OfflineGuard
from safehold.detect.monitoring.scan.interface import ScanLimits, ScannerSpec
from safehold.detect.monitoring.scan.scanners import load_scanner
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.detect.monitoring.scores import by_account
from safehold.detect.monitoring.simulate import TAILS, simulate
from safehold.detect.monitoring.tables import RESULTS, MonitorStore
from safehold.detect.redteam.questions import questions
from safehold.guard.ledger.joined import joined, watermark
from safehold.guard.ledger.reader import LedgerReader
from safehold.stats import lower_bound
from safehold.testing.monitoring import fill

DAY_S = 86_400.0
WHOLE = 1_000_000


def megabytes() -> float:
    """Return the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- speed and scale ---------------------------------------------------------------------------


def texts_of_all_kinds(count: int) -> list[str]:
    """Return requests: harmless questions, look-alikes, and a hundredth that the guard stops."""
    found, chance = questions("homebrewing"), dice(3)
    benign = [one.text for one in found.benign]
    asks = [ask for topic in found.topics for ask in topic.questions]
    return [f"{chance.choice(asks if n % 100 == 0 else benign)} ({n})" for n in range(count)]


def speed(quick: bool, exchanges: int = 3_000) -> Table:  # noqa: FBT001 - the runner's call
    """CPU of the re-scan against the same guard over the same exchanges without queue and SQL."""
    count = 300 if quick else exchanges
    with tempfile.TemporaryDirectory() as name:
        ledger, monitor = str(Path(name) / "l.db"), str(Path(name) / "m.db")
        fill(ledger, [(f"a{n % 50}", text, False) for n, text in
                      enumerate(texts_of_all_kinds(count))])  # fmt: skip
        with LedgerReader.open(ledger).snapshot() as connection:
            rows = list(joined(connection, after=0, through=watermark(connection)))
        guard = OfflineGuard({})
        worker = ScanWorker(ScanJob(ledger, monitor, ScannerSpec("session"), load_scanner), "w")
        worker.queue.plan(LedgerReader.open(ledger), name="session")
        for one in rows[:20]:
            guard.judge(one.exchange, one.final.delivered)
        # They take turns, so that a busy machine is unfair to neither.
        bare = scan = 0.0
        size = ScanLimits().unit_rows
        parts = iter([rows[n : n + size] for n in range(0, len(rows), size)])
        working = True
        while working:
            part = next(parts, [])
            began = time.process_time()
            for one in part:
                guard.judge(one.exchange, one.final.delivered)
            bare += time.process_time() - began
            began = time.process_time()
            working = worker.step()
            scan += time.process_time() - began
        for part in parts:
            began = time.process_time()
            for one in part:
                guard.judge(one.exchange, one.final.delivered)
            bare += time.process_time() - began
    each = scan / count
    return Table(
        "Re-scan: CPU of the queue and the database",
        ("exchanges", "guard alone", "re-scan", "speed", "a million (extrapolated)"),
        ((str(count), f"{bare / count * 1e3:.1f} ms", f"{each * 1e3:.1f} ms",
          f"{bare / scan:.1%}", f"{each * WHOLE / 3600:.1f} core hours"),),
    )  # fmt: skip


def scale(quick: bool) -> Table:  # noqa: FBT001 - the runner's call
    """A million recorded scores: aggregated by account, clustered along a background."""
    count, chance = (100_000 if quick else WHOLE), np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as name:
        store = MonitorStore.open(str(Path(name) / "m.db"))
        for first in range(0, count, 20_000):
            values = chance.beta(0.3, 8, 20_000)
            with store.begin() as connection:
                connection.execute(insert(RESULTS), [
                    {"scanner": "s", "seq": first + n, "decision_id": f"d{first + n}",
                     "account": f"a{(first + n) * 7919 % 50_000}", "happened_at": float(first + n),
                     "value": float(value), "label": "allow"}
                    for n, value in enumerate(values)
                ])  # fmt: skip
        before = megabytes()
        began = time.process_time()
        accounts = exchanges = 0
        for one in by_account(store, "s"):
            accounts, exchanges = accounts + 1, exchanges + one.exchanges
        aggregated = time.process_time() - began
        after_sums = megabytes()
    words = [f"w{n}" for n in range(40_000)]
    said, usual, window, found = dice(9), Background(), [], 0
    began = time.process_time()
    for n in range(count):
        text = " ".join(said.choices(words, k=20))
        usual.learn(text, at=float(n))
        if n % 50 == 0:
            window.append(Sighting(decision_id=str(n), account=f"a{n}", text=text, stopped=False))
        if len(window) == 2_000:
            found += len(campaigns(window, usual))
            window.clear()
    clustered = time.process_time() - began
    assert exchanges == count
    return Table(
        "Scale",
        ("recorded scores", "accounts", "aggregated", "learned and clustered", "memory before",
         "after sums", "after clusters"),
        ((f"{count:,}", f"{accounts:,}", f"{aggregated:.1f} CPU s", f"{clustered:.0f} CPU s",
          f"{before:.0f} MB", f"{after_sums:.0f} MB", f"{megabytes():.0f} MB"),),
    )  # fmt: skip


# -- accounts ----------------------------------------------------------------------------------


def accounts(quick: bool) -> Table:  # noqa: FBT001 - the runner's call
    """Honest accounts of three tails and a search of one account, by simulation."""
    count = 5_000 if quick else 100_000
    rows = []
    for tail, law in TAILS.items():
        done = simulate(tail=law, accounts=count, walk_share=0.2, caps=Caps(), seed=11)
        rows.append((
            tail, f"{done.alarmed} of {count:,}", f"{done.alarmed_upper:.1e}",
            f"{done.median:.0f}", f"{done.q95:.0f}",
            f"{done.within_660} of {done.found_of}",
        ))  # fmt: skip
    return Table(
        "Accounts: honest ones alarmed, and a search of one account (walk share 0.2)",
        ("tail", "alarmed", "at most", "median queries", "95 % quantile", "before its own 660"),
        tuple(rows),
        note="Simulated; the caps are the defaults, set on another seed.",
    )


def spread_search(quick: bool) -> Table:  # noqa: FBT001 - the runner's call
    """An optimising attacker over 1,000 accounts: after how many queries the campaign opens."""
    opened, runs = [], 3 if quick else 20
    for seed in range(runs):
        chance = dice(f"spread/{seed}")
        words = [f"w{chance.randrange(10**6)}" for _ in range(8_000)]

        def text(size: int, words: list[str] = words, chance: random.Random = chance) -> str:
            return " ".join(chance.choices(words, k=size))

        usual = Background()
        for n in range(2_000):
            usual.learn(text(40), at=float(n), stopped=n % 300 == 0)
        best, seen, at = text(60), [], None
        for query in range(6_600):
            varied = " ".join(
                chance.choice(words) if chance.random() < 0.1 else word for word in best.split()
            )
            stopped = chance.random() < 0.45
            if not stopped and chance.random() < 0.2:
                best = varied
            about = {"decision_id": f"q{query}", "account": f"a{query % 1_000}"}
            seen.append(Sighting(**about, text=varied, stopped=stopped))
            if query % 5 == 4 and any(one.alarm for one in campaigns(seen[-400:], usual)):
                at = query + 1
                break
        opened.append(at)
    found = sorted(one for one in opened if one is not None)
    return Table(
        "A search over 1,000 accounts: queries in all until the campaign opens",
        ("runs", "opened within 6,600", "median", "most"),
        ((str(runs), f"{len(found)} of {runs} (at least {lower_bound(len(found), runs):.0%})",
          str(found[len(found) // 2]) if found else "-", str(found[-1]) if found else "-"),),
    )  # fmt: skip


# -- campaigns ---------------------------------------------------------------------------------


def planted(quick: bool) -> Table:  # noqa: FBT001 - the runner's call
    """Thirty wrappers of twelve variants, 0 to 30 % of words changed, among benign texts."""
    rows = []
    for seed in range(1 if quick else 3):
        chance = dice(f"planted/{seed}")
        words = [f"w{n}" for n in range(3_000)]
        weights = [1 / (n + 1) for n in range(len(words))]

        def text(size: int, chance: random.Random = chance, words: list[str] = words,
                 weights: list[float] = weights) -> str:  # fmt: skip
            return " ".join(chance.choices(words, weights, k=size))

        usual = Background()
        for n in range(2_250):
            usual.learn(text(60), at=float(n), stopped=n % 300 == 0)
        seen = [
            Sighting(decision_id=f"b{n}", account=f"b{n}", text=text(60), stopped=n % 300 == 0)
            for n in range(2_250)
        ]
        for wrapper in range(30):
            base = text(60).split()
            for variant in range(12):
                share = 0.3 * variant / 11
                changed = [text(1) if chance.random() < share else word for word in base]
                about = {"decision_id": f"{wrapper}/{variant}", "account": f"p{wrapper}/{variant}"}
                said = " ".join(changed) + " " + text(10)
                seen.append(Sighting(**about, text=said, stopped=chance.random() < 0.5))
        chance.shuffle(seen)
        found = campaigns(seen, usual)
        pairs = mixed = benign = 0
        for one in found:
            ids = [name for name in one.decision_ids if "/" in name]
            kinds = {name.split("/")[0] for name in ids}
            mixed += len(kinds) > 1
            benign += bool(ids) and len(ids) < len(one.decision_ids)
            by = [sum(name.startswith(f"{kind}/") for name in ids) for kind in kinds]
            pairs += sum(size * (size - 1) // 2 for size in by)
        false = sum(one.alarm and all(i.startswith("b") for i in one.decision_ids) for one in found)
        rows.append((str(seed), f"{pairs} of {30 * 66} ({pairs / (30 * 66):.1%})", str(mixed),
                     str(benign), str(false)))  # fmt: skip
    return Table(
        "Planted campaigns (30 of 12 variants, 0-30 % of words changed) among 2,250 benign texts",
        ("seed", "pairs joined", "mixed clusters", "planted with benign texts", "benign alarms"),
        tuple(rows),
    )


PARTS: dict[str, Callable[[bool], list[Table]]] = {
    "speed": lambda quick: [speed(quick)],
    "scale": lambda quick: [scale(quick)],
    "accounts": lambda quick: [accounts(quick), spread_search(quick)],
    "campaigns": lambda quick: [planted(quick)],
    "askers": askers,
}


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's call
    """Measure everything."""
    return [table for part in PARTS.values() for table in part(quick)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--exchanges", type=int, default=3_000)
    given = parser.parse_args()
    PARTS["speed"] = lambda quick: [speed(quick, given.exchanges)]
    for name, part in PARTS.items():
        if given.only in {None, name}:
            for table in part(given.quick):
                print(table.markdown(), flush=True)
