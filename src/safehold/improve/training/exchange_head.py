"""Trains stage 2: fine-tunes the upper layers of the encoder on prompts and partial replies."""

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from torch.nn import functional

from safehold.guard.scorers.encoder.onnx import PAIR_LIMITS, PROMPT_ONLY_LIMITS
from safehold.guard.scorers.encoder.wordpiece import WordPiece
from safehold.improve.training.encoder import Encoder
from safehold.improve.training.interface import LabelledPair, Pairs
from safehold.progress import Progress


class ExchangeHeadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How stage 2 is trained; `frozen` layers (and the embeddings) keep their weights.

    `blanked` is the share of pieces that the network is not shown (word dropout: Iyyer et al.,
    ACL 2015), so that no single word decides. `bfloat16` computes products in that format; on
    processors with AMX it halves the time, and the weights themselves stay in float32.
    """

    frozen: int = 2
    epochs: int = 3
    blanked: float = 0.06
    bfloat16: bool = True
    batch_tokens: int = 1152
    learning_rate: float = 1.2e-4
    head_rate: float = 1e-3
    warmup: float = 0.06
    weight_decay: float = 0.01
    clause_share: float = 0.1


class _Row(msgspec.Struct, frozen=True):
    ids: list[int]
    kinds: list[int]
    clause: int
    weight: float
    reply: bool


def train_encoder(
    model: Encoder,
    wordpiece: WordPiece,
    epochs: Sequence[Pairs],
    settings: ExchangeHeadSettings,
    *,
    seed: int,
    progress: Progress,
) -> Encoder:
    """Fine-tune the model in place and return it; the same seed gives the same weights.

    `epochs` holds what each pass over the data reads: other stretches of the same replies.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model.freeze(settings.frozen)
    model.train()
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [
                    p for layer in model.layers[settings.frozen :] for p in layer.parameters()
                ],
                "lr": settings.learning_rate,
            },
            {"params": list(model.head.parameters()), "lr": settings.head_rate},
        ],
        weight_decay=settings.weight_decay,
    )
    plan = [
        [rows[index] for index in batch]
        for rows in (
            [_encode(pair, wordpiece, settings.blanked, generator) for pair in pairs]
            for pairs in epochs
        )
        for batch in _batches(rows, settings, generator)
    ]
    warm = max(1, int(len(plan) * settings.warmup))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 1 - step / (len(plan) + 1))
    )
    progress.start("stage 2", len(plan))
    for batch in plan:
        loss = _loss(model, wordpiece, batch, settings)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.advance()
    model.eval()
    return model


def _encode(
    pair: LabelledPair, wordpiece: WordPiece, blanked: float, generator: np.random.Generator
) -> _Row:
    limits = PAIR_LIMITS if pair.reply else PROMPT_ONLY_LIMITS
    ids, kinds = wordpiece.pair(pair.prompt, pair.reply, limits)
    hidden = generator.random(len(ids)) < blanked
    marks = {wordpiece.classify, wordpiece.separate}
    ids = [
        wordpiece.unknown if hide and piece not in marks else piece
        for piece, hide in zip(ids, hidden, strict=True)
    ]
    return _Row(ids, kinds, pair.clause, pair.weight, bool(pair.reply))


def _batches(
    rows: Sequence[_Row], settings: ExchangeHeadSettings, generator: np.random.Generator
) -> list[list[int]]:
    """Group rows of like length, so that padding costs little, in a random order of groups."""
    jitter = generator.uniform(-12, 12, size=len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids) + jitter[i])
    batches: list[list[int]] = [[]]
    width = 0
    for index in order:
        width = max(width, len(rows[index].ids))
        if batches[-1] and width * (len(batches[-1]) + 1) > settings.batch_tokens:
            batches.append([])
            width = len(rows[index].ids)
        batches[-1].append(index)
    return [batches[i] for i in generator.permutation(len(batches))]


def pad(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], padding: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, kinds and mask [rows, widest] of encoded pairs."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), padding)
    kinds = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, (pieces, segments) in enumerate(rows):
        ids[index, : len(pieces)] = torch.tensor(pieces)
        kinds[index, : len(pieces)] = torch.tensor(segments)
        mask[index, : len(pieces)] = 1
    return ids, kinds, mask


def _loss(
    model: Encoder, wordpiece: WordPiece, rows: Sequence[_Row], settings: ExchangeHeadSettings
) -> torch.Tensor:
    ids, kinds, mask = pad([(row.ids, row.kinds) for row in rows], wordpiece.pad)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bfloat16):
        logits = model(ids, kinds, mask).float()
    clause = torch.tensor([row.clause for row in rows])
    weight = torch.tensor([row.weight for row in rows])
    chosen = torch.tensor([int(row.reply) for row in rows])
    label = (clause >= 0).float()
    own = logits.gather(1, chosen[:, None])[:, 0]
    losses = functional.binary_cross_entropy_with_logits(own, label, reduction="none")
    loss = (losses * weight).sum() / weight.sum()
    restricted = clause >= 0
    if bool(restricted.any()):
        named = functional.cross_entropy(logits[restricted, 2:], clause[restricted])
        loss = loss + settings.clause_share * named
    return loss
