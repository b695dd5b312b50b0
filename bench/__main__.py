"""Run the benchmarks and write `docs/benchmarks.md` and its picture.

    python -m bench                  everything
    python -m bench --only guard     one of them, the page made from all results there are
    python -m bench --quick          shorter runs, for a look
    python -m bench --docs-only      the page anew from the last results
    python -m bench --against REV    CPU time beside that of another revision (guard, gateway)

Each module of this folder is a benchmark. One with a function `run(quick)` returns tables (or
figures by variant); any other is run as the script that it is, and its output is kept as printed.
Every one has a process of its own, one after another; results go to `.bench/NAME.json`.
"""

import argparse
import contextlib
import importlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from bench.tables import Table
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = ROOT / ".bench"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"
# Not benchmarks: the parts of this runner, and a generator of a table in the package.
OTHERS = frozenset(
    {
        "__init__",
        "__main__",
        "against",
        "tables",
        "letter_pairs",
        "long_prompts",
        "own_class",
        "own_class_curve",
        "recorded_generator",
        "refusal_lora",
    }
)
# What a script is given beside nothing: (whole run, quick run).
ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gateway": (("--rounds", "3"), ("--rounds", "1")),
    "ledger": (("--postgres",), ("--seconds", "1")),
}
LIMIT_S = 3600
ABOUT = (
    "`make bench` measures everything here in one go and writes this page; "
    "`python -m bench --docs-only` writes it anew from the last results. Compare figures within "
    "one table: its contestants took turns in one run, on a machine that may have been busy.\n"
)


class Result(msgspec.Struct, frozen=True):
    """What one benchmark gave: tables, or the text that it printed."""

    name: str
    about: str
    command: str
    machine: str
    seconds: float
    status: int
    quick: bool = False
    tables: tuple[Table, ...] = ()
    text: str = ""


def names() -> list[str]:
    """Return the benchmarks of this folder."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in OTHERS)


def machine() -> str:
    """Say what the figures were measured on."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def has_run(name: str) -> bool:
    """Whether a module has the function `run`, without importing what it needs."""
    return "\ndef run(" in (HERE / f"{name}.py").read_text(encoding="utf-8")


def about(name: str) -> str:
    """Return the first paragraph of a module's docstring."""
    text = (HERE / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    return text.split("\n\n")[0].replace("\n", " ")


def measure(name: str, *, quick: bool) -> Result:
    """Run one benchmark in a process of its own."""
    own = has_run(name)
    if own:
        arguments = ["bench", "--child", name, *(["--quick"] if quick else [])]
    else:
        arguments = [f"bench.{name}", *ARGUMENTS.get(name, ((), ()))[int(quick)]]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    sound = own and not done.returncode
    return Result(
        name=name,
        about=about(name),
        command="python -m " + " ".join(arguments if not own else ["bench", "--only", name]),
        machine=machine(),
        seconds=round(time.monotonic() - began, 1),
        status=done.returncode,
        quick=quick,
        tables=msgspec.json.decode(done.stdout, type=tuple[Table, ...]) if sound else (),
        text="" if own else done.stdout.decode().strip(),
    )


def heading(name: str) -> str:
    """Return the title of a benchmark's section."""
    return name.replace("_", " ").capitalize()


def sections(text: str) -> dict[str, str]:
    """Return a page's sections by title."""
    parts = text.split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


def page(results: list[Result], before: str = "") -> str:
    """Return the page of all results; a benchmark without one keeps its section of `before`."""
    found = sections(before) | {heading(result.name): section(result) for result in results}
    parts = ["# Benchmarks\n", ABOUT]
    if PICTURE.exists() or any(table.bars for result in results for table in result.tables):
        parts.append("![Bars of the main tables](images/benchmarks.svg)\n")
    return "\n".join([*parts, *(found[heading(n)] for n in names() if heading(n) in found)])


def section(result: Result) -> str:
    """Return one benchmark's section."""
    parts = [
        f"## {heading(result.name)}\n",
        f"{result.about}\n",
        f"`{result.command}`, {result.seconds:.0f} s, on {result.machine}.\n",
    ]
    if result.quick:
        parts.append("A quick run: a look, not a measurement.\n")
    if result.status:
        parts.append(f"**Did not finish: exit status {result.status}.**\n")
    parts += [table.markdown() for table in result.tables]
    if result.text:
        parts.append(f"```\n{result.text}\n```\n")
    return "\n".join(parts)


def draw(results: list[Result]) -> None:
    """Draw one panel of bars for each table that names a column for it."""
    tables = [table for result in results for table in result.tables if table.bars]
    if not tables:
        return
    heights = [len(table.rows) + 1.5 for table in tables]
    figure = Figure(figsize=(9, 0.42 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, table in zip(panels, tables, strict=True):
        at = table.columns.index(table.bars or "")
        values = [float(row[at].split()[0].replace(",", "").rstrip("%")) for row in table.rows]
        bars = axes.barh([row[0] for row in table.rows], values, color="#1f6f5c", height=0.6)
        axes.bar_label(bars, [row[at] for row in table.rows], padding=4, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(f"{table.title}: {table.bars}", loc="left", fontsize=10)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def write() -> None:
    """Write the page and its picture from the results on disk."""
    results = [
        msgspec.json.decode(path.read_bytes(), type=Result)
        for path in sorted(RESULTS.glob("*.json"))
        if path.stem in names()
    ]
    if not results:
        sys.exit("no results in .bench: run `python -m bench` first")
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if sections(before).keys() <= {heading(result.name) for result in results}:
        draw(results)
    else:
        print("the picture is as it was: some sections are of an earlier run")
    PAGE.write_text(page(results, before), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(results)} benchmarks")


def child(name: str, *, quick: bool) -> None:
    """Run a benchmark's `run` and print its tables as JSON; what it says meanwhile goes beside."""
    found: list[Table] | dict[str, dict[str, float | int]]
    with contextlib.redirect_stdout(sys.stderr):
        found = importlib.import_module(f"bench.{name}").run(quick)
    tables = [of_figures(name, found)] if isinstance(found, dict) else found
    print(msgspec.json.encode(tables).decode())


def of_figures(name: str, found: dict[str, dict[str, float | int]]) -> Table:
    """Return the table of figures by variant."""
    columns = tuple(dict.fromkeys(key for row in found.values() for key in row))
    return Table(
        title=name.replace("_", " ").capitalize(),
        columns=("variant", *(column.replace("_", " ") for column in columns)),
        rows=tuple(
            (variant, *(f"{row[key]:,}" if key in row else "" for key in columns))
            for variant, row in found.items()
        ),
    )


def against(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Compare two revisions and print the table."""
    module = importlib.import_module("bench.against")
    kinds = given.only or list(module.KINDS)
    if not set(kinds) <= set(module.KINDS):
        parser.error(f"--against compares {' and '.join(module.KINDS)}")
    found = module.compare(kinds, given.against, given.new, pairs=given.pairs, quick=given.quick)
    print(found.markdown())


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=names(), action="append")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--docs-only", action="store_true")
    parser.add_argument("--child", choices=names(), help=argparse.SUPPRESS)
    parser.add_argument("--against", metavar="REV", help="compare with this revision, in one run")
    parser.add_argument("--new", metavar="REV", help="with --against: instead of the working tree")
    parser.add_argument("--pairs", type=int, default=21, help="with --against: runs of each")
    given = parser.parse_args()
    if given.against:
        against(parser, given)
        return
    if given.child:
        child(given.child, quick=given.quick)
        return
    failed = []
    if not given.docs_only:
        RESULTS.mkdir(exist_ok=True)
        for name in given.only or names():
            print(f"{name} ...", flush=True)
            result = measure(name, quick=given.quick)
            (RESULTS / f"{name}.json").write_bytes(msgspec.json.encode(result))
            failed += [name] if result.status else []
    write()
    if failed:
        sys.exit(f"did not finish: {', '.join(failed)}")


if __name__ == "__main__":
    main()
