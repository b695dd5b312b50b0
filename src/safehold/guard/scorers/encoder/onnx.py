"""The stage-2 scorer: an int8 transformer on ONNX Runtime with a prompt head and a reply head."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from safehold.errors import BundleError, DependencyError, ScorerError
from safehold.guard.scorers.encoder.wordpiece import WordPiece
from safehold.guard.scorers.interface import ExchangeScore, ScoringInput

PROMPT_ONLY_LIMITS = (160, 0)
"""Most ids of a prompt that is scored alone."""
PAIR_LIMITS = (48, 112)
"""Most ids of prompt and reply that are scored together."""


class EncoderScorer:
    """Scores exchanges in batches; safe to call from one thread at a time."""

    def __init__(
        self, name: str, model: bytes, vocabulary: Sequence[str], clauses: Sequence[str]
    ) -> None:
        """Load the model; `clauses` name the outputs behind the two logits.

        Raises:
            DependencyError: ONNX Runtime is not installed.
            BundleError: The model can't be loaded.
        """
        self.name = name
        self._clauses = tuple(clauses)
        self._wordpiece = WordPiece(vocabulary)
        self._session = onnx_session(model)

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Score every input of a batch, in order; neighbours change no score.

        Each input is a run of its own: a dynamically quantised model scales by the whole tensor,
        so beside other inputs, or padded to their length, one text would have other scores.

        Raises:
            ScorerError: The model broke or an answer is not finite.
        """
        if not batch:
            return []
        logits = np.concatenate([self._run([item]) for item in batch])
        if not np.isfinite(logits).all():
            raise ScorerError("stage 2 gave a score that is not finite")
        answers = []
        for item, row in zip(batch, logits, strict=True):
            clause = self._clauses[int(row[2:].argmax())]
            answers.append(ExchangeScore(logit=float(row[1 if item.reply else 0]), clause=clause))
        return answers

    def _run(self, batch: Sequence[ScoringInput]) -> npt.NDArray[np.float32]:
        pairs = [
            self._wordpiece.pair(
                item.prompt, item.reply, PAIR_LIMITS if item.reply else PROMPT_ONLY_LIMITS
            )
            for item in batch
        ]
        width = max(len(ids) for ids, _ in pairs)
        ids = np.full((len(pairs), width), self._wordpiece.pad, dtype=np.int64)
        kinds = np.zeros((len(pairs), width), dtype=np.int64)
        mask = np.zeros((len(pairs), width), dtype=np.int64)
        for row, (pieces, segments) in enumerate(pairs):
            ids[row, : len(pieces)] = pieces
            kinds[row, : len(pieces)] = segments
            mask[row, : len(pieces)] = 1
        feeds = {"ids": ids, "kinds": kinds, "mask": mask}
        (logits,) = self._session.run(["logits"], feeds)
        if logits.shape != (len(pairs), 2 + len(self._clauses)):
            raise ScorerError(f"stage 2 answered with shape {logits.shape}")
        return np.asarray(logits, dtype=np.float32)


def onnx_session(model: bytes) -> Any:
    """Return a session of one thread over a serialised model.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        BundleError: The model can't be loaded.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as ort
    except ImportError as error:
        raise DependencyError(
            "this bundle's stage 2 needs ONNX Runtime: pip install 'safehold[stage2]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (ort.Fail, ort.InvalidGraph, ort.InvalidProtobuf, ort.NotImplemented) as error:
        raise BundleError("the stage-2 model can't be loaded by ONNX Runtime") from error
