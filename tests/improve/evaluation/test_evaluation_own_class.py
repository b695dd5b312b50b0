"""The proof on three classes: what it measures on is apart from what it sets thresholds on."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))
from bench.own_class import CLASSES, STEPS, ClassResult, Step, lay_out, table

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


def test_a_row_says_n_and_bounds() -> None:
    """Each rate of the table stands with its n and its bound, and each AUC with both."""
    one = ClassResult(
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
    )
    said = table([one]).markdown()
    assert "0.960 (at least 0.940; n = 81 and 499)" in said
    assert "n=750" in said
    assert "60 of 90" in said
    assert "train 300 s" in said
