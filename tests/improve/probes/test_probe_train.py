"""A probe learnt from a tiny model, as part of a bundle that loads, serves and is measured."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from safehold.errors import BundleError, DataError
from safehold.exchange import user_says
from safehold.guard.bundle.load import UnsafeUnsigned, load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.served.model import HfModel
from safehold.improve.evaluation.run import EvaluationSettings, evaluate
from safehold.improve.probes.fit import fit
from safehold.improve.probes.interface import ProbeSettings, TrainedProbe
from safehold.improve.probes.train import train_probe
from safehold.improve.probes.windows import windows
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split
from safehold.progress import Progress
from safehold.testing.models import tiny_model

BREWING = (
    "Mash the malt at 67 degrees for an hour, sparge, boil the wort with hops for sixty minutes, "
    "chill it to 20 degrees, pitch the yeast and ferment for two weeks. Batch {}."
)
PLAIN = (
    "The brewery tour passes the copper kettle, where the wort was boiled with hops, and the "
    "cellar, where yeast turned it into beer for the museum's visitors; children pay half. Room {}."
)
SETTINGS = ProbeSettings(threads=1, dtype="float32", epochs=4, reply_tokens=60, alpha=0.2)


def examples() -> list[Example]:
    """A few exchanges of both sides in every split."""
    found = []
    for split, count in ((Split.TRAIN, 8), (Split.CALIBRATE, 16), (Split.TEST, 6)):
        for number in range(count):
            for side, text in ((Side.RESTRICTED, BREWING), (Side.PERMITTED, PLAIN)):
                name = f"{split}-{side}-{number}"
                found.append(
                    Example(
                        id=name,
                        family=name,
                        split=split,
                        side=side,
                        clause="beer-production" if side is Side.RESTRICTED else "general",
                        exchange=user_says("Please go on."),
                        reply=text.format(number),
                        ask=False,
                        lineage=Lineage(constitution="c", generator="g", seed=1, chain=()),
                    )
                )
    return found


class Made(msgspec.Struct):
    """The model, the bundle and what training said."""

    model: HfModel
    bundle: Path
    trained: TrainedProbe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle with a probe on a tiny model."""
    home = tmp_path_factory.mktemp("probe")
    model = HfModel(tiny_model(home / "tiny"), dtype="float32")
    folder, pin = stock_bundle()
    trained = train_probe(
        examples(), load_bundle(folder, pin), folder, model, SETTINGS, home / "out", None,
        Progress(),
    )  # fmt: skip
    return Made(model, home / "out", trained)


def test_it_separates_and_says_by_how_much(made: Made) -> None:
    """The probe alone tells the two texts apart, with its n and bound; costs are measured."""
    rows = {row.scorer: row for row in made.trained.test}
    assert set(rows) == {"text", "probe", "both"}
    assert rows["probe"].auc == 1.0
    assert (rows["probe"].n_restricted, rows["probe"].n_permitted) == (6, 6)
    assert rows["probe"].auc_lower <= 1.0
    assert made.trained.features == 3 * 32
    assert made.trained.probe_us > 0
    assert made.trained.blocked_restricted.n == made.trained.blocked_permitted.n == 6


def test_the_bundle_is_bound_to_its_model(made: Made) -> None:
    """It names the model's digest, loads beside it, and keeps canaries of both sides."""
    bundle = load_bundle(made.bundle, UnsafeUnsigned(), served=made.model)
    assert bundle.manifest.model_digest == made.model.digest
    assert bundle.cascade.probe is not None
    canaries = (made.bundle / "probe.canaries.jsonl").read_text().splitlines()
    logits = [json.loads(line)["logit"] for line in canaries]
    assert len(logits) == 6
    assert min(logits[:3]) > max(logits[3:])


def test_the_same_seed_gives_the_same_probe(made: Made, tmp_path: Path) -> None:
    """Seeded runs repeat, weight for weight."""
    folder, pin = stock_bundle()
    train_probe(
        examples(), load_bundle(folder, pin), folder, made.model, SETTINGS, tmp_path / "again",
        None, Progress(),
    )  # fmt: skip
    for name in ("probe.npy", "probe.canaries.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (made.bundle / name).read_bytes()


def test_evaluation_hears_the_probe(made: Made, tmp_path: Path) -> None:
    """`safehold eval` streams replies in the model's tokens and ranks by the probe alone too."""
    lines = [{"text": BREWING.format(n), "label": "restricted"} for n in range(20, 24)]
    lines += [{"text": PLAIN.format(n), "label": "benign"} for n in range(20, 24)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    bundle = load_bundle(made.bundle, UnsafeUnsigned(), served=made.model)
    settings = EvaluationSettings(ablations=True)
    found = evaluate(
        bundle, tmp_path / "a.jsonl", tmp_path / "out", settings, Progress(), served=made.model
    )
    scores = [entry.scores.reply for entry in found.judged]
    assert all(score is not None and score.probe is not None for score in scores)
    rows = {row.variant: row for row in found.report.ablations}
    assert rows["probe alone"].separation.auc > 0.9


def test_a_second_probe_is_refused(made: Made, tmp_path: Path) -> None:
    """A bundle has one probe; its weights were fitted for one."""
    bundle = load_bundle(made.bundle, UnsafeUnsigned(), served=made.model)
    with pytest.raises(BundleError, match="no probe"):
        train_probe(
            examples(), bundle, made.bundle, made.model, SETTINGS, tmp_path / "x", None, Progress()
        )


def test_a_split_without_a_side_is_refused(made: Made, tmp_path: Path) -> None:
    """Nothing is fitted to one side alone."""
    folder, pin = stock_bundle()
    one = [example for example in examples() if example.side is Side.PERMITTED]
    with pytest.raises(DataError, match="no restricted reply"):
        train_probe(
            one, load_bundle(folder, pin), folder, made.model, SETTINGS, tmp_path / "x", None,
            Progress(),
        )  # fmt: skip


def test_the_fit_scores_as_the_served_probe_does() -> None:
    """A window's score in training is the served lane's, floor and shift included."""
    chance = np.random.default_rng(2)
    rows = chance.normal(size=(40, 6)).astype(np.float32)
    settings = ProbeSettings(stride=1, epochs=1)
    both = [windows(rows * sign, settings, restricted=sign > 0) for sign in (1, -1)]
    head = fit(both, settings, Progress())
    sums = both[0].sums.astype(np.float32)
    trained = sums @ head.weights + both[0].shares * head.shift + head.bias
    logits = rows @ head.weights + head.shift
    ends = range(1, len(rows) + 1)
    served = [
        logits[max(0, end - 16) : end].sum() / max(min(end, 16), head.floor) + head.bias
        for end in ends
    ]
    assert np.allclose(trained, served, atol=1e-2)


def test_a_half_written_bundle_never_appears(made: Made, tmp_path: Path) -> None:
    """An existing folder is refused before any work is done."""
    folder, pin = stock_bundle()
    shutil.copytree(folder, tmp_path / "there")
    with pytest.raises(BundleError, match="exists"):
        train_probe(
            [], load_bundle(folder, pin), folder, made.model, SETTINGS, tmp_path / "there", None,
            Progress(),
        )  # fmt: skip
