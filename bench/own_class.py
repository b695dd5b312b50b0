"""Make, train, calibrate and measure guards of three classes that nobody tuned for.

    SAFEHOLD_EVAL_DATA=DIR python -m bench.own_class bread soap bicycles --out .bench/own-class
    ... bicycles-filled        the third again, its thin cells filled by recorded answers
    ... --stage1-only          the first stage alone
    ... --general 600          so many general texts in place of 1,500
    ... --quick                a tenth of the other people's text, for a look

Each class goes the way of `docs/your-own-class.md` by its commands: `synth` from recorded or live
answers, `train`, `calibrate`, `eval`. CPU time is that of each command's process. The text that is
measured on was written by other people, and none of it is trained on. A folder that was made before
is gone on from, so a killed run repeats nothing.
"""

import argparse
import functools
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from bench.recorded_generator import Recorded, declined
from bench.tables import Table

from safehold.constitution import load
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.calls import CALLS
from safehold.improve.synthesis.dataset import MANIFEST
from safehold.improve.synthesis.own import SeedFolder
from safehold.improve.synthesis.seeds import folder_books
from safehold.improve.training.traffic import OWN_ESCALATE
from safehold.stats import Rate
from safehold.testing.generator import GeneratorServer, generating

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "bench" / "recorded"
SEEDS = ROOT / "src" / "safehold" / "improve" / "synthesis" / "seeds"
ENV = "SAFEHOLD_EVAL_DATA"
TRAFFIC = 2_000
"""General texts that thresholds are set on: none of them is measured on."""
GENERAL = 1_500
NEIGHBOURS = 350
ANOTHER = 150
STEPS = ("synth", "train", "calibrate", "eval")


class ClassPlan(msgspec.Struct, frozen=True):
    """One class: its constitution, who answers for the generator, and what it is measured on."""

    name: str
    constitution: str
    passages: str
    books: Path | None = None
    live: str = ""
    options: tuple[str, ...] = ()
    near: str = ""
    beside: Path | None = None
    """Recorded answers that `synth` takes as seed books beside those of a live model."""
    share: float = 1.0
    """How much of the recorded answers there is."""

    @property
    def beside_words(self) -> tuple[str, ...]:
        """The words of `synth` that name them."""
        return () if self.beside is None else ("--seeds", str(self.beside))


_BICYCLES = ClassPlan(
    "bicycles",
    "bicycle-repair",
    str(RECORDED / "heldout" / "restricted_bicycle.jsonl"),
    live="bicycle-repair",
    options=("--rounds", "5", "--max-tokens", "220", "--temperature", "0.7"),
    near=str(RECORDED / "heldout" / "neighbour_bicycle.jsonl"),
)
CLASSES = {
    "bread": ClassPlan(
        "bread",
        "bread",
        "dev2/standin_bread_domain.jsonl",
        books=RECORDED / "bread",
        options=("--rounds", "3"),
    ),
    "soap": ClassPlan(
        "soap",
        "soap",
        "dev/standin_soap_domain.jsonl",
        books=SEEDS / "soap",
        options=("--rounds", "3"),
    ),
    "bicycles": _BICYCLES,
    "bicycles-filled": msgspec.structs.replace(
        _BICYCLES, name="bicycles-filled", beside=RECORDED / "bicycles"
    ),
}


class Step(msgspec.Struct, frozen=True):
    """One command that ran: its CPU and wall seconds."""

    cpu_s: float
    wall_s: float


class ClassResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a class, as the page's table shows it."""

    name: str
    generator: str
    asked: int
    answers: int
    unusable: dict[str, int]
    train: dict[str, int]
    stage2: bool
    near_auc: tuple[float, float, int, int]
    """AUC of passages against neighbours, its lower bound, and the number of both."""
    general_auc: tuple[float, float, int, int]
    prompts_flagged: Rate
    replies_flagged: Rate
    prompts_caught: Rate
    replies_caught: Rate
    steps: dict[str, Step]
    recorded: tuple[int, int] = (0, 0)
    """Of recorded answers beside a live model's: those in the dataset, and all that were written.
    They are in no other count."""


class Replayed(GeneratorServer):
    """Has no answer of its own: all that a live model gave lies in the dataset's book of calls."""

    def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Decline."""
        self.asked.append(body["messages"][-1]["content"])
        return declined()


def main() -> None:
    """Run the classes that are named, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=" ".join(CLASSES))
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "own-class")
    parser.add_argument("--stage1-only", action="store_true")
    parser.add_argument("--general", type=int, default=GENERAL)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    strange = [name for name in asked.classes if name not in CLASSES]
    if strange:
        parser.error(f"expected some of {', '.join(CLASSES)}, got {strange[0]!r}")
    data = os.environ.get(ENV)
    if not data:
        sys.exit(f"{ENV} names no folder of evaluation text; nothing was measured")
    results = []
    for name in asked.classes or list(CLASSES):
        out = asked.out / (name + ("-stage1" if asked.stage1_only else ""))
        few = 10 if asked.quick else 1
        texts = functools.partial(
            lay_out, CLASSES[name], Path(data), out, general=asked.general // few, part=few
        )
        result = measure(CLASSES[name], texts, out, stage2=not asked.stage1_only)
        (out / "figures.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
        results.append(result)
    sys.stdout.write(table(results).markdown())


def measure(plan: ClassPlan, texts: Callable[[], None], out: Path, *, stage2: bool) -> ClassResult:
    """Make what is not there, and measure it on what `texts` lays out."""
    out.mkdir(parents=True, exist_ok=True)
    key = ["--signing-key", str(out / "key.pem")]
    steps: dict[str, Step] = {}
    made = out / "data"
    if not (made / MANIFEST).exists():
        source = str(ROOT / "examples" / "classes" / f"{plan.constitution}.yaml")
        with _generator(plan, made) as (url, model):
            _run(
                steps, out, "synth", "synth", "--constitution", source, "--generator", url,
                "--generator-model", model, "--out", str(made), "--size", "small", *plan.options,
                *plan.beside_words,
            )  # fmt: skip
    if not (out / "trained").exists():
        more = [] if stage2 else ["--stage1-only"]
        _run(steps, out, "train", "train", "--data", str(made), "--out", str(out / "trained"),
             *key, *more)  # fmt: skip
    texts()
    if not (out / "served").exists():
        _run(steps, out, "calibrate", "calibrate", str(out / "trained"), "--benign",
             str(out / "traffic"), "--out", str(out / "served"), "--escalate", str(OWN_ESCALATE),
             *_trust(out), *key)  # fmt: skip
    _run(steps, out, "eval", "eval", str(out / "served"), "--data", str(out / "text"), "--out",
         str(out / "report"), *_trust(out))  # fmt: skip
    return _result(plan, out, steps, stage2=stage2)


def _trust(out: Path) -> list[str]:
    return ["--bundle-key", str(out / "key.pub")]


@contextmanager
def _generator(plan: ClassPlan, made: Path) -> Iterator[tuple[str, str]]:
    """Yield the address and the name of who answers; a live model's answers are laid there."""
    if plan.books is not None:
        constitution = load(str(ROOT / "examples" / "classes" / f"{plan.constitution}.yaml"))
        with generating(Recorded(plan.books, constitution, plan.share)) as running:
            yield running.url, "recorded"
        return
    packed = RECORDED / "live" / f"{plan.live}.calls.jsonl.gz"
    if not packed.exists():
        sys.exit(f"{packed}: no answers of that model are recorded; nothing was measured")
    calls = gzip.decompress(packed.read_bytes())
    made.mkdir(parents=True, exist_ok=True)
    if not (made / CALLS).exists():
        (made / CALLS).write_bytes(calls)
    model = json.loads(calls.splitlines()[0])["call"]["model"]
    with generating(Replayed()) as running:
        yield running.url, model


def _run(steps: dict[str, Step], out: Path, name: str, *words: str) -> None:
    """Run a command, its output in a log, and note what it cost; end where it failed."""
    began = time.monotonic()
    with (out / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "safehold", *words], stdout=log, stderr=log, cwd=ROOT
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{name} ended with {child.returncode}; see {out / name}.log")
    spent = Step(used.ru_utime + used.ru_stime, time.monotonic() - began)
    steps[name] = spent
    (out / f"{name}.cost.json").write_bytes(msgspec.json.encode(spent))


def lay_out(plan: ClassPlan, data: Path, out: Path, *, general: int, part: int) -> None:
    """Lay out what is measured on and, apart from it, the traffic that thresholds are set on.

    `general` texts of ordinary use, and one of `part` of the neighbours.
    """
    ordinary = [
        row
        for name in ("dev/benign_chat", "dev/benign_mmlu")
        for row in _rows(data / f"{name}.jsonl")
    ]
    near = _spread(_rows(data / "dev" / "standin_brew_neighbour.jsonl"), NEIGHBOURS)
    near += _rows(data / "dev" / "neighbour_recipes.jsonl")
    near += _rows(Path(plan.near)) if plan.near else []
    another = _spread(_rows(data / "dev" / "standin_brew_domain.jsonl", "restricted"), ANOTHER)
    _write(out / "text" / "passages.jsonl", _rows(data / plan.passages, "restricted"), "restricted")
    _write(out / "text" / "neighbour_texts.jsonl", _spread(near, len(near) // part), "benign")
    _write(out / "text" / "neighbour_class.jsonl", another[::part], "benign")
    _write(out / "text" / "general.jsonl", _spread(ordinary, general), "benign")
    usual = _spread(_rows(data / "train" / "benign_alpaca_train.jsonl"), TRAFFIC)
    _write(out / "traffic" / "general.jsonl", usual, "benign")
    recipes = _rows(data / "train" / "neighbour_recipes.jsonl", "benign")
    _write(out / "traffic" / "neighbour_recipes.jsonl", recipes, "benign")


def _rows(path: Path, label: str | None = None) -> list[dict[str, str]]:
    """Return the rows of a file that are one text each, of one label where that is named."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row.get("text") and (label is None or row["label"] == label)]


def _spread(rows: list[dict[str, str]], most: int) -> list[dict[str, str]]:
    count = min(most, len(rows))
    return [rows[at * len(rows) // count] for at in range(count)]


def _write(path: Path, rows: list[dict[str, str]], label: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"text": row["text"], "label": label, "source": row.get("source", "")})
        for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _result(plan: ClassPlan, out: Path, steps: dict[str, Step], *, stage2: bool) -> ClassResult:
    report = json.loads((out / "report" / "report.json").read_bytes())
    coverage = json.loads((out / "data" / "coverage.json").read_bytes())[0]
    splits = json.loads((out / "data" / "manifest.json").read_bytes())["splits"]
    faults: dict[str, int] = {}
    for row in coverage["groups"]:
        for fault, count in row["faults"].items():
            faults[fault] = faults.get(fault, 0) + count
    for name in STEPS:
        cost = out / f"{name}.cost.json"
        # A run that was killed right after a step has none of it.
        known = msgspec.json.decode(cost.read_bytes(), type=Step) if cost.exists() else None
        steps[name] = known or Step(0.0, 0.0)
    slices = {row["name"]: row for row in report["slices"]}
    return ClassResult(
        name=plan.name,
        generator=_generator_named(plan, coverage["generator"]),
        asked=sum(row["asks"] for row in coverage["groups"]),
        answers=sum(row["answers"] for row in coverage["groups"]),
        unusable=faults,
        train={name: count for name, count in splits.items() if name.startswith("train")},
        stage2=stage2,
        near_auc=_separation(report, "all adjacent benign"),
        general_auc=_separation(report, "all general benign"),
        prompts_flagged=_flagged(slices["general"], "prompt"),
        replies_flagged=_flagged(slices["general"], "reply"),
        prompts_caught=_flagged(slices["passages"], "prompt"),
        replies_caught=_flagged(slices["passages"], "reply"),
        steps=steps,
        recorded=(0, 0) if plan.beside is None else recorded_beside(plan.beside, out / "data"),
    )


def _generator_named(plan: ClassPlan, model: str) -> str:
    """Say who answered; recorded answers are never called a model's."""
    if not plan.live:
        return "recorded answers"
    return f"live, {model}" + (", and recorded answers" if plan.beside is not None else "")


def recorded_beside(books: Path, made: Path) -> tuple[int, int]:
    """Return how many answers of the books stand in a dataset, and how many the books hold."""
    written = {
        f"{SeedFolder.name}/{book.name}/{one.id}"
        for book in folder_books(books)
        for one in book.exchanges
    }
    return len(written & {one.id for one in dataset.read(made)}), len(written)


def _separation(report: dict[str, Any], others: str) -> tuple[float, float, int, int]:
    (found,) = [
        row
        for row in report["separations"]
        if row["others"] == others and row["surface"] == "reply"
    ]
    return found["auc"], found["auc_lower"], found["n_restricted"], found["n_others"]


def _flagged(row: dict[str, Any], surface: str) -> Rate:
    found = row[surface]["flagged"]
    return Rate(found["events"], found["n"])


def table(results: list[ClassResult]) -> Table:
    """Return the page's table."""
    rows = [
        (
            one.name,
            one.generator,
            _answers(one),
            _auc(one.near_auc),
            _auc(one.general_auc),
            f"{one.prompts_flagged.at_most()}; {one.replies_flagged.at_most()}",
            f"{one.prompts_caught.at_least()}; {one.replies_caught.at_least()}",
            ", ".join(f"{name} {one.steps[name].cpu_s:.0f} s" for name in STEPS),
        )
        for one in results
    ]
    return Table(
        "Three classes" + ("" if all(one.stage2 for one in results) else ", the first stage alone"),
        (
            "class",
            "generator",
            "usable answers",
            "AUC against neighbours",
            "AUC against general text",
            "general text flagged: prompts; replies",
            "passages caught: prompts; replies",
            "CPU time",
        ),
        tuple(rows),
    )


def _answers(one: ClassResult) -> str:
    used, written = one.recorded
    beside = f", and {used} of {written} recorded" if written else ""
    return f"{one.answers} of {one.asked}{beside}"


def _auc(found: tuple[float, float, int, int]) -> str:
    value, lower, own, others = found
    return f"{value:.3f} (at least {lower:.3f}; n = {own} and {others})"


if __name__ == "__main__":
    main()
