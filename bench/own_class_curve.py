"""How much data is enough: one class of `bench.own_class`, its first stage alone, by answers.

    SAFEHOLD_EVAL_DATA=DIR python -m bench.own_class_curve [soap] [--shares 0.1 0.25 0.5 1]

Each point is a guard of its own, made as `docs/your-own-class.md` says, from a share of the
recorded answers, which the next one holds too; all are measured on the same text, which other
people wrote. A point that was measured before is read from its folder.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
from bench.own_class import CLASSES, ENV, ROOT, ClassResult, lay_out, measure
from bench.tables import Table

SHARES = (0.1, 0.25, 0.5, 1.0)
GENERAL = 600


def point(name: str, share: float, data: Path, out: Path) -> ClassResult:
    """Return one point of the curve."""
    done = out / "figures.json"
    if done.exists():
        return msgspec.json.decode(done.read_bytes(), type=ClassResult)
    plan = msgspec.structs.replace(CLASSES[name], share=share)
    texts = partial(lay_out, plan, data, out, general=GENERAL, part=1)
    found = measure(plan, texts, out, stage2=False)
    done.write_bytes(msgspec.json.encode(found))
    return found


def main() -> None:
    """Measure every point and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    recorded = [name for name, plan in CLASSES.items() if plan.books is not None]
    parser.add_argument("name", nargs="?", choices=recorded, default="soap")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "own-class-curve")
    asked = parser.parse_args()
    data = os.environ.get(ENV)
    if not data:
        sys.exit(f"{ENV} names no folder of evaluation text; nothing was measured")
    rows = []
    for share in asked.shares:
        out = asked.out / f"{asked.name}-{share}"
        out.mkdir(parents=True, exist_ok=True)
        one = point(asked.name, share, Path(data), out)
        value, lower, own, others = one.near_auc
        general, at_least, _, _ = one.general_auc
        row = (
            f"{share:.0%}",
            f"{one.answers} of {one.asked}",
            f"{value:.3f} ({lower:.3f}; n = {own} and {others})",
            f"{general:.3f} ({at_least:.3f})",
        )
        rows.append(row)
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    heads = ("share", "usable answers", "AUC against neighbours", "AUC against general text")
    sys.stdout.write(Table("How much data is enough", heads, tuple(rows)).markdown())


if __name__ == "__main__":
    main()
