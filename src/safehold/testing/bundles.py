"""A tiny bundle without training: it knows the words of brewing and nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.guard.bundle.interface import (
    SCHEMA,
    Golden,
    LineageRecord,
    Manifest,
    Stage1Record,
)
from safehold.guard.bundle.load import Bundle
from safehold.guard.bundle.write import head_file, write_bundle
from safehold.guard.scorers.interface import ExchangeScore, ExchangeScorer, ScoringInput
from safehold.guard.scorers.ngram import NgramHead, NgramScorer, word_features
from safehold.guard.session.cascade import Cascade, Thresholds

WORDS = ("mash", "wort", "hops", "yeast", "sparge", "malt", "ferment", "boil")
CLAUSE = "brewing"
GOLDEN = (
    Golden(
        prompt="Mash the malt, boil the wort with hops, then pitch yeast.", reply="", blocked=True
    ),
    Golden(prompt="When does the museum open?", reply="At nine.", blocked=False),
)
_ROWS = 1 << 18
_STAGE1 = Thresholds(escalate=0.9, weights=(0.5, 1.0, 0.0), block=4.0, alone=1.2)


def word_head() -> NgramHead:
    """Return a stage-1 head to which every word of brewing is evidence."""
    table = np.zeros(_ROWS, dtype=np.float32)
    for word in WORDS:
        table[word_features(word, _ROWS - 1)[0]] = 16.0
    return NgramHead(table=table, bias=-0.5, mix=(1.0, 0.0), offset=0.0, floor=6)


class WordScorer:
    """A stage 2 that counts words of brewing; it is asked as the real one is."""

    name = "words"

    def __init__(self) -> None:
        """Count nothing yet."""
        self.calls = 0

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Return one logit for each distinct word of brewing."""
        self.calls += len(batch)
        return [
            ExchangeScore(logit=float(_distinct(item.reply or item.prompt)), clause=CLAUSE)
            for item in batch
        ]


class BrokenScorer:
    """A stage 2 that raises whatever it is asked."""

    name = "broken"

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Raise."""
        raise ZeroDivisionError(len(batch))


def tiny_manifest(constitution: str = "homebrewing") -> Manifest:
    """Return the manifest of a bundle with stage 1 only; `write_bundle` fills in the digests."""
    record, _ = head_file("stage1.npy", word_head())
    return Manifest(
        schema=SCHEMA,
        name="tiny",
        constitution=constitution,
        constitution_digest="0" * 64,
        stage1=Stage1Record("ngram", record, record, CLAUSE),
        stage2=None,
        prompt=_STAGE1,
        reply=_STAGE1,
        rules=(),
        calibration={},
        lineage=LineageRecord("0" * 64, (), 0, {}, "none", {}),
        model_digest=None,
        golden="golden.jsonl",
        files={},
    )


def write_tiny(folder: Path, key: Ed25519PrivateKey | None = None) -> str:
    """Write the tiny bundle, signed or not; return its digest."""
    _, content = head_file("stage1.npy", word_head())
    golden = b"".join(msgspec.json.encode(line) + b"\n" for line in GOLDEN)
    files = {"stage1.npy": content, "golden.jsonl": golden}
    return write_bundle(folder, tiny_manifest(), files, key)


def tiny_bundle(stage2: ExchangeScorer | None = None) -> Bundle:
    """Return the tiny bundle as if it were loaded, with a stage 2 if one is given."""
    head = word_head()
    cascade = Cascade(
        digest="1" * 64,
        stage1=NgramScorer("ngram", head, head, CLAUSE),
        has_stage2=stage2 is not None,
        prompt=_STAGE1,
        reply=_STAGE1,
    )
    return Bundle(tiny_manifest(), "1" * 64, cascade, stage2, GOLDEN)


def _distinct(text: str) -> int:
    return len(set(re.findall(r"[a-z]+", text.lower())) & set(WORDS))
