"""Cost as the work grows: CPU seconds at three sizes, and the exponent between the last two.

An exponent of 1 means that ten times the work costs ten times the time; 0 that it costs the same.
The constant is the CPU time of one unit at the largest size. Each point has a process of its own,
start-up taken off, and is the best of two runs, neither of which finds what the other cached.
`docs/curves.json` keeps the last release's figures: `make curves` prints both and writes
`docs/curves.md` with `--keep`. A curve above its bound, or one that grew by 0.2, ends with status
1.

`--state FILE` notes each curve as it is measured and takes from there what was measured before, so
that a run that was ended goes on.
"""

import argparse
import functools
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from bench.curve_work import CURVES
from bench.tables import Table

DOCS = Path(__file__).resolve().parent.parent / "docs"
KEPT = DOCS / "curves.json"
GREW = 0.2
LIMIT_S = 900
RUNS = 2
LEAST_S = 2e-3
"""Less CPU time than this says nothing about how it grows."""


def point(name: str, size: int, runs: int = RUNS) -> float:
    """Return the CPU seconds of one point: the best of some runs, in a process of its own."""
    command = [sys.executable, "-m", "bench.curves", name, str(size), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} at {size}: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout.split()[-1])


def exponent_of(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Return the exponent between the last two sizes."""
    ratio = max(seconds[-1], LEAST_S) / max(seconds[-2], LEAST_S)
    return math.log(ratio) / math.log(sizes[-1] / sizes[-2])


def kept() -> dict[str, dict[str, float]]:
    """Return the last release's exponents and constants, by curve."""
    return json.loads(KEPT.read_text()) if KEPT.is_file() else {}


def grown(name: str, exponent: float, before: dict[str, dict[str, float]]) -> bool:
    """Say whether a curve is above its bound, or steeper by 0.2 than at the last release."""
    most = CURVES[name][2]
    last = before.get(name, {}).get("exponent", most)
    return exponent > most or exponent > last + GREW


def all_of(
    name: str, state: dict[str, list[float]], before: dict[str, dict[str, float]]
) -> tuple[list[float], float]:
    """Return the CPU seconds at each size, as measured before or now, and the exponent.

    What seems to grow too fast is measured once more, and the less of both counts at each size: a
    machine with other work makes a point dearer, never cheaper.
    """
    sizes = CURVES[name][1]
    seconds = state[name][:-1] if name in state else [point(name, size) for size in sizes]
    if grown(name, exponent_of(sizes, seconds), before):
        seconds = [min(one, point(name, size)) for one, size in zip(seconds, sizes, strict=True)]
    return seconds, exponent_of(sizes, seconds)


def measure(
    names: list[str], noted: Path | None = None
) -> tuple[Table, dict[str, dict[str, float]]]:
    """Measure curves; return the table, and the figures by curve."""
    before = kept()
    state = json.loads(noted.read_text()) if noted is not None and noted.is_file() else {}
    rows, found = [], {}
    for name in names:
        _, sizes, most = CURVES[name]
        seconds, exponent = all_of(name, state, before)
        if noted is not None:
            state[name] = [*seconds, exponent]
            noted.write_text(json.dumps(state, indent=1))
        constant = seconds[-1] / sizes[-1] * 1e6
        found[name] = {"exponent": round(exponent, 2), "constant_us": float(f"{constant:.3g}")}
        last = before.get(name)
        rows.append(
            (
                name,
                " / ".join(f"{size:,}" for size in sizes),
                " / ".join(f"{one:.3f}" for one in seconds),
                f"{exponent:.2f}",
                f"{most:.1f}",
                f"{constant:.3g}",
                "-" if last is None else f"{last['exponent']:.2f}, {last['constant_us']:.3g}",
            )
        )
        print(*rows[-1], sep="  ", flush=True)
    table = Table(
        title="Cost as the work grows",
        columns=(
            "curve",
            "sizes",
            "CPU s",
            "exponent",
            "at most",
            "us a unit",
            "last release: exponent, us",
        ),
        rows=tuple(rows),
    )
    return table, found


def page(table: Table, names: Collection[str]) -> str:
    """Return the page of the documentation; it names the curves that were not measured."""
    left = [name for name in CURVES if name not in names]
    gap = f"Not measured in this run: {'; '.join(left)}.\n\n" if left else ""
    return (
        "# Cost as the work grows\n\n"
        "CPU seconds at three sizes, each in a process of its own, start-up taken off. An exponent "
        "of 1 means that ten times the work costs ten times the time; 0 means the same time. It is "
        "taken between the last two sizes. `make curves` measures all of it and compares it with "
        "the last release (`docs/curves.json`); `python -m bench.curves --keep` writes both files. "
        "`make soak` fails where an exponent is above its bound, or grew by 0.2; such a curve is "
        "measured once more first, and the less counts.\n\n"
        f"{gap}{table.markdown().rstrip()}\n"
    )


def forget() -> None:
    """Empty every cache of bounded size, so that no run finds what the run before it left.

    RE2's own keeps 128 patterns: a second start with a hundred rules compiled none of them, which
    made a thousand look steeper. A cache without a bound holds tables that are loaded once.
    """
    kind = type(functools.lru_cache(forget))
    for found in gc.get_objects():
        if isinstance(found, kind) and found.cache_parameters()["maxsize"] is not None:
            found.cache_clear()


def one(name: str, size: int, runs: int) -> float:
    """Return the least CPU seconds of some runs in this process."""
    spent = []
    for _ in range(runs):
        go = CURVES[name][0](size)
        forget()
        began = time.process_time()
        go()
        spent.append(time.process_time() - began)
    return min(spent)


def main(arguments: list[str]) -> int:
    """Measure one point (NAME SIZE RUNS), or every curve."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.curves",
        description=__doc__,
        usage="%(prog)s [options] | NAME SIZE RUNS",
    )
    parser.add_argument("point", nargs="*", help="one curve's name, a size, and how many runs")
    parser.add_argument("--keep", action="store_true", help="write them as this release's")
    parser.add_argument("--state", type=Path, help="a file of what was measured so far")
    parser.add_argument("--noted", action="store_true", help="only what the state file has")
    given = parser.parse_args(arguments)
    if given.point:
        if len(given.point) != 3 or given.point[0] not in CURVES:
            parser.error(f"expected NAME SIZE RUNS, a name of: {', '.join(CURVES)}")
        print(one(given.point[0], int(given.point[1]), int(given.point[2])))
        return 0
    before = kept()
    noted = json.loads(given.state.read_text()) if given.noted else CURVES
    table, found = measure([name for name in CURVES if name in noted], given.state)
    if given.keep:
        KEPT.write_text(json.dumps(found, indent=2) + "\n")
        (DOCS / "curves.md").write_text(page(table, found))
    worse = [name for name, value in found.items() if grown(name, value["exponent"], before)]
    for name in worse:
        print(f"grew too fast: {name}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
