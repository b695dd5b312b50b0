"""How soon a challenger with more false alarms is rolled back, by the code that the gateway runs.

Each seed plays one trial: the champion refuses 0.1 % of benign exchanges wrongly; the challenger
the same ones and 0.4 % more, or none more. Beside the seeds stands the exact chance, by recursion
over all histories. `python -m bench.response_trial --quick` takes 20 seeds.
"""

import argparse
import random
from collections.abc import Iterator

from bench.tables import Table

from safehold.guard.gateway.bundles.rollback_evidence import rollback_chance
from safehold.guard.gateway.bundles.trial_file import TrialPlan
from safehold.guard.gateway.bundles.trial_memory import Kept, Verdicts, followed, judged
from safehold.guard.gateway.bundles.trial_steps import TrialStep
from safehold.stats import Rate

MOST = 2_000
_SHOWN = 12
"""Of the odd seeds the first so many are printed."""
SEEDS = 1_000
PLAN = TrialPlan(
    id="bench",
    serial=1,
    champion="a" * 64,
    challenger="b" * 64,
    folder="b",
    report="c" * 64,
)


def exchanges(seed: int, *, rise: float, apart: bool) -> Iterator[Verdicts]:
    """Yield benign exchanges; the two bundles' alarms are common, or all apart."""
    rng = random.Random(f"{seed}/{rise}/{apart}")  # noqa: S311 - a played history
    for turn in range(MOST):
        theirs = rng.random() < 0.001
        own = rng.random() < 0.001 if apart else theirs
        yield Verdicts(f"sh_{turn}", theirs, own or rng.random() < rise)


def until_back(seed: int, *, rise: float, apart: bool) -> int | None:
    """Return after how many exchanges the trial is rolled back, if it is."""
    kept: Kept = followed(None, PLAN)
    for turn, one in enumerate(exchanges(seed, rise=rise, apart=apart), 1):
        kept = judged(kept, (one,))
        if kept.trial.step is TrialStep.ROLLED_BACK:
            return turn
    return None


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's call
    """Play all seeds of each world; quick takes 20 of 1,000."""
    seeds = range(20 if quick else SEEDS)
    rows: list[tuple[str, ...]] = []
    for apart in (False, True):
        for rise in (0.004, 0.0003, 0.0):
            found = [until_back(seed, rise=rise, apart=apart) for seed in seeds]
            back = sorted(one for one in found if one is not None)
            missed = [seed for seed, one in zip(seeds, found, strict=True) if one is None]
            odd = missed if rise > 0.001 else [s for s in seeds if s not in missed]
            rows.append(
                (
                    "nothing" if apart else "the champion's",
                    f"0.1 to {0.1 + rise * 100:.2f} %",
                    Rate(len(back), len(found)).at_most(),
                    f"{_chance(rise, apart=apart):.2%}",
                    str(back[len(back) // 2]) if back else "none",
                    " ".join(map(str, odd[:_SHOWN])) or "none",
                )
            )
    head = (
        "alarms in common",
        "rate",
        "rolled back in 2,000",
        "exact chance",
        "half by",
        "odd seeds",
    )
    return [Table("Trial", head, tuple(rows))]


def _chance(rise: float, *, apart: bool) -> float:
    theirs = 0.001 if apart else 0.0
    # Two alarms in one exchange are one alarm.
    rate = 1 - (1 - theirs) * (1 - rise) if apart else 0.999 * rise
    return rollback_chance(rate * (1 - theirs), theirs * (1 - rate), MOST, PLAN.rules)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for table in run(parser.parse_args().quick):
        print(table.markdown())
