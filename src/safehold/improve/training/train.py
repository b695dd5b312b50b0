"""From a labelled dataset to a signed, calibrated bundle.

Numbered as it happens:
1. Stage 1 learns from the training split.
2. Stage 2 learns from the training split.
3. Escalation thresholds come from stage 1's scores of the calibration split.
4. The ensemble's weights are fitted on the calibration split's escalated logits.
5. Block thresholds come from benign calibration scores by the umbrella rule.
6. The finished guard serves the test split, which nothing before has seen; that is reported.
7. The golden set is drawn from the test split; the bundle is written and signed.
"""

import importlib.metadata
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import DataError
from safehold.exchange import Exchange
from safehold.guard.bundle.interface import (
    SCHEMA,
    Golden,
    LineageRecord,
    Manifest,
    Operating,
    Stage1Record,
    Stage2Record,
)
from safehold.guard.bundle.write import manifest_of_files, window_head_file, write_bundle
from safehold.guard.interface import Block
from safehold.guard.scorers.encoder.multilingual import MultilingualScorer
from safehold.guard.scorers.windowed import WindowHead, WindowScorer
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.segments import segments
from safehold.guard.session.session import Guard
from safehold.improve.synthesis.interface import GENERAL, Example, Side, Split
from safehold.improve.training.calibration import fit_ensemble, umbrella_threshold
from safehold.improve.training.checkpoints import (
    NOTHING_KEPT,
    PACKAGES,
    Checkpoints,
    in_parts,
    made_of,
    through,
)
from safehold.improve.training.examples import of_split, prompt_texts, reply_texts
from safehold.improve.training.fitted import fitted_head, fitted_network
from safehold.improve.training.float_weights import STAGE1, Weights, keep_weights
from safehold.improve.training.multilingual import MultilingualShape
from safehold.improve.training.stage2 import MultilingualHeadSettings
from safehold.improve.training.traces import Trace, outcome, trace
from safehold.improve.training.window_head import WindowHeadSettings, train_window_head
from safehold.progress import Progress

_FOREVER = 1e9
_FEW_RESTRICTED = 100
"""Restricted examples from which the first ones of a split are enough."""


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that training depends on beside the dataset.

    `alpha` is the false-positive rate that the umbrella rule bounds (on prompts, on replies), with
    probability 1 - `delta`; `escalate_recall` the share of restricted calibration examples that
    should reach stage 2; `escalate_most` the most of the general benign ones that may (on prompts,
    on replies): traffic is general, and stage 2 is what costs. A class of somebody's own uses all
    of that. The general texts of the seed books
    lie nearer to the restricted ones than traffic does, of which fewer will. The calibration and
    test splits are read up to `measured` examples each, beside the package's general text up to
    `own_measured`: the umbrella rule needs 149 benign ones, and reading one takes 0.2 s.
    """

    seed: int = 20261121
    threads: int = 2
    alpha: tuple[float, float] = (0.02, 0.06)
    delta: float = 0.05
    escalate_recall: float = 0.99
    escalate_most: tuple[float, float] = (0.12, 0.5)
    stage2: bool = True
    measured: int = 1_200
    own_measured: int = 600
    prompt_head: WindowHeadSettings = WindowHeadSettings(floor=1)
    reply_head: WindowHeadSettings = WindowHeadSettings(floor=24)
    shape: MultilingualShape = MultilingualShape()
    exchange_head: MultilingualHeadSettings = MultilingualHeadSettings()


class Provenance(msgspec.Struct, frozen=True):
    """What the bundle's lineage names: the constitution, the data and how it was made.

    `general` are the permitted clauses that stand for everything else.
    """

    name: str
    constitution: str
    constitution_digest: str
    data_digest: str
    generators: tuple[str, ...]
    clauses: tuple[str, ...]
    general: tuple[str, ...]
    command: str


class Trained(msgspec.Struct, frozen=True):
    """The finished bundle's digest and the figures of its test split."""

    digest: str
    calibration: dict[str, Operating]


class _Served(msgspec.Struct, frozen=True):
    """What the finished guard did with an example: what it blocked, and whether stage 2 read."""

    prompt: bool
    reply: bool
    escalated: bool


class _Scorers(msgspec.Struct, frozen=True):
    prompt: WindowHead
    reply: WindowHead
    stage1: WindowScorer
    stage2: MultilingualScorer | None
    files: dict[str, bytes]
    floats: dict[str, npt.NDArray[np.float32]] = {}


def train(
    examples: Sequence[Example],
    provenance: Provenance,
    settings: TrainingSettings,
    folder: Path,
    key: Ed25519PrivateKey | None,
    progress: Progress,
    start: Weights | None = None,
    kept: Checkpoints = NOTHING_KEPT,
) -> Trained:
    """Train, calibrate, measure and write a bundle; the same inputs give the same scores.

    With `start`, the float weights of another bundle, stage 2 goes on from there. `kept` takes what
    is computed, so that the same call after a kill goes on and writes the same bytes; `record_of`
    says whether it is of the same call.

    Raises:
        DataError: The dataset is too small for the guarantee, or a split or side is missing.
        BundleError: The folder exists already.
    """
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(mode=True)
    # Filling fresh memory costs a third of the run time and no result reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    split = {part: of_split(examples, part) for part in Split}
    own = any(example.lineage.generator == GENERAL for example in examples)
    for part in (Split.CALIBRATE, Split.TEST):
        split[part] = _measured(split[part], settings.own_measured if own else settings.measured)
    if own:
        # Its few restricted examples are one generator's: what they need says little of others.
        settings = msgspec.structs.replace(settings, escalate_recall=1.0)
    _check(split)
    scorers = _train_scorers(
        split[Split.TRAIN], provenance.clauses, settings, progress, start, kept
    )
    plain = [example for example in split[Split.CALIBRATE] if not example.lineage.chain]
    cascade = _calibrate(
        scorers, split[Split.CALIBRATE], plain, provenance.general, settings, progress, kept
    )
    calibration = _measure(cascade, scorers, split[Split.TEST], plain, settings, progress, kept)
    manifest = _manifest(scorers, cascade, provenance, settings, calibration, split)
    files = dict(scorers.files)
    files[manifest.golden] = through(
        kept, "golden", bytes, lambda: _golden(cascade, scorers, split[Split.TEST])
    )
    # The weights come first: a bundle without them could never be trained on.
    _, digest = manifest_of_files(manifest, files)
    keep_weights(folder, digest, {**scorers.floats, **_head_weights(scorers)})
    write_bundle(folder, manifest, files, key)
    kept.clear()
    return Trained(digest, calibration)


def record_of(
    examples: Sequence[Example],
    provenance: Provenance,
    settings: TrainingSettings,
    start: Weights | None = None,
) -> dict[str, str]:
    """Return the digests of what a training depends on, for `checkpoints.kept_beside`."""
    begun = {name: value.tobytes() for name, value in sorted((start or {}).items())}
    return made_of(
        examples,
        seed=settings.seed,
        settings=msgspec.structs.replace(settings, seed=0),
        constitution=(provenance.constitution_digest, provenance.clauses, provenance.general),
        command=(provenance.name, provenance.command, provenance.data_digest),
        start=b"".join(name.encode() + b"\0" + value for name, value in begun.items()),
    )


def _head_weights(scorers: _Scorers) -> dict[str, npt.NDArray[np.float32]]:
    return {
        f"{STAGE1}.{name}": head.table
        for name, head in (("prompt", scorers.prompt), ("reply", scorers.reply))
    }


def _measured(examples: list[Example], most: int) -> list[Example]:
    """Return the first examples, and every restricted one where those hold few of them."""
    first = examples[:most]
    if sum(example.side is Side.RESTRICTED for example in first) >= _FEW_RESTRICTED:
        return first
    restricted = [one for one in examples if one.side is Side.RESTRICTED][: most // 2]
    permitted = [one for one in examples if one.side is Side.PERMITTED][: most - len(restricted)]
    return [*restricted, *permitted]


def _check(split: dict[Split, list[Example]]) -> None:
    """Refuse, before anything is computed, data that lacks a side on one of the two surfaces."""
    for part, examples in split.items():
        for side in Side:
            own = [example for example in examples if example.side is side]
            asked = sum(example.ask or side is Side.PERMITTED for example in own)
            replies = sum(bool(example.reply) for example in own)
            for what, count in (("request", asked), ("reply", replies)):
                if not count:
                    raise DataError(
                        f"the {part} split has no {side} {what}: make more with `safehold synth`, "
                        "by more --rounds, seeds or --fill"
                    )


def _train_scorers(
    examples: Sequence[Example],
    clauses: tuple[str, ...],
    settings: TrainingSettings,
    progress: Progress,
    start: Weights | None,
    kept: Checkpoints,
) -> _Scorers:
    # 1.
    prompt, reply = (
        fitted_head(
            kept,
            name,
            lambda texts=texts, own=own: train_window_head(  # type: ignore[misc]
                texts(examples, seed=settings.seed), own, progress
            ),
        )
        for name, texts, own in (
            ("prompt", prompt_texts, settings.prompt_head),
            ("reply", reply_texts, settings.reply_head),
        )
    )
    files: dict[str, bytes] = {}
    for name, head in (("stage1.prompt.npy", prompt), ("stage1.reply.npy", reply)):
        _, files[name] = window_head_file(name, head)
    # The served scorer uses the weights as they are stored.
    stage1 = WindowScorer("ngram-sets", _stored(prompt), _stored(reply), clauses[0])
    # 2.
    stage2 = None
    floats: dict[str, npt.NDArray[np.float32]] = {}
    if settings.stage2:
        fitted = fitted_network(
            examples,
            clauses,
            settings.shape,
            settings.exchange_head,
            kept,
            seed=settings.seed,
            start=start,
            progress=progress,
        )
        stage2 = fitted.scorer(clauses)
        files.update(fitted.files())
        floats = fitted.weights()
    return _Scorers(prompt, reply, stage1, stage2, files, floats)


def _stored(head: WindowHead) -> WindowHead:
    return msgspec.structs.replace(head, table=head.table.astype(np.float16).astype(np.float32))


def _calibrate(
    scorers: _Scorers,
    examples: Sequence[Example],
    plain: Sequence[Example],
    general: tuple[str, ...],
    settings: TrainingSettings,
    progress: Progress,
    kept: Checkpoints,
) -> Cascade:
    # 3.
    open_all = Thresholds(
        escalate=_FOREVER, weights=(1.0, 0.0, 0.0), block=_FOREVER, alone=_FOREVER
    )
    cascade = Cascade(
        digest="", stage1=scorers.stage1, has_stage2=False, prompt=open_all, reply=open_all
    )
    decoder = ViewDecoder()
    progress.start("calibration, stage 1", len(examples))
    first = in_parts(
        kept, "calibration.1", examples, Trace, progress,
        lambda some: trace(cascade, None, decoder, some, progress),
    )  # fmt: skip
    flags = _flags(examples, {id(example) for example in plain})
    usual = _flags(examples, {id(example) for example in plain if example.clause in general})
    prompt, reply = (
        _escalation(
            [
                (row, is_usual)
                for row, is_usual in zip(first, usual, strict=True)
                if row.prompt is on_prompt
            ],
            settings.escalate_recall,
            settings.escalate_most[0 if on_prompt else 1],
        )
        for on_prompt in (True, False)
    )
    if scorers.stage2 is None:
        return _stage1_only(cascade, first, settings)
    # 4.
    escalating = msgspec.structs.replace(
        cascade,
        has_stage2=True,
        prompt=msgspec.structs.replace(open_all, escalate=prompt),
        reply=msgspec.structs.replace(open_all, escalate=reply),
    )
    progress.start("calibration, stage 2", len(examples))
    second = in_parts(
        kept, "calibration.2", examples, Trace, progress,
        lambda some: trace(escalating, scorers.stage2, decoder, some, progress),
    )  # fmt: skip
    surfaces = []
    for surface, on_prompt in ((escalating.prompt, True), (escalating.reply, False)):
        rows = [
            (row, is_plain)
            for row, is_plain in zip(second, flags, strict=True)
            if row.prompt is on_prompt
        ]
        alpha = settings.alpha[0 if on_prompt else 1]
        surfaces.append(_block_threshold(surface, rows, alpha, settings.delta))
    return msgspec.structs.replace(escalating, prompt=surfaces[0], reply=surfaces[1])


def _flags(examples: Sequence[Example], kept: set[int]) -> list[bool]:
    """Say for every trace, in their order, whether its example is one of those."""
    flags: list[bool] = []
    for example in examples:
        restricted = example.side is Side.RESTRICTED
        count = int(example.ask or not restricted) + int(bool(example.reply))
        flags += [id(example) in kept] * count
    return flags


def _escalation(traces: Sequence[tuple[Trace, bool]], recall: float, most: float) -> float:
    """Return the stage-1 logit that lets the wanted share of restricted examples through.

    It rises until no more than `most` of the general benign ones (marked; all benign where none
    is) come through as well.
    """
    restricted = [t.stage1 for t, _ in traces if t.restricted and math.isfinite(t.stage1)]
    benign = [(t.stage1, usual) for t, usual in traces if not t.restricted]
    general = [logit for logit, usual in benign if usual] or [logit for logit, _ in benign]
    wanted = float(np.quantile(restricted, 1 - recall))
    finite = [max(logit, -_FOREVER) for logit in general]
    return max(wanted, float(np.quantile(finite, 1 - most)))


def _block_threshold(
    surface: Thresholds, rows: Sequence[tuple[Trace, bool]], alpha: float, delta: float
) -> Thresholds:
    # 4. Fitted on each example's hottest escalation, restricted against permitted.
    hottest = [
        (max(row.pairs, key=lambda pair: pair[1]), row.restricted) for row, _ in rows if row.pairs
    ]
    weights = fit_ensemble(
        [pair[0] for pair, _ in hottest],
        [pair[1] for pair, _ in hottest],
        [restricted for _, restricted in hottest],
    )
    # 5. An example that never escalates can't be blocked: it scores lowest.
    benign = [
        max((_combined(weights, pair) for pair in row.pairs), default=-_FOREVER)
        for row, is_plain in rows
        if is_plain and not row.restricted
    ]
    threshold = umbrella_threshold(benign, alpha, delta)
    return msgspec.structs.replace(
        surface, weights=weights, block=float(np.nextafter(threshold.value, np.inf))
    )


def _combined(weights: tuple[float, float, float], pair: tuple[float, float]) -> float:
    return weights[0] * pair[0] + weights[1] * pair[1] + weights[2]


def _stage1_only(cascade: Cascade, traces: Sequence[Trace], settings: TrainingSettings) -> Cascade:
    def alone(*, on_prompt: bool) -> Thresholds:
        scores = [t.stage1 for t in traces if t.prompt is on_prompt and not t.restricted]
        alpha = settings.alpha[0 if on_prompt else 1]
        threshold = umbrella_threshold(scores, alpha, settings.delta)
        value = float(np.nextafter(threshold.value, np.inf))
        return Thresholds(escalate=value, weights=(1.0, 0.0, 0.0), block=value, alone=value)

    return msgspec.structs.replace(
        cascade, prompt=alone(on_prompt=True), reply=alone(on_prompt=False)
    )


def _measure(
    cascade: Cascade,
    scorers: _Scorers,
    examples: Sequence[Example],
    plain: Sequence[Example],
    settings: TrainingSettings,
    progress: Progress,
    kept: Checkpoints,
) -> dict[str, Operating]:
    # 6.
    guard = Guard(cascade, ViewDecoder())

    def served(some: Sequence[Example]) -> list[_Served]:
        found = []
        for example in some:
            verdict, block, escalations = outcome(guard, scorers.stage2, example)
            found.append(_Served(isinstance(verdict, Block), block is not None, escalations > 0))
            progress.advance()
        return found

    counts: Counter[str] = Counter()
    progress.start("test split", len(examples))
    ends = in_parts(kept, "test", examples, _Served, progress, served)
    for example, one in zip(examples, ends, strict=True):
        side = example.side.value
        if example.ask or example.side is Side.PERMITTED:
            counts[f"prompt {side}"] += 1
            counts[f"prompt {side} blocked"] += one.prompt
            counts[f"prompt {side} escalated"] += one.escalated
        if example.reply:
            counts[f"reply {side}"] += 1
            counts[f"reply {side} blocked"] += one.reply
            counts[f"reply {side} escalated"] += one.escalated
    benign = sum(1 for example in plain if example.side is Side.PERMITTED)
    replies = sum(1 for example in plain if example.side is Side.PERMITTED and example.reply)
    return {
        surface: Operating(
            alpha=alpha,
            delta=settings.delta,
            calibration_n=n,
            calibration_rank=umbrella_threshold(range(n), alpha, settings.delta).rank,
            escalated=(counts[f"{surface} permitted escalated"], counts[f"{surface} permitted"]),
            test_false_positives=(
                counts[f"{surface} permitted blocked"],
                counts[f"{surface} permitted"],
            ),
            test_true_positives=(
                counts[f"{surface} restricted blocked"],
                counts[f"{surface} restricted"],
            ),
        )
        for surface, n, alpha in (
            ("prompt", benign, settings.alpha[0]),
            ("reply", replies, settings.alpha[1]),
        )
    }


def _manifest(
    scorers: _Scorers,
    cascade: Cascade,
    provenance: Provenance,
    settings: TrainingSettings,
    calibration: dict[str, Operating],
    split: dict[Split, list[Example]],
) -> Manifest:
    prompt, _ = window_head_file("stage1.prompt.npy", scorers.prompt)
    reply, _ = window_head_file("stage1.reply.npy", scorers.reply)
    stage2 = None
    if scorers.stage2 is not None:
        stage2 = Stage2Record(
            "e5", "stage2.onnx", "stage2.vocab.txt", provenance.clauses, words="stage2.words.npy"
        )
    return Manifest(
        schema=SCHEMA,
        name=provenance.name,
        constitution=provenance.constitution,
        constitution_digest=provenance.constitution_digest,
        stage1=Stage1Record("ngram-sets", prompt, reply, provenance.clauses[0]),
        stage2=stage2,
        prompt=cascade.prompt,
        reply=cascade.reply,
        rules=(),
        calibration=calibration,
        lineage=LineageRecord(
            data_digest=provenance.data_digest,
            generators=provenance.generators,
            seed=settings.seed,
            examples={part.value: len(found) for part, found in split.items()},
            command=provenance.command,
            packages={name: importlib.metadata.version(name) for name in PACKAGES},
        ),
        model_digest=None,
        golden="golden.jsonl",
        files={},
    )


def _golden(cascade: Cascade, scorers: _Scorers, examples: Sequence[Example]) -> bytes:
    # 7. Exchanges that the new guard judges rightly, of both kinds, for every later load to repeat.
    guard = Guard(cascade, ViewDecoder())
    wanted = {Side.RESTRICTED: 12, Side.PERMITTED: 12}
    lines: list[bytes] = []
    for example in examples:
        if example.lineage.chain or not wanted[example.side]:
            continue
        verdict, block, _ = outcome(guard, scorers.stage2, example)
        blocked = isinstance(verdict, Block) or block is not None
        if blocked is (example.side is Side.RESTRICTED):
            said = _single_turn(example.exchange)
            if said is None:
                continue
            lines.append(msgspec.json.encode(Golden(said, example.reply, blocked)))
            wanted[example.side] -= 1
    return b"\n".join(lines) + b"\n"


def _single_turn(exchange: Exchange) -> str | None:
    texts = [segment.text for segment in segments(exchange)]
    return texts[0] if len(texts) == 1 else None
