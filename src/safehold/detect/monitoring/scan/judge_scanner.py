"""The judge on the top share: a model is asked about what another scanner found most suspicious.

The judge costs a thousand times what the guard costs, so it sees only the exchanges whose value of
another scanner lies in the top `share`. Where the cut lies is decided when the scan is planned.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import func, select

from safehold.constitution.library import load
from safehold.detect.monitoring.scan.interface import (
    Postponed,
    ScanFinding,
    ScannerSpec,
    unscorable,
)
from safehold.detect.monitoring.tables import RESULTS, SCANNERS, MonitorStore
from safehold.errors import UsageError
from safehold.guard.ledger.joined import Joined
from safehold.guard.scorers.interface import ScoringInput
from safehold.guard.scorers.judge import JudgeAwayError, JudgeSettings, PromptedJudge

_NEEDED = ("url", "model")


class JudgeScanner:
    """Asks a model about the exchanges at or above `floor` of the scanner `of`."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Take url, model, key_file and constitution; the others come from `on_the_top`."""
        missing = [name for name in _NEEDED if name not in options]
        if missing:
            raise UsageError(f"the scanner judge needs {', '.join(missing)} (-o NAME=VALUE)")
        key = Path(options["key_file"]).read_text("ascii").strip() if "key_file" in options else ""
        settings = JudgeSettings(url=options["url"], model=options["model"], key=key)
        constitution = load(options.get("constitution", "homebrewing"))
        self._judge = PromptedJudge(constitution, settings)
        self._of, self._floor = options.get("of", ""), float(options.get("floor", "0"))
        self._store = MonitorStore.open(options["monitor"]) if self._of else None
        rules = self._judge.framing.digest
        self.digest = f"judge:{options['model']}:{rules}:{self._of}:{self._floor:.6g}"

    def scan(self, one: Joined) -> ScanFinding | Postponed:
        """Ask the model, or say that the exchange is below the cut.

        An exchange waits while the model's server is away, or the other scanner has not seen it.
        """
        if one.exchange is None:
            return unscorable("NoExchange")
        if self._store is not None:
            here = (RESULTS.c.scanner == self._of) & (RESULTS.c.seq == one.seq)
            with self._store.begin() as connection:
                row = connection.execute(select(RESULTS.c.value).where(here)).one_or_none()
            if row is None:
                return Postponed("the scanner whose top share is asked about comes first")
            if row.value is None:
                return unscorable("NoValue")
            if row.value < self._floor:
                return ScanFinding(value=None, label="below_top", reason="BelowTop")
        prompt = "\n".join(part.text for part in one.exchange.texts())
        reply = "\n".join(lane.text for lane in one.final.delivered)
        given = [ScoringInput(prompt=prompt, reply="")]
        given += [ScoringInput(prompt=prompt, reply=reply)] if reply else []
        try:
            scores = self._judge.score(given)
        except JudgeAwayError as error:
            return Postponed(str(error))
        best = max(scores, key=lambda score: score.logit)
        stops = best.logit > 0
        return ScanFinding(
            value=1 / (1 + math.exp(-max(-60.0, min(60.0, best.logit)))),
            label="would_block" if stops else "allow",
            clause=best.clause if stops else None,
        )


def on_the_top(spec: ScannerSpec, monitor: str) -> ScannerSpec:
    """Return the judge's options with the cut that leaves the top `share` (default 1 %).

    Raises:
        UsageError: the other scanner (`by`, default `session`) has no results yet, or the share is
            no share.
    """
    options = dict(spec.options)
    by, share = options.pop("by", "session"), float(options.pop("share", "0.01"))
    if not 0 < share <= 1:
        raise UsageError(f"judge: expected a share of more than 0 to 1, came {share}")
    with MonitorStore.open(monitor, make=False).begin() as connection:
        named = select(SCANNERS.c.scanner).where(SCANNERS.c.name == by)
        for scanner in sorted(connection.execute(named).scalars(), reverse=True):
            scored = RESULTS.c.scanner == scanner, RESULTS.c.value.is_not(None)
            total = connection.execute(select(func.count()).where(*scored)).scalar_one()
            if not total:
                continue
            place = max(0, round(share * total) - 1)
            values = select(RESULTS.c.value).where(*scored).order_by(RESULTS.c.value.desc())
            floor = connection.execute(values.offset(place).limit(1)).scalar_one()
            chosen = {"monitor": monitor, "of": scanner, "floor": str(float(floor))}
            return ScannerSpec(spec.name, {**options, **chosen})
    raise UsageError(f"judge: scan with --scanner {by} first: the judge sees only its top share")
