"""How much data is enough: one class of `bench.own_class`, its first stage alone, by rounds.

    SAFEHOLD_EVAL_DATA=DIR python -m bench.own_class_curve [bread] [--rounds 1 2 3 4]

Each point is a guard of its own, made as `docs/your-own-class.md` says, from so many rounds of
recorded answers; all are measured on the same text, which other people wrote. A point that was
measured before is read from its folder.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
from bench.own_class import CLASSES, ENV, GENERAL, ROOT, ClassResult, lay_out, measure
from bench.tables import Table

ROUNDS = (1, 2, 3, 4)


def point(name: str, rounds: int, data: Path, out: Path) -> ClassResult:
    """Return one point of the curve."""
    done = out / "figures.json"
    if done.exists():
        return msgspec.json.decode(done.read_bytes(), type=ClassResult)
    plan = msgspec.structs.replace(CLASSES[name], options=("--rounds", str(rounds)))
    texts = partial(lay_out, plan, data, out, general=GENERAL, part=1)
    found = measure(plan, texts, out, stage2=False)
    done.write_bytes(msgspec.json.encode(found))
    return found


def main() -> None:
    """Measure every point and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("name", nargs="?", choices=list(CLASSES), default="bread")
    parser.add_argument("--rounds", type=int, nargs="+", default=ROUNDS)
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "own-class-curve")
    asked = parser.parse_args()
    data = os.environ.get(ENV)
    if not data:
        sys.exit(f"{ENV} names no folder of evaluation text; nothing was measured")
    rows = []
    for rounds in asked.rounds:
        out = asked.out / f"{asked.name}-{rounds}"
        out.mkdir(parents=True, exist_ok=True)
        one = point(asked.name, rounds, Path(data), out)
        value, lower, own, others = one.near_auc
        general, at_least, _, _ = one.general_auc
        row = (
            str(rounds),
            f"{one.answers} of {one.asked}",
            f"{value:.3f} ({lower:.3f}; n = {own} and {others})",
            f"{general:.3f} ({at_least:.3f})",
        )
        rows.append(row)
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    heads = ("rounds", "usable answers", "AUC against neighbours", "AUC against general text")
    sys.stdout.write(Table("How much data is enough", heads, tuple(rows)).markdown())


if __name__ == "__main__":
    main()
