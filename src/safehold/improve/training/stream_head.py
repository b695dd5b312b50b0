"""Trains stage 1: hashed weights under the softmax-weighted window loss.

For an exchange with window means z_t the loss is sum_t softmax(z / tau)_t * BCE(y, sigmoid(z_t)),
tau = 1: it punishes any confident peak in a permitted text and ignores the harmless beginning of a
restricted one (Constitutional Classifiers++, arXiv 2601.04603, section 5.1).
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from torch.nn import functional

from safehold.guard.scorers.ngram import WINDOWS, NgramHead, pair_features, word_features
from safehold.guard.scorers.tokens import tokens
from safehold.improve.training.interface import LabelledText, Texts
from safehold.progress import Progress


class StreamHeadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How stage 1 is trained; `bits` is the base-2 logarithm of the table's rows.

    `blanked` is the share of features that each step does not see (dropout on the input: Srivastava
    et al., JMLR 15 (2014)), so that rare n-grams can't carry a text alone.
    """

    floor: int
    bits: int = 17
    epochs: int = 6
    blanked: float = 0.3
    batch: int = 32
    learning_rate: float = 0.02
    decay: float = 1e-5
    max_tokens: int = 400


class _Encoded(msgspec.Struct, frozen=True):
    rows: np.ndarray
    weights: np.ndarray
    lengths: np.ndarray
    label: float
    weight: float


def train_head(
    texts: Texts, settings: StreamHeadSettings, *, seed: int, progress: Progress
) -> NgramHead:
    """Return the head that fits the labelled texts; the same seed gives the same head."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    mask = (1 << settings.bits) - 1
    encoded = [item for text in texts if (item := _encode(text, mask, settings)) is not None]
    table = torch.zeros(1 << settings.bits, 1, requires_grad=True)
    bias = torch.tensor([-0.5], requires_grad=True)
    mix = torch.tensor([1.0, 1.0], requires_grad=True)
    offset = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam(
        [
            {"params": [table], "lr": settings.learning_rate},
            {"params": [bias, mix, offset], "lr": settings.learning_rate / 2},
        ]
    )
    steps = settings.epochs * ((len(encoded) + settings.batch - 1) // settings.batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    progress.start("stage 1", steps)
    for _ in range(settings.epochs):
        order = generator.permutation(len(encoded))
        for start in range(0, len(order), settings.batch):
            batch = [encoded[i] for i in order[start : start + settings.batch]]
            scores, valid = _scores(batch, table, bias, mix, offset, settings)
            loss = _softmax_weighted(scores, valid, batch) + settings.decay * table.square().sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress.advance()
    short, long = (float(value) for value in mix.detach())
    return NgramHead(
        table=table.detach().numpy()[:, 0].copy(),
        bias=float(bias.detach()),
        mix=(short, long),
        offset=float(offset.detach()),
        floor=settings.floor,
    )


def _encode(text: LabelledText, mask: int, settings: StreamHeadSettings) -> _Encoded | None:
    words = tokens(text.text)[: settings.max_tokens]
    if not words:
        return None
    rows: list[int] = []
    weights: list[float] = []
    lengths: list[int] = []
    before = previous = "^"
    for word in words:
        own = word_features(word, mask)
        grams = len(own) - 1
        rows += [*own, *pair_features(before, previous, word, mask)]
        weights += [1.0, *([1.0 / grams] * grams if grams else []), 1.0, 1.0]
        lengths.append(len(own) + 2)
        before, previous = previous, word
    return _Encoded(
        rows=np.asarray(rows, dtype=np.int64),
        weights=np.asarray(weights, dtype=np.float32),
        lengths=np.asarray(lengths, dtype=np.int64),
        label=float(text.restricted),
        weight=text.weight,
    )


def _scores(
    batch: Sequence[_Encoded],
    table: torch.Tensor,
    bias: torch.Tensor,
    mix: torch.Tensor,
    offset: torch.Tensor,
    settings: StreamHeadSettings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the window scores [batch, tokens] and which of them are real."""
    counts = [len(item.lengths) for item in batch]
    lengths = np.concatenate([item.lengths for item in batch])
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    weights = torch.from_numpy(np.concatenate([item.weights for item in batch]))
    weights = weights * (torch.rand_like(weights) >= settings.blanked)
    logits = functional.embedding_bag(
        torch.from_numpy(np.concatenate([item.rows for item in batch])),
        table,
        torch.from_numpy(offsets),
        mode="sum",
        per_sample_weights=weights,
    )[:, 0]
    padded = torch.nn.utils.rnn.pad_sequence(
        list(torch.split(logits + bias, counts)), batch_first=True
    )
    width = padded.shape[1]
    valid = torch.arange(width)[None, :] < torch.tensor(counts)[:, None]
    sums = torch.cumsum(padded, dim=1)
    seen = torch.arange(1, width + 1).clamp(min=settings.floor).float()
    total = offset.expand(len(batch), width)
    for share, window in zip(mix, WINDOWS, strict=True):
        shifted = functional.pad(sums, (window, 0))[:, :width]
        total = total + share * (sums - shifted) / seen.clamp(max=window)
    return total, valid


def _softmax_weighted(
    scores: torch.Tensor, valid: torch.Tensor, batch: Sequence[_Encoded]
) -> torch.Tensor:
    labels = torch.tensor([item.label for item in batch])
    weights = torch.tensor([item.weight for item in batch])
    attention = scores.masked_fill(~valid, -torch.inf).softmax(dim=1)
    losses = functional.binary_cross_entropy_with_logits(
        scores, labels[:, None].expand_as(scores), reduction="none"
    )
    return (((attention * losses).sum(dim=1)) * weights).sum() / weights.sum()
