"""Two bundles compared by what they do: the items that the old one stopped and the new one passes.

Thresholds of two scorers have no common scale, so a release of a bundle is judged by this.
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from safehold.errors import DataError
from safehold.improve.evaluation.cache import run_key
from safehold.improve.evaluation.interface import EvaluationReport, ItemScores, ItemSide
from safehold.improve.evaluation.run import FAILURES, REPORT, SCORES
from safehold.trust.release.comparison import Comparison, golden_digest

T = TypeVar("T")
_Place = tuple[str, str, str]
"""A data file's digest, an item, a surface."""


class _ScoreLine(msgspec.Struct, frozen=True):
    """A line of `scores.jsonl`."""

    run: str
    item: str
    scores: ItemScores


class _Failure(msgspec.Struct, frozen=True):
    """What is read of a line of `failures.jsonl`."""

    item: str
    surface: str
    blocked: bool


def compare_bundles(old: Path, new: Path) -> Comparison:
    """Compare two evaluations of the same data, each a folder that `safehold eval` wrote.

    A false alarm of the old bundle that is gone weakens nothing; everything else that it stopped
    and the new one passes is listed. It holds nothing of the run, such as a time: two who measure
    the same bundles on the same golden set sign the same bytes.

    Raises:
        DataError: a folder is not whole, or the two are of other data, parts, limits or code.
    """
    before, after = _report(old), _report(new)
    for name in ("files", "part", "limit", "code_digest", "constitution"):
        if getattr(before, name) != getattr(after, name):
            raise DataError(f"expected two evaluations of the same data: they differ in {name}")
    first, second = _verdicts(old, before), _verdicts(new, after)
    if first.keys() != second.keys():
        raise DataError("expected two evaluations of the same items, with the whole guard")
    if not first:
        raise DataError("expected at least one item that was scored")
    forgiven = _false_alarms(old)
    lost = tuple(
        f"{item} {surface}"
        for (source, item, surface), blocked in sorted(first.items())
        if blocked and not second[source, item, surface] and (item, surface) not in forgiven
    )
    return Comparison(
        old=before.bundle_digest,
        new=after.bundle_digest,
        golden=golden_digest(before.files),
        items=len(first),
        lost=lost,
    )


def _report(folder: Path) -> EvaluationReport:
    try:
        return msgspec.json.decode((folder / REPORT).read_bytes(), type=EvaluationReport)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{folder}: expected a {REPORT} of `safehold eval`") from error


def _verdicts(folder: Path, report: EvaluationReport) -> dict[_Place, bool]:
    """Return whether each item was blocked, by this bundle on these files and this code."""
    runs = {
        run_key(report.bundle_digest, digest, report.code_digest, "whole"): digest
        for digest in report.files.values()
    }
    found: dict[_Place, bool] = {}
    for line in _lines(folder / SCORES, _ScoreLine):
        if line.run not in runs:
            continue
        for surface in ItemSide:
            score = line.scores.on(surface)
            if score is not None:
                found[runs[line.run], line.item, surface.value] = score.blocked
    return found


def _false_alarms(folder: Path) -> frozenset[tuple[str, str]]:
    lines = _lines(folder / FAILURES, _Failure)
    return frozenset((line.item, line.surface) for line in lines if line.blocked)


def _lines(path: Path, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    try:
        return [decoder.decode(line) for line in path.read_bytes().splitlines()]
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: expected a file that `safehold eval` wrote") from error
