"""Stage 2 of a challenger: fine-tuned on the variants and a replay, exported as it is served.

Stage 1 alone can only show an attack to stage 2. Where stage 2 takes the dress for the crime, or
the crime for the dress, it must learn both sides of it. The replay holds what it knew.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from safehold.guard.bundle.interface import Manifest
from safehold.guard.bundle.load import Bundle
from safehold.guard.scorers.encoder.multilingual import MultilingualScorer
from safehold.guard.session.segments import PIECE, pieces
from safehold.improve.response.interface import Incident, IncidentKind, ResponseError, Variant
from safehold.improve.training.export import to_onnx, word_vectors
from safehold.improve.training.float_weights import Weights, weights_of
from safehold.improve.training.interface import LabelledPair
from safehold.improve.training.multilingual import MultilingualEncoder
from safehold.improve.training.served_network import stage2_network, stage2_reader
from safehold.improve.training.stage2 import (
    MultilingualHeadSettings,
    train_multilingual,
)
from safehold.progress import Progress


class RefineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How stage 2 is fine-tuned.

    `replayed` pairs of the training set are learnt again. `weight` is a restricted variant's,
    `twin_weight` a permitted one's and `own_weight` the incident's, beside a replayed pair's 1.
    """

    seed: int = 1
    threads: int = 2
    replayed: int = 1_500
    weight: float = 1.0
    twin_weight: float = 1.5
    own_weight: float = 4.0
    head: MultilingualHeadSettings = MultilingualHeadSettings(
        trained=3,
        epochs=2,
        later=1.0,
        batch_rows=1600,
        learning_rate=4e-5,
        head_rate=4e-4,
        warmup=10,
    )


class Refined(msgspec.Struct, frozen=True):
    """A fine-tuned stage 2: its scorer, its file and its float weights."""

    scorer: MultilingualScorer
    model: bytes
    weights: Weights


def lessons(
    incident: Incident,
    made: Sequence[Variant],
    replay: Sequence[LabelledPair],
    clauses: Sequence[str],
    settings: RefineSettings,
) -> list[list[LabelledPair]]:
    """Return what each pass reads: variants that are not held out, the incident, a replay.

    Raises:
        ResponseError: The bundle's stage 2 does not know the incident's clause.
    """
    miss = incident.kind is IncidentKind.MISS
    if miss and incident.clause not in clauses:
        raise ResponseError(f"{incident.clause}: expected a clause of {', '.join(clauses)}")
    clause = clauses.index(incident.clause) if incident.clause in clauses else 0
    passes = []
    for turn in range(settings.head.epochs):
        rng = random.Random(f"{settings.seed}/{turn}")
        new = [
            _lesson(one.text, clause if one.restricted else -1, settings, rng)
            for one in made
            if not one.held_out
        ]
        own = _lesson(incident.text, clause if miss else -1, settings, rng)
        own = msgspec.structs.replace(own, weight=settings.own_weight)
        old = rng.sample(list(replay), min(settings.replayed, len(replay)))
        passes.append([*new, own, *old])
    return passes


def _lesson(text: str, clause: int, settings: RefineSettings, rng: random.Random) -> LabelledPair:
    if clause >= 0:
        return LabelledPair(text[-2 * PIECE :], "", clause, settings.weight)
    piece = text if len(text) <= PIECE else rng.choice(pieces(text))
    return LabelledPair(piece, "", -1, settings.twin_weight)


def taught(
    champion: Bundle,
    folder: Path,
    incident: Incident,
    made: Sequence[Variant],
    replay: Sequence[LabelledPair],
    settings: RefineSettings,
    progress: Progress,
) -> MultilingualEncoder:
    """Return the champion's network after the lessons; the same seed gives the same weights.

    Raises:
        DataError: The champion has no stage 2 that can be trained on.
        ResponseError: Its stage 2 does not know the incident's clause.
    """
    torch.set_num_threads(settings.threads)
    record = champion.manifest.stage2
    clauses = () if record is None else record.clauses
    model = stage2_network(champion, folder)
    unigram, words = stage2_reader(champion, folder)
    passes = lessons(incident, made, replay, clauses, settings)
    return train_multilingual(
        model, unigram, words, passes, settings.head, seed=settings.seed, progress=progress
    )


def refined(
    champion: Bundle,
    folder: Path,
    incident: Incident,
    made: Sequence[Variant],
    replay: Sequence[LabelledPair],
    settings: RefineSettings,
    progress: Progress,
) -> Refined:
    """Return the champion's stage 2 after the lessons, as it is served.

    Raises:
        DataError: The champion has no stage 2 that can be trained on.
        ResponseError: Its stage 2 does not know the incident's clause.
    """
    model = taught(champion, folder, incident, made, replay, settings, progress)
    unigram, words = stage2_reader(champion, folder)
    record = champion.manifest.stage2
    name, clauses = ("e5", ()) if record is None else (record.name, record.clauses)
    texts = [*(pair.reply or pair.prompt for pair in replay), *(one.text for one in made)]
    content = to_onnx(model, word_vectors(unigram, words, [incident.text, *texts]))
    scorer = MultilingualScorer(name, content, words, unigram, clauses)
    return Refined(scorer, content, weights_of(model))


def with_stage2(bundle: Bundle, found: Refined) -> Bundle:
    """Return the bundle with another stage 2, in memory."""
    return msgspec.structs.replace(bundle, stage2=found.scorer)


def model_file(manifest: Manifest) -> str:
    """Return the name of stage 2's file; empty where there is no stage 2."""
    return "" if manifest.stage2 is None else manifest.stage2.model
