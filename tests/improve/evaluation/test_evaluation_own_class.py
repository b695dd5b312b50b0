"""The proof on three classes: what it measures on is apart from what it sets thresholds on."""

import functools
import json
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.own_class import (
    CLASSES,
    RECORDED,
    ROOT,
    STEPS,
    ClassResult,
    Step,
    lay_out,
    recorded_beside,
    table,
)

from safehold.constitution import load
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.dataset import SynthesisPlan
from safehold.improve.synthesis.families import Deduplicator, Nearness, sketch
from safehold.improve.synthesis.interface import Example
from safehold.improve.synthesis.own import SeedFolder
from safehold.stats import Rate

_FILES = {
    "dev/benign_chat": "benign",
    "dev/benign_mmlu": "benign",
    "dev/standin_brew_neighbour": "benign",
    "dev/neighbour_recipes": "benign",
    "dev/standin_brew_domain": "restricted",
    "dev/standin_soap_domain": "restricted",
    "dev2/standin_bread_domain": "restricted",
    "train/benign_alpaca_train": "benign",
    "train/neighbour_recipes": "benign",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of evaluation text, thirty rows a file, some of them of another label or form."""
    for name, label in _FILES.items():
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": f"{name} {n}", "label": label} for n in range(30)]
        rows += [{"text": f"{name} border", "label": "boundary"}]
        rows += [{"messages": [{"role": "user", "content": name}], "label": label}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def _texts(folder: Path) -> dict[str, list[str]]:
    return {
        path.stem: [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
        for path in folder.glob("*.jsonl")
    }


@pytest.mark.parametrize("name", list(CLASSES))
def test_no_text_is_measured_on_and_calibrated_on(data: Path, tmp_path: Path, name: str) -> None:
    """Passages are restricted ones only, and no text of the traffic is among what is measured."""
    out = tmp_path / "out"
    lay_out(CLASSES[name], data, out, general=20, part=1)
    measured, traffic = _texts(out / "text"), _texts(out / "traffic")
    assert len(measured["general"]) == 20
    assert len(measured["passages"]) == 30
    assert not any("border" in text for text in measured["passages"])
    seen = {text for texts in measured.values() for text in texts}
    assert not seen & {text for texts in traffic.values() for text in texts}


@functools.cache
def _examples() -> tuple[Example, ...]:
    constitution = load(str(ROOT / "examples" / "classes" / "bicycle-repair.yaml"))
    return tuple(SeedFolder(constitution, RECORDED / "bicycles").generate(seed=1))


def test_no_recorded_answer_is_like_another() -> None:
    """`synth` leaves none of the recorded answers out as a near-duplicate."""
    examples = _examples()
    kept = list(Deduplicator(Nearness().same, fold_case=True).filter(examples))
    assert len(kept) == len(examples) > 300


@pytest.mark.parametrize("name", ["restricted_bicycle", "neighbour_bicycle"])
def test_no_recorded_answer_is_like_what_is_measured_on(name: str) -> None:
    """No recorded answer is a relative of a held-out text, by the measure that makes families."""
    told = [sketch(one.reply.casefold()) for one in _examples() if one.reply]
    lines = (RECORDED / "heldout" / f"{name}.jsonl").read_text("utf-8").splitlines()
    held = [sketch(json.loads(line)["text"].casefold()) for line in lines]
    assert max(one.jaccard(own) for one in held for own in told) < Nearness().related


def test_the_filled_class_is_the_live_one_and_its_books() -> None:
    """Beside the live answers, `synth` is given the books; all else is the same."""
    live, filled = CLASSES["bicycles"], CLASSES["bicycles-filled"]
    assert live.beside_words == ()
    assert filled.beside_words == ("--seeds", str(RECORDED / "bicycles"))
    assert msgspec.structs.replace(filled, name=live.name, beside=None) == live


def test_recorded_answers_beside_a_model_are_counted_apart(tmp_path: Path) -> None:
    """An answer that the dataset left out is not counted as used, nor is what was made of one."""
    written = [one for one in _examples() if one.reply]
    made = msgspec.structs.replace(written[0], id=f"{written[0].id}~cut-0")
    plan = SynthesisPlan(
        domain="bicycle-repair",
        constitution="0" * 64,
        generators=("seeds",),
        seed=1,
        target=5,
        seed_books="0" * 64,
    )
    dataset.write(tmp_path, plan, [*written[1:4], made], base=3, dropped=0)
    assert recorded_beside(RECORDED / "bicycles", tmp_path) == (3, len(written))
    row = table([_row(recorded=(3, 300))]).markdown()
    assert "60 of 90, and 3 of 300 recorded" in row


def test_a_row_says_n_and_bounds() -> None:
    """Each rate of the table stands with its n and its bound, and each AUC with both."""
    said = table([_row()]).markdown()
    assert "0.960 (at least 0.940; n = 81 and 499)" in said
    assert "n=750" in said
    assert "| 60 of 90 |" in said
    assert "train 300 s" in said


def _row(recorded: tuple[int, int] = (0, 0)) -> ClassResult:
    return ClassResult(
        name="soap",
        generator="recorded answers",
        asked=90,
        answers=60,
        unusable={},
        train={},
        stage2=True,
        near_auc=(0.96, 0.94, 81, 499),
        general_auc=(0.99, 0.98, 81, 750),
        prompts_flagged=Rate(1, 750),
        replies_flagged=Rate(0, 750),
        prompts_caught=Rate(70, 81),
        replies_caught=Rate(60, 81),
        steps={name: Step(300.0, 900.0) for name in STEPS},
        recorded=recorded,
    )
