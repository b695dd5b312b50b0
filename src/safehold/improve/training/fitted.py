"""Fits stage 1 and stage 2 to a training split, as parts that a killed training goes on from."""

import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from safehold.errors import DataError
from safehold.guard.bundle.write import array_file
from safehold.guard.scorers.encoder.multilingual import MultilingualScorer
from safehold.guard.scorers.encoder.unigram import Unigram
from safehold.guard.scorers.windowed import WindowHead
from safehold.improve.synthesis.interface import Example
from safehold.improve.training.checkpoints import Checkpoints, through
from safehold.improve.training.examples import pairs, passes
from safehold.improve.training.export import to_onnx, word_vectors
from safehold.improve.training.float_weights import Weights, network, weights_of
from safehold.improve.training.multilingual import (
    MultilingualShape,
    kept_by_use,
    load_multilingual,
    pretrained_file,
    read_pretrained,
)
from safehold.improve.training.stage2 import (
    STANDING,
    MultilingualHeadSettings,
    train_multilingual,
)
from safehold.progress import Progress

_STAGE2 = "stage2"
_ROW_BYTES = 216


class _KeptHead(msgspec.Struct, frozen=True):
    table: bytes
    bias: float
    floor: int


class FittedNetwork(msgspec.Struct, frozen=True):
    """A trained stage 2: its ONNX file, the pieces with their word rows, and its float weights."""

    onnx: bytes
    words: bytes
    """Of all pieces, packed, one after the other."""
    pieces: list[str]
    scores: list[float]
    floats: bytes
    """In the form of safetensors."""

    def scorer(self, clauses: tuple[str, ...]) -> MultilingualScorer:
        """Return the scorer that will serve."""
        return MultilingualScorer(
            "e5", self.onnx, self._rows(), Unigram(self.pieces, self.scores), clauses
        )

    def files(self) -> dict[str, bytes]:
        """Return the bundle's files."""
        lines = (
            f"{piece}\t{score!r}" for piece, score in zip(self.pieces, self.scores, strict=True)
        )
        return {
            "stage2.onnx": self.onnx,
            "stage2.words.npy": array_file(self._rows()),
            "stage2.vocab.txt": ("\n".join(lines) + "\n").encode(),
        }

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the float weights by name.

        Raises:
            DataError: They are not of that form.
        """
        try:
            return dict(load(self.floats))
        except SafetensorError as error:
            raise DataError(f"{_STAGE2}: the kept weights can't be read: {error}") from error

    def _rows(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self.words, np.uint8).reshape(len(self.pieces), _ROW_BYTES)


def fitted_head(kept: Checkpoints, name: str, fit: Callable[[], WindowHead]) -> WindowHead:
    """Return a head of stage 1 that was kept, else fit and keep it."""

    def computed() -> _KeptHead:
        head = fit()
        return _KeptHead(head.table.astype(np.float32).tobytes(), head.bias, head.floor)

    found = through(kept, f"stage1.{name}", _KeptHead, computed)
    table = np.frombuffer(found.table, np.float32).copy()
    return WindowHead(table=table, bias=found.bias, floor=found.floor)


def fitted_network(
    examples: Sequence[Example],
    clauses: tuple[str, ...],
    shape: MultilingualShape,
    head: MultilingualHeadSettings,
    kept: Checkpoints,
    *,
    seed: int,
    start: Weights | None,
    progress: Progress,
) -> FittedNetwork:
    """Return the network that was kept, else train it, from the pass that was kept on."""
    found = through(
        kept,
        _STAGE2,
        FittedNetwork,
        lambda: _trained(
            examples, clauses, shape, head, kept, seed=seed, start=start, progress=progress
        ),
    )
    kept.forget(STANDING)
    return found


def _trained(
    examples: Sequence[Example],
    clauses: tuple[str, ...],
    shape: MultilingualShape,
    head: MultilingualHeadSettings,
    kept: Checkpoints,
    *,
    seed: int,
    start: Weights | None,
    progress: Progress,
) -> FittedNetwork:
    source = read_pretrained(
        pretrained_file([Path(entry) for entry in sys.path if entry]), shape.layers
    )
    read = passes(examples, head.epochs, head.own_epochs, head.general, seed=seed)
    epochs = [pairs(own, clauses, seed=seed + at) for at, own in enumerate(read)]
    rng = random.Random(seed)
    whole = Unigram(source.pieces, source.scores.tolist())
    used = Counter(
        piece
        for pair in itertools.chain(*epochs[: 1 if len(read[0]) == len(examples) else None])
        for piece in whole.encode(pair.reply or pair.prompt)
    )
    chosen = kept_by_use(source.pieces, used, shape.vocabulary)
    pieces = [source.pieces[index] for index in chosen]
    # As the bundle's file says them: another last digit cuts some words otherwise.
    scores = [float(f"{source.scores[index]:.6g}") for index in chosen]
    words = np.ascontiguousarray(source.words[chosen])
    torch.manual_seed(seed)
    if start is None:
        model = load_multilingual(source, shape, len(clauses))
    else:
        model = network(start, len(clauses))
        again = [one for one in examples if _is_new(one) or rng.random() < head.replay]
        epochs = [pairs(again, clauses, seed=seed + head.epochs)]
        head = msgspec.structs.replace(
            head, learning_rate=head.learning_rate / 2, head_rate=head.head_rate / 2
        )
    unigram = Unigram(pieces, scores)
    train_multilingual(model, unigram, words, epochs, head, seed=seed, progress=progress, kept=kept)
    seen = word_vectors(unigram, words, [pair.reply or pair.prompt for pair in epochs[0]])
    model_file = to_onnx(model, seen)
    return FittedNetwork(model_file, words.tobytes(), pieces, scores, save(weights_of(model)))


def _is_new(example: Example) -> bool:
    """Whether a training that goes on reads it for certain: a written text of another language."""
    return example.language != "en" and not example.lineage.chain
