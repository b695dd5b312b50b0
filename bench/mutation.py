"""Small wrong changes of the rules, one at a time: does a test notice?

    python -m bench.mutation --sample 40 --seed 1       forty of all, by lot
    python -m bench.mutation --only trust/grants/evaluate.py
    python -m bench.mutation --list

A mutant changes one place of one file: a comparison (`<` becomes `<=`: the boundary of an expiry),
`and` for `or`, a `not` that is gone, a number one more, a `raise` that does nothing, a returned
refusal that is None, a `return` of the other truth value. The tests of that part then run until
one fails, in a process of their own in which only that file is changed. A mutant that lives is
printed; `bench.mutation_fork` tries many at a small cost.
`bench/recorded/mutants-explained.toml` says of each one known why that is no gap.
"""

import argparse
import ast
import os
import random
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from safehold.stats import upper_bound

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "safehold"
EXPLAINED = ROOT / "bench" / "recorded" / "mutants-explained.toml"
LIMIT_S = 600
# What is mutated, and which tests stand for it; the first that begins a file's path counts.
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("trust/grants/snapshot.py", ("tests/trust/grants/test_grants_snapshot.py",)),
    ("trust/grants/", ("tests/trust/grants", "tests/trust/exemptions", "tests/trust/release")),
    ("trust/people/", ("tests/trust/people", "tests/trust/grants")),
    ("trust/exemptions/", ("tests/trust/exemptions",)),
    ("trust/release/", ("tests/trust/release",)),
    ("trust/standing/", ("tests/trust/standing", "tests/govern/test_standards_log.py")),
    ("trust/clock.py", ("tests/trust/grants",)),
    ("trust/text.py", ("tests/trust/grants", "tests/trust/people")),
    ("trust/log/", ("tests/trust/log",)),
    ("secure/weights/keyd/", ("tests/secure/weights/keyd",)),
    ("secure/weights/meter/", ("tests/secure/weights",)),
    ("secure/weights/", ("tests/secure/weights",)),
)
_SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_RUNNER = """
import importlib.abc, importlib.machinery, sys
class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name != sys.argv[1]:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=sys.argv[2])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.__file__ = sys.argv[2]
        exec(compile(open(sys.argv[3]).read(), sys.argv[2], "exec"), module.__dict__)
sys.meta_path.insert(0, Changed())
import pytest
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *sys.argv[4:]]))
"""


class Mutant(msgspec.Struct, frozen=True):
    """One change of one file."""

    file: str
    line: int
    function: str
    before: str
    after: str
    text: str
    """The whole file after the change."""

    @property
    def name(self) -> str:
        """What the list of explained ones knows it by: no line number, which moves."""
        return f"{self.file}:{self.function}: {self.before} -> {self.after}"


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    source = path.read_text()
    tree = ast.parse(source)
    owner: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        name = node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""
        for child in ast.walk(node) if name else ():
            owner[child] = name
    places = [node for node in ast.walk(tree) if node in owner]
    for node in places:
        before = ast.unparse(node)
        for change in _changes(node):
            undo = change()
            if undo is None:
                continue
            after, text = ast.unparse(node), ast.unparse(tree)
            undo()
            yield Mutant(
                file=path.relative_to(SOURCE).as_posix(),
                line=getattr(node, "lineno", 0),
                function=owner[node],
                before=before[:120],
                after=after[:120],
                text=text,
            )


def _changes(node: ast.AST) -> Iterator["Change"]:
    match node:
        case ast.Compare():
            for at, operator in enumerate(node.ops):
                if type(operator) in _SWAPS:
                    yield Change(node, "ops", at, _SWAPS[type(operator)]())
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield Change(node, "op", None, other)
        case ast.UnaryOp(op=ast.Not()):
            yield Change(node, "op", None, ast.UAdd(), blank=True)
        case ast.If():
            yield Change(node, "test", None, ast.Constant(value=False))
        case ast.Return(value=ast.Constant(value=bool() as truth)):
            yield Change(node, "value", None, ast.Constant(value=not truth))
        case ast.Return(value=ast.Call(func=ast.Name(id="Refused"))):
            yield Change(node, "value", None, ast.Constant(value=None))
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            yield Change(node, "value", None, number + 1)
        case _:
            pass


class Change:
    """One edit of a tree; calling it makes the edit and returns what undoes it."""

    def __init__(
        self, node: ast.AST, field: str, at: int | None, value: object, *, blank: bool = False
    ) -> None:
        self.node, self.field, self.at, self.value, self.blank = node, field, at, value, blank

    def __call__(self) -> "Undo | None":
        """Make the edit."""
        held = getattr(self.node, self.field)
        if self.blank and isinstance(self.node, ast.UnaryOp):
            # `not x` becomes `bool(x)` in effect: `not not x`.
            inner = self.node.operand
            self.node.operand = ast.UnaryOp(op=ast.Not(), operand=inner)
            return Undo(self.node, "operand", inner)
        if self.at is None:
            setattr(self.node, self.field, self.value)
        else:
            changed = list(held)
            changed[self.at] = self.value
            setattr(self.node, self.field, changed)
        return Undo(self.node, self.field, held)


class Undo:
    """Puts back what a change took."""

    def __init__(self, node: ast.AST, field: str, held: object) -> None:
        self.node, self.field, self.held = node, field, held

    def __call__(self) -> None:
        """Put it back."""
        setattr(self.node, self.field, self.held)


def tests_of(file: str) -> tuple[str, ...]:
    """Return the tests that stand for a file."""
    return next((tests for start, tests in PARTS if file.startswith(start)), ())


def lives(mutant: Mutant, folder: Path) -> bool:
    """Tell whether no test notices the mutant; a run that hangs has noticed."""
    changed = folder / f"mutant-{os.getpid()}.py"
    changed.write_text(mutant.text)
    module = "safehold." + mutant.file.removesuffix(".py").replace("/", ".")
    module = module.removesuffix(".__init__")
    words = [module, str(SOURCE / mutant.file), str(changed), *tests_of(mutant.file)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RUNNER, *words],
            cwd=ROOT,
            env=env,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    finally:
        changed.unlink(missing_ok=True)
    return done.returncode == 0


def everything(only: str = "") -> list[Mutant]:
    """Return every mutant of the parts, or of the files whose path begins so."""
    found: list[Mutant] = []
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        if tests_of(file) and file.startswith(only):
            found += mutants(path)
    return found


def explained() -> dict[str, str]:
    """Return why each known survivor is no gap."""
    if not EXPLAINED.exists():
        return {}
    return {one["mutant"]: one["why"] for one in tomllib.loads(EXPLAINED.read_text())["survivor"]}


def run(sample: int, lot: int, only: str, folder: Path, until: float) -> tuple[int, list[Mutant]]:
    """Try so many mutants by lot; return how many were tried, and who lived unexplained."""
    all_of_them = everything(only)
    chosen = random.Random(lot).sample(all_of_them, min(sample, len(all_of_them)))  # noqa: S311
    known = explained()
    living: list[Mutant] = []
    tried = lived = 0
    for mutant in chosen:
        if time.monotonic() > until:
            break
        tried += 1
        if lives(mutant, folder):
            lived += 1
            why = known.get(mutant.name)
            print(f"LIVES {mutant.name} (line {mutant.line}): {why or 'UNEXPLAINED'}", flush=True)
            if why is None:
                living.append(mutant)
    bound = upper_bound(len(living), tried) if tried else 1.0
    print(
        f"mutants: {tried} of {len(all_of_them)} tried, {tried - lived} killed, {lived} lived, "
        f"{len(living)} unexplained (95% bound {bound:.3f})"
    )
    return tried, living


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="Files whose path below safehold/ begins so.")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--minutes", type=float, default=600.0, help="Stop after so long.")
    given = parser.parse_args()
    if given.list:
        for mutant in everything(given.only):
            print(f"{mutant.name} (line {mutant.line})")
        return
    folder = ROOT / ".bench"
    folder.mkdir(exist_ok=True)
    until = time.monotonic() + given.minutes * 60
    _, living = run(given.sample, given.seed, given.only, folder, until)
    sys.exit(1 if living else 0)


if __name__ == "__main__":
    main()
