"""Tries mutants in forks of one warm process: a mutant costs the tests that reach it, no more.

    python -m bench.mutation_fork --sample 400 --seed 1 --minutes 60 --out found.json

`bench.mutation` tries one in a process of its own, with every test of its part: what lives here is
tried there again. Code that runs only while its module is imported, or only in programs that tests
start, is `elsewhere`. The tests are collected once. For each mutant the process forks, puts
the changed code into the function that is loaded already, and runs the tests that reach the line
(`bench.mutation_map`) until one fails. A test that fails without the change, too, kills nothing.
"""

import argparse
import gc
import os
import random
import signal
import sys
import time
from collections import Counter
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FunctionType

import msgspec
import pytest
from _pytest.runner import runtestprotocol
from bench.mutation import ROOT, SOURCE, Mutant, everything, explained
from bench.mutation_map import FOLDERS, Reached, reached

# A mutant whose tests hang has been noticed; one that outlives so many seconds of tests lives.
HANG_S = 120.0
MOST_TESTS_S = 20.0


class Outcome(msgspec.Struct, frozen=True):
    """What became of one mutant."""

    mutant: Mutant
    how: str
    """`killed`, `hangs`, `lives` or `elsewhere` (not a loaded function, or no test reaches it)."""
    by: str = ""


class Told(msgspec.Struct, frozen=True):
    """What a run leaves in its file."""

    of: int
    outcomes: list[Outcome]
    cpu_s: float


def codes(code: CodeType) -> dict[str, CodeType]:
    """Return the outermost functions of a module's code, methods too, by qualified name.

    Left out is what two functions share (a property's getter and setter).
    """
    found: dict[str, CodeType] = {}
    twice: set[str] = set()
    for one in code.co_consts:
        if not isinstance(one, CodeType):
            continue
        inner = {one.co_qualname: one} if one.co_flags & CO_OPTIMIZED else codes(one)
        twice |= set(found) & set(inner)
        found |= inner
    return {name: one for name, one in found.items() if name not in twice}


class Fork:
    """Runs mutants from inside pytest's own loop, when everything is imported and collected."""

    def __init__(self, mutants: list[Mutant], seen: Reached, until: float) -> None:
        self._mutants, self._seen, self._until = mutants, seen, until
        self._sound: dict[str, bool] = {}
        self._kills: Counter[tuple[str, str]] = Counter()
        self.outcomes: list[Outcome] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try every mutant instead of running the tests."""
        items = {item.nodeid: item for item in session.items}
        functions: dict[str, dict[str, list[FunctionType]]] = {}
        for one in gc.get_objects():
            if isinstance(one, FunctionType):
                of_file = functions.setdefault(one.__code__.co_filename, {})
                of_file.setdefault(one.__code__.co_qualname, []).append(one)
        gc.freeze()
        for mutant in self._mutants:
            if time.monotonic() > self._until:
                break
            outcome = self._try(mutant, items, functions.get(str(SOURCE / mutant.file), {}))
            self.outcomes.append(outcome)
            print(f"{outcome.how:9} {mutant.name} {outcome.by}", file=sys.stderr, flush=True)
        return True

    def _try(
        self,
        mutant: Mutant,
        items: dict[str, pytest.Item],
        functions: dict[str, list[FunctionType]],
    ) -> Outcome:
        code = compile(mutant.text, str(SOURCE / mutant.file), "exec", dont_inherit=True)
        changed = [
            (function, new)
            for name, new in codes(code).items()
            for function in functions.get(name, [])
            if _differ(function.__code__, new)
        ]
        tests = [one for one in self._seen.tests(mutant.file, mutant.line) if one in items]
        if not changed or not tests:
            return Outcome(mutant, "elsewhere")
        # Who has noticed a change of this file before is asked first, then the cheapest.
        tests.sort(key=lambda test: -self._kills[mutant.file, test])
        spent = 0.0
        chosen: list[str] = []
        for test in tests:
            spent += self._seen.cost.get(test, 0.0)
            if spent > MOST_TESTS_S:
                break
            chosen.append(test)
        while chosen:
            how, by = self._fork(changed, [items[one] for one in chosen])
            if how != "killed" or self._is_sound(by, items):
                self._kills[mutant.file, by] += 1
                return Outcome(mutant, how, by)
            chosen = [one for one in chosen if one != by]
        return Outcome(mutant, "lives")

    def _is_sound(self, test: str, items: dict[str, pytest.Item]) -> bool:
        """Tell whether the test passes when nothing is changed."""
        if test not in self._sound:
            self._sound[test] = self._fork([], [items[test]])[0] == "lives"
        return self._sound[test]

    @staticmethod
    def _fork(
        changed: list[tuple[FunctionType, CodeType]], items: list[pytest.Item]
    ) -> tuple[str, str]:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for handle in (0, 1, 2):
                os.dup2(null, handle)
            for function, new in changed:
                function.__code__ = new
            for number, item in enumerate(items):
                if any(one.failed for one in runtestprotocol(item, log=False, nextitem=None)):
                    os.write(writer, str(number).encode())
                    os._exit(1)
            os._exit(0)
        os.close(writer)
        until = time.monotonic() + HANG_S * 3
        status = 0
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > until:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                os.close(reader)
                return "hangs", ""
            time.sleep(0.02)
        told = os.read(reader, 16)
        os.close(reader)
        if told:
            return "killed", items[int(told)].nodeid
        return ("lives", "") if status == 0 else ("killed", items[0].nodeid)


def _differ(old: CodeType, new: CodeType) -> bool:
    """Tell whether two codes do something else; where their lines lie does not count."""
    if (old.co_code, old.co_names, old.co_varnames) != (new.co_code, new.co_names, new.co_varnames):
        return True
    pairs = list(zip(old.co_consts, new.co_consts, strict=False))
    return len(old.co_consts) != len(new.co_consts) or any(
        _differ(one, other)
        if isinstance(one, CodeType) and isinstance(other, CodeType)
        else repr(one) != repr(other)
        for one, other in pairs
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    began = time.monotonic()
    every = everything(given.only)
    chosen = random.Random(given.seed).sample(every, min(given.sample, len(every)))  # noqa: S311
    seen = reached()
    fork = Fork(chosen, seen, began + given.minutes * 60)
    os.chdir(ROOT)
    quiet = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--capture=no")
    pytest.main([*quiet, *FOLDERS], plugins=[fork])
    times = os.times()
    spent = times.user + times.system + times.children_user + times.children_system
    told = Told(of=len(every), outcomes=fork.outcomes, cpu_s=spent)
    given.out.write_bytes(msgspec.json.encode(told))
    known = explained()
    count = Counter(one.how for one in told.outcomes)
    living = [one.mutant.name for one in told.outcomes if one.how == "lives"]
    unknown = [name for name in living if name not in known]
    print(
        f"mutants: {len(told.outcomes)} of {told.of} tried in {spent:.0f} s of CPU; "
        f"{count['killed'] + count['hangs']} killed, {len(living)} lived ({len(unknown)} "
        f"unexplained), {count['elsewhere']} elsewhere"
    )
    for name in unknown:
        print(f"LIVES {name}")
    sys.exit(1 if unknown else 0)


if __name__ == "__main__":
    main()
