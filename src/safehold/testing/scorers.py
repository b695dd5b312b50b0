"""Scorers to reason about: a stage 1 of keywords, a stage 2 that looks for a phrase."""

from collections.abc import Sequence

import numpy as np

from safehold.guard.scorers.interface import ExchangeScore, ScoringInput
from safehold.guard.scorers.ngram import NgramHead, NgramScorer, word_features
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.session import Guard
from safehold.testing.guards import PlainDecoder

_BITS = 18


def keyword_head(*words: str, weight: float = 40.0, floor: int = 16) -> NgramHead:
    """Return a head that knows a few words: each adds `weight` to its token's logit.

    The score is the mean over the last `floor` tokens (16 at most) minus 1.
    """
    table = np.zeros(1 << _BITS, dtype=np.float32)
    for word in words:
        table[word_features(word, (1 << _BITS) - 1)[0]] = weight
    return NgramHead(table=table, bias=0.0, mix=(1.0, 0.0), offset=-1.0, floor=floor)


class PhraseStage2:
    """A stage 2 that finds a text restricted when it holds a phrase; keeps what it was asked."""

    name = "phrase"

    def __init__(self, phrase: str) -> None:
        """Take the phrase."""
        self.phrase = phrase
        self.seen: list[ScoringInput] = []

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Return 5 or -5 for each input."""
        self.seen.extend(batch)
        return [
            ExchangeScore(5.0 if self.phrase in (item.reply or item.prompt) else -5.0, "clause")
            for item in batch
        ]


def keyword_guard(head: NgramHead, *, has_stage2: bool = False) -> Guard:
    """Return a guard that escalates above 0 and, without a stage 2, blocks above 0."""
    thresholds = Thresholds(escalate=0.0, weights=(0.0, 1.0, 0.0), block=0.0, alone=0.0)
    cascade = Cascade(
        digest="d" * 64,
        stage1=NgramScorer("keywords", head, head, "clause"),
        has_stage2=has_stage2,
        prompt=thresholds,
        reply=thresholds,
    )
    return Guard(cascade, PlainDecoder())
