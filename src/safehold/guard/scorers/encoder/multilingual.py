"""A stage 2 that reads many languages: multilingual-e5-small, its upper layers fine-tuned.

The word rows stay in the 4-bit blocks that they come in (32 weights, one scale) and are unpacked
for the words of a text alone; the body is an int8 graph on ONNX Runtime. Each text runs by itself
and unpadded: int8 scales are taken from what runs together, so a neighbour in a batch would move
a score.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from safehold.errors import BundleError, ScorerError
from safehold.guard.scorers.encoder.onnx import onnx_session
from safehold.guard.scorers.encoder.unigram import BEGIN, END, Unigram
from safehold.guard.scorers.interface import ExchangeScore, ScoringInput

_MATRIX = 2
"""Dimensions of an array of pieces by bytes."""

MOST_IDS: Final = 256
"""Most ids of a text; of a longer one the end is read."""
MARK: Final = "query:"
"""What multilingual-e5 was trained to see before a text."""
BLOCK: Final = 32
"""Weights that share a scale."""
_BLOCK_BYTES: Final = 18

Rows = npt.NDArray[np.uint8]


def unpacked(rows: Rows) -> npt.NDArray[np.float32]:
    """Return the weights of packed rows: per block a float16 scale, then 16 bytes of two each."""
    count = rows.shape[0]
    blocks = rows.reshape(-1, _BLOCK_BYTES)
    scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    nibbles = blocks[:, 2:]
    low, high = (nibbles & 15).astype(np.int8) - 8, (nibbles >> 4).astype(np.int8) - 8
    return (np.concatenate([low, high], axis=1).astype(np.float32) * scale).reshape(count, -1)


class MultilingualScorer:
    """Scores exchanges one by one; safe to call from one thread at a time."""

    def __init__(
        self, name: str, model: bytes, words: Rows, unigram: Unigram, clauses: Sequence[str]
    ) -> None:
        """Load the model; `words` [pieces, packed bytes] are the word rows.

        Raises:
            DependencyError: ONNX Runtime is not installed.
            BundleError: The model can't be loaded, or the rows are no blocks.
        """
        if words.ndim != _MATRIX or words.shape[1] % _BLOCK_BYTES:
            raise BundleError("stage 2's word rows are no 4-bit blocks")
        self.name = name
        self._clauses = tuple(clauses)
        self._words = words
        self._unigram = unigram
        self._mark = tuple(unigram.encode(MARK))
        self._session = onnx_session(model)

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Score every input, in order; a reply is judged by what it says, whatever was asked.

        Raises:
            ScorerError: The model broke or an answer is not finite.
        """
        return [self._one(item) for item in batch]

    def _one(self, item: ScoringInput) -> ExchangeScore:
        ids = encoded(self._unigram, self._mark, item.reply or item.prompt)
        (logits,) = self._session.run(["logits"], {"words": unpacked(self._words[ids])[None]})
        if logits.shape != (1, 2 + len(self._clauses)) or not np.isfinite(logits).all():
            raise ScorerError("stage 2 gave a score that is not finite, or of another shape")
        row = logits[0]
        clause = self._clauses[int(row[2:].argmax())]
        return ExchangeScore(logit=float(row[1 if item.reply else 0]), clause=clause)


def encoded(unigram: Unigram, mark: Sequence[int], text: str, most: int = MOST_IDS) -> list[int]:
    """Return the ids that the network reads of a text: at most `most`, the last ones."""
    room = most - len(mark) - 2
    return [BEGIN, *mark, *unigram.encode(text)[-room:], END]
