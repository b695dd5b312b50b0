"""Red-team runs: what got through, family by clause, each with its n and bound."""

import functools
from collections import defaultdict
from pathlib import Path

import msgspec

from safehold.console.shell.access import PageVisit
from safehold.console.shell.web import NotFoundError
from safehold.console.sources import ConsoleSources
from safehold.detect.redteam.interface import AttackOutcome, AttemptResult
from safehold.detect.redteam.plan import AttackPlan
from safehold.detect.redteam.report import RedteamReport, Slice, summarise
from safehold.detect.redteam.run import read_record
from safehold.detect.redteam.transforms import transform
from safehold.errors import SafeholdError
from safehold.stats import Rate

_SCORED = {AttackOutcome.COMPLIED, AttackOutcome.REFUSED_BY_MODEL, AttackOutcome.BLOCKED_BY_GUARD}
_MOST_RUNS = 50


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded run."""

    name: str
    at: float
    domain: str
    depth: int
    attempts: int
    success: Rate
    false_alarms: Rate
    trouble: str = ""


class RedteamRuns(msgspec.Struct, frozen=True):
    """All records in the folder, newest first."""

    rows: tuple[RunLine, ...]
    said: str


class HeatRow(msgspec.Struct, frozen=True):
    """One family of disguises: what got through of each clause, in the clauses' order."""

    family: str
    cells: tuple[Rate, ...]
    total: Rate


class RedteamRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run in full."""

    name: str
    plan: AttackPlan
    report: RedteamReport
    clauses: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    tables: dict[str, tuple[Slice, ...]]


def runs(visit: PageVisit[ConsoleSources]) -> RedteamRuns:
    """Return the runs."""
    folder = visit.sources.redteam
    if folder is None:
        return RedteamRuns((), "no folder of records is named (option --redteam)")
    files = sorted(folder.glob("*.jsonl"), key=lambda one: -one.stat().st_mtime)
    return RedteamRuns(tuple(_line(one) for one in files[:_MOST_RUNS]), "")


def run(visit: PageVisit[ConsoleSources]) -> RedteamRun:
    """Return one run.

    Raises:
        NotFoundError: the folder has no such record.
    """
    folder, name = visit.sources.redteam, visit.params["run"]
    # A name of the folder's own list: no path of a request reaches the disk.
    known = {one.name: one for one in folder.glob("*.jsonl")} if folder is not None else {}
    if name not in known:
        raise NotFoundError("the folder has no such record")
    plan, results = _read(str(known[name]), known[name].stat().st_mtime_ns)
    report = summarise(results)
    clauses, rows = heat(results)
    tables = {title: report.by[title][:12] for title in ("wrapper", "depth", "transform", "dress")}
    return RedteamRun(
        name=name, plan=plan, report=report, clauses=clauses, rows=rows, tables=tables
    )


def heat(results: list[AttemptResult]) -> tuple[tuple[str, ...], tuple[HeatRow, ...]]:
    """Return clauses and, for each family of disguises, what got through of each."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in results:
        if one.attempt.topic is None or one.outcome not in _SCORED:
            continue
        families = {transform(name).family.value for name in one.attempt.chain}
        if one.attempt.wrapper >= 0:
            families.add("wrapper")
        for family in families or {"plain"}:
            into = counts[family, one.attempt.clause]
            into[0] += one.outcome is AttackOutcome.COMPLIED
            into[1] += 1
    clauses = tuple(sorted({clause for _, clause in counts}))
    rows = []
    for family in sorted({name for name, _ in counts}):
        cells = [counts.get((family, clause), [0, 0]) for clause in clauses]
        total = Rate(sum(one[0] for one in cells), sum(one[1] for one in cells))
        rows.append(HeatRow(family, tuple(Rate(*one) for one in cells), total))
    return clauses, tuple(sorted(rows, key=lambda one: -one.total.value))


@functools.lru_cache(maxsize=16)
def _read(path: str, changed: int) -> tuple[AttackPlan, list[AttemptResult]]:
    del changed  # a record that grew is read again
    return read_record(Path(path))


def _line(path: Path) -> RunLine:
    stat = path.stat()
    try:
        plan, results = _read(str(path), stat.st_mtime_ns)
    except SafeholdError as error:
        none = Rate(0, 0)
        return RunLine(
            name=path.name, at=stat.st_mtime, domain="?", depth=0, attempts=0, success=none,
            false_alarms=none, trouble=str(error),
        )  # fmt: skip
    report = summarise(results)
    return RunLine(
        name=path.name,
        at=stat.st_mtime,
        domain=plan.domain,
        depth=plan.depth,
        attempts=sum(report.outcomes.values()),
        success=report.total.success,
        false_alarms=report.benign_plain,
    )
