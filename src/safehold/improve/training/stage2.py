"""Trains the multilingual stage 2: fine-tunes its upper layers on prompts and partial replies."""

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from torch.nn import functional

from safehold.guard.scorers.encoder.multilingual import MARK, Rows, encoded, unpacked
from safehold.guard.scorers.encoder.unigram import UNKNOWN, Unigram
from safehold.improve.training.interface import LabelledPair, Pairs
from safehold.improve.training.multilingual import MultilingualEncoder
from safehold.progress import Progress


class MultilingualHeadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is trained; `frozen` layers and everything before them keep their weights.

    `later` is the share of the texts that the passes after the first one read. `blanked` is the
    share of pieces that the network is not shown (Iyyer et al., ACL 2015). Going on from another
    bundle's weights takes one pass at half the rates, over the written texts in every language but
    English and a `replay` of the rest.
    """

    frozen: int = 2
    epochs: int = 2
    later: float = 0.5
    replay: float = 0.12
    blanked: float = 0.06
    most_ids: int = 128
    batch_ids: int = 1600
    learning_rate: float = 1.2e-4
    head_rate: float = 2e-3
    warmup: int = 30
    weight_decay: float = 0.01
    clause_share: float = 0.1


class _TrainingRow(msgspec.Struct, frozen=True):
    ids: list[int]
    clause: int
    weight: float
    reply: bool


def train_multilingual(
    model: MultilingualEncoder,
    unigram: Unigram,
    words: Rows,
    epochs: Sequence[Pairs],
    settings: MultilingualHeadSettings,
    *,
    seed: int,
    progress: Progress,
) -> MultilingualEncoder:
    """Fine-tune the model in place and return it; the same seed gives the same weights.

    `epochs` holds what each pass over the data reads: other stretches of the same replies.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model.freeze(settings.frozen)
    model.train()
    upper = [p for layer in model.layers[settings.frozen :] for p in layer.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": upper, "lr": settings.learning_rate},
            {"params": list(model.head.parameters()), "lr": settings.head_rate},
        ],
        weight_decay=settings.weight_decay,
    )
    plan = [
        batch
        for pairs in epochs
        for batch in _batches(_rows(pairs, unigram, settings, generator), settings, generator)
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / settings.warmup, 1 - step / (len(plan) + 1))
    )
    progress.start("stage 2", len(plan))
    for batch in plan:
        loss = _loss(model, words, batch, settings)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.advance()
    model.eval()
    return model


def _rows(
    pairs: Pairs,
    unigram: Unigram,
    settings: MultilingualHeadSettings,
    generator: np.random.Generator,
) -> list[_TrainingRow]:
    mark = unigram.encode(MARK)
    return [_row(pair, unigram, mark, settings, generator) for pair in pairs]


def _row(
    pair: LabelledPair,
    unigram: Unigram,
    mark: Sequence[int],
    settings: MultilingualHeadSettings,
    generator: np.random.Generator,
) -> _TrainingRow:
    ids = encoded(unigram, mark, pair.reply or pair.prompt, settings.most_ids)
    hidden = generator.random(len(ids)) < settings.blanked
    fixed = len(mark) + 1
    shown = [
        UNKNOWN if hide and fixed <= place < len(ids) - 1 else piece
        for place, (piece, hide) in enumerate(zip(ids, hidden, strict=True))
    ]
    return _TrainingRow(shown, pair.clause, pair.weight, bool(pair.reply))


def _batches(
    rows: Sequence[_TrainingRow], settings: MultilingualHeadSettings, generator: np.random.Generator
) -> list[list[_TrainingRow]]:
    """Group rows of like length, so that padding costs little, in a random order of groups."""
    jitter = generator.uniform(-6, 6, size=len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids) + jitter[i])
    batches: list[list[_TrainingRow]] = [[]]
    width = 0
    for index in order:
        width = max(width, len(rows[index].ids))
        if batches[-1] and width * (len(batches[-1]) + 1) > settings.batch_ids:
            batches.append([])
            width = len(rows[index].ids)
        batches[-1].append(rows[index])
    return [batches[i] for i in generator.permutation(len(batches))]


def _loss(
    model: MultilingualEncoder,
    words: Rows,
    rows: Sequence[_TrainingRow],
    settings: MultilingualHeadSettings,
) -> torch.Tensor:
    width = max(len(row.ids) for row in rows)
    vectors = np.zeros((len(rows), width, 2 * (words.shape[1] // 18) * 16), dtype=np.float32)
    mask = torch.zeros((len(rows), width))
    for number, row in enumerate(rows):
        vectors[number, : len(row.ids)] = unpacked(words[row.ids])
        mask[number, : len(row.ids)] = 1.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.from_numpy(vectors), mask).float()
    clause = torch.tensor([row.clause for row in rows])
    weight = torch.tensor([row.weight for row in rows])
    chosen = torch.tensor([int(row.reply) for row in rows])
    own = logits.gather(1, chosen[:, None])[:, 0]
    losses = functional.binary_cross_entropy_with_logits(
        own, (clause >= 0).float(), reduction="none"
    )
    loss = (losses * weight).sum() / weight.sum()
    restricted = clause >= 0
    if bool(restricted.any()):
        named = functional.cross_entropy(logits[restricted, 2:], clause[restricted])
        loss = loss + settings.clause_share * named
    return loss
