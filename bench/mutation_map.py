"""Which test runs which line: read once, so that a mutant costs only the tests that reach it.

    python -m bench.mutation_map tests/trust/grants ...     writes .bench/mutation-map/

The tests of each folder run once under coverage, one context a test. A line that runs only
while its module is imported has the tests that reach the file at all.
"""

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import coverage
import msgspec
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "safehold"
MAP = ROOT / ".bench" / "mutation-map"
FOLDERS = (
    "tests/trust/grants",
    "tests/trust/people",
    "tests/trust/exemptions",
    "tests/trust/standing",
    "tests/trust/release",
    "tests/trust/log",
    "tests/secure/weights",
)
# A test that is slow, and stands for no rule that another does not stand for.
SLOW_S = 20.0
_QUICK = "not test_every_operation_of_the_product and not every_altered_byte"


class Reached(msgspec.Struct, frozen=True):
    """What was seen: file and line to tests, and what each test took (seconds of CPU)."""

    lines: dict[str, dict[int, list[str]]]
    cost: dict[str, float]

    def tests(self, file: str, line: int) -> list[str]:
        """Return the tests that reach a line, the cheapest first."""
        of_file = self.lines.get(file, {})
        found = of_file.get(line) or sorted({one for tests in of_file.values() for one in tests})
        quick = [one for one in found if self.cost.get(one, 0.0) < SLOW_S]
        return sorted(quick, key=lambda one: self.cost.get(one, 0.0))


class _Watch:
    """Names the context of each test, and times it."""

    def __init__(self, cover: coverage.Coverage) -> None:
        self._cover = cover
        self.cost: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin a context."""
        self._cover.switch_context(item.nodeid)
        began = time.process_time()
        done = yield
        self.cost[item.nodeid] = time.process_time() - began
        self._cover.switch_context("")
        return done


def build(folder: str) -> Reached:
    """Run the tests of a folder once and return what they reach."""
    cover = coverage.Coverage(
        data_file=None,
        include=[str(SOURCE / "trust" / "*"), str(SOURCE / "secure" / "weights" / "*")],
        config_file=False,
    )
    watch = _Watch(cover)
    cover.start()
    code = pytest.main(
        ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", _QUICK, folder], plugins=[watch]
    )
    cover.stop()
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        sys.exit(int(code))
    data = cover.get_data()
    lines: dict[str, dict[int, list[str]]] = {}
    for path in data.measured_files():
        found: dict[int, list[str]] = defaultdict(list)
        for line, contexts in data.contexts_by_lineno(path).items():
            found[line] += [one for one in contexts if one]
        lines[Path(path).relative_to(SOURCE).as_posix()] = dict(found)
    return Reached(lines=lines, cost=watch.cost)


def place(folder: str) -> Path:
    """Return where the map of a folder of tests is kept."""
    return MAP / (folder.replace("/", "-") + ".json")


def reached() -> Reached:
    """Return what was read of all folders; what is not there yet is read now."""
    lines: dict[str, dict[int, list[str]]] = {}
    cost: dict[str, float] = {}
    for folder in FOLDERS:
        if not place(folder).exists():
            command = [sys.executable, "-m", "bench.mutation_map", folder]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = msgspec.json.decode(place(folder).read_bytes(), type=Reached)
        cost |= found.cost
        for file, of_file in found.lines.items():
            for line, tests in of_file.items():
                lines.setdefault(file, {}).setdefault(line, []).extend(tests)
    return Reached(lines=lines, cost=cost)


def main() -> None:
    """Read the folders that are named (all: none is named)."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.mutation_map",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="of tests (default: all)")
    folders: list[str] = parser.parse_args().folders
    MAP.mkdir(parents=True, exist_ok=True)
    for folder in folders or FOLDERS:
        # One process each: a module counts as imported by the first test that needs it.
        if len(folders) == 1:
            place(folder).write_bytes(msgspec.json.encode(build(folder)))
        else:
            subprocess.run(
                [sys.executable, "-m", "bench.mutation_map", folder], cwd=ROOT, check=True
            )


if __name__ == "__main__":
    main()
