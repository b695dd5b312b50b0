"""Trains the multilingual stage 2: fine-tunes its upper layers on prompts and partial replies."""

import io
import json
import pickle
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch.nn import functional

from safehold.errors import DataError
from safehold.guard.scorers.encoder.multilingual import MARK, Rows, encoded, unpacked
from safehold.guard.scorers.encoder.unigram import UNKNOWN, Unigram
from safehold.improve.training.checkpoints import NOTHING_KEPT, Checkpoints, decoded
from safehold.improve.training.interface import LabelledPair, Pairs
from safehold.improve.training.multilingual import MultilingualEncoder
from safehold.progress import Progress

STANDING = "stage2.passes"
"""Under which name it is kept where a training stands."""
_LEAST_RATE = 0.02
"""Share of the learning rate below which it does not fall."""
_AT_ONCE = 64
_EASY = 0.05
"""What is added to every loss before it is drawn by, so that easy texts are not forgotten."""


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies matrices of bfloat16 itself.

    One of x86 without AVX-512 does not: PyTorch then does it number by number, and a layer of this
    network takes 3 to 45 times as long as in float32.
    """
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


class MultilingualHeadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is trained: the last `trained` layers, whatever stands before them stays as it came.

    `later` is the share of the texts that the passes after the first one read, drawn by how wrong
    the network is about them by then; 1 reads all. `most_wrong` is the loss from which no text is
    drawn more often: it may be the label that is wrong. A step reads at most `batch_rows` texts of
    at most `batch_ids` pieces in all. `blanked` is the share of pieces that the network is not
    shown (Iyyer et al., ACL 2015). Going on from another bundle's weights takes one pass at half
    the rates, over the written texts in every language but English and a `replay` of the rest.

    Where a class of somebody's own is trained beside the package's general text, that text would be
    nearly all of a pass. Each pass then reads all of the class's own text and, drawn anew, at most
    `general` times as many general ones; and there are `own_epochs` passes, since that is little.

    The network is computed in bfloat16 where that is `half` the work, as the processor decides:
    weights from two kinds of processors differ a little, as their roundings do.
    """

    trained: int = 6
    epochs: int = 2
    own_epochs: int = 3
    general: float = 1.0
    later: float = 0.6
    most_wrong: float = 2.0
    replay: float = 0.12
    blanked: float = 0.06
    most_ids: int = 128
    batch_ids: int = 1600
    batch_rows: int = 24
    learning_rate: float = 1.2e-4
    head_rate: float = 2e-3
    warmup: int = 30
    weight_decay: float = 0.01
    clause_share: float = 0.1
    half: bool = msgspec.field(default_factory=bfloat16_is_fast)


class _TrainingRow(msgspec.Struct, frozen=True):
    ids: list[int]
    clause: int
    weight: float
    reply: bool


class _Standing(msgspec.Struct, frozen=True):
    """Where a training stands: the pass, how far it is in its plan, draws, rates and weights."""

    number: int
    at: int
    plan: list[list[_TrainingRow]]
    draws: str
    state: bytes


def train_multilingual(
    model: MultilingualEncoder,
    unigram: Unigram,
    words: Rows,
    epochs: Sequence[Pairs],
    settings: MultilingualHeadSettings,
    *,
    seed: int,
    progress: Progress,
    kept: Checkpoints = NOTHING_KEPT,
) -> MultilingualEncoder:
    """Fine-tune the model in place and return it; the same seed gives the same weights.

    `epochs` holds what each pass over the data reads: other stretches of the same replies. Where
    the training stands is kept after each pass, and within one now and then.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    upper = model.freeze(settings.trained)
    model.train()
    optimizer = torch.optim.AdamW(
        [
            {"params": upper, "lr": settings.learning_rate},
            {"params": list(model.head.parameters()), "lr": settings.head_rate},
        ],
        weight_decay=settings.weight_decay,
    )
    first = _batches(_rows(epochs[0], unigram, settings, generator), settings, generator)
    total = round(len(first) * (1 + settings.later * (len(epochs) - 1)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / settings.warmup, max(1 - step / (total + 1), _LEAST_RATE)),
    )
    moving = (model, optimizer, schedule)
    begun = _begun(kept, moving, generator)
    for number, pairs in enumerate(epochs):
        plan, done = first, 0
        if begun is not None and number <= begun.number:
            plan, done = begun.plan, begun.at
            if number < begun.number:
                continue
        elif number:
            rows = _rows(pairs, unigram, settings, generator)
            if settings.later < 1:
                rows = _drawn(model, words, rows, settings, generator, progress)
            plan = _batches(rows, settings, generator)
            _keep(kept, _Standing(number, 0, plan, _draws(generator), b""), moving)
        progress.start(f"stage 2, pass {number + 1} of {len(epochs)}", len(plan))
        progress.advance(done)
        for at in range(done, len(plan)):
            loss = _loss(model, words, plan[at], settings)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.advance()
            if at + 1 == len(plan) or kept.due():
                _keep(kept, _Standing(number, at + 1, plan, _draws(generator), b""), moving)
    model.eval()
    return model


_Moving = tuple[MultilingualEncoder, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]


def _draws(generator: np.random.Generator) -> str:
    return json.dumps(generator.bit_generator.state)


def _keep(kept: Checkpoints, standing: _Standing, moving: _Moving) -> None:
    """Keep where the training stands."""
    if kept is NOTHING_KEPT:
        return
    buffer = io.BytesIO()
    torch.save([*(one.state_dict() for one in moving), torch.get_rng_state()], buffer)
    standing = msgspec.structs.replace(standing, state=buffer.getvalue())
    kept.keep(STANDING, msgspec.msgpack.encode(standing))


def _begun(kept: Checkpoints, moving: _Moving, generator: np.random.Generator) -> _Standing | None:
    """Put model, optimizer, rates and draws where a training stood; None where it begins.

    Raises:
        DataError: What was kept is of another network.
    """
    content = kept.read(STANDING)
    if content is None:
        return None
    standing = decoded(STANDING, content, _Standing)
    try:
        states: list[Any] = torch.load(io.BytesIO(standing.state), weights_only=True)
        *own, draws = states
        model, optimizer, schedule = moving
        model.load_state_dict(own[0])
        optimizer.load_state_dict(own[1])
        schedule.load_state_dict(own[2])
        torch.set_rng_state(draws)
        generator.bit_generator.state = json.loads(standing.draws)
    except (RuntimeError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise DataError(f"{STANDING}: what was kept is of another network") from error
    return msgspec.structs.replace(standing, state=b"")


def _drawn(
    model: MultilingualEncoder,
    words: Rows,
    rows: Sequence[_TrainingRow],
    settings: MultilingualHeadSettings,
    generator: np.random.Generator,
    progress: Progress,
) -> list[_TrainingRow]:
    """Return `later` of the rows, drawn without replacement by their loss.

    Weighted by exponential keys (Efraimidis and Spirakis, Information Processing Letters 97, 2006).
    """
    model.eval()
    losses = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda at: len(rows[at].ids))
    progress.start("stage 2, what is hard", len(rows))
    at = 0
    while at < len(order):
        width = len(rows[order[min(at + _AT_ONCE, len(order)) - 1]].ids)
        batch = order[at : at + max(1, min(_AT_ONCE, settings.batch_ids // width))]
        with torch.no_grad():
            losses[batch] = _own_losses(
                model, words, [rows[one] for one in batch], half=settings.half
            )[0].numpy()
        at += len(batch)
        progress.advance(len(batch))
    model.train()
    weight = np.minimum(losses, settings.most_wrong) + _EASY
    keys = generator.exponential(size=len(rows)) / weight
    return [rows[one] for one in np.argsort(keys)[: round(settings.later * len(rows))]]


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
    """Group rows of like length, so that padding costs little, in a random order of groups.

    A step moves the weights by the mean of its rows, so a group of short texts is bounded by their
    number too: else a request would count a fifth of what a passage does.
    """
    jitter = generator.uniform(-6, 6, size=len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids) + jitter[i])
    batches: list[list[_TrainingRow]] = [[]]
    width = 0
    for index in order:
        width = max(width, len(rows[index].ids))
        full = len(batches[-1]) == settings.batch_rows
        if batches[-1] and (full or width * (len(batches[-1]) + 1) > settings.batch_ids):
            batches.append([])
            width = len(rows[index].ids)
        batches[-1].append(rows[index])
    return [batches[i] for i in generator.permutation(len(batches))]


def _own_losses(
    model: MultilingualEncoder, words: Rows, rows: Sequence[_TrainingRow], *, half: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return each row's loss on its own surface, all logits, and the rows' clauses."""
    width = max(len(row.ids) for row in rows)
    vectors = np.zeros((len(rows), width, 2 * (words.shape[1] // 18) * 16), dtype=np.float32)
    mask = torch.zeros((len(rows), width))
    for number, row in enumerate(rows):
        vectors[number, : len(row.ids)] = unpacked(words[row.ids])
        mask[number, : len(row.ids)] = 1.0
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logits = model(torch.from_numpy(vectors), mask).float()
    clause = torch.tensor([row.clause for row in rows])
    chosen = torch.tensor([int(row.reply) for row in rows])
    own = logits.gather(1, chosen[:, None])[:, 0]
    losses = functional.binary_cross_entropy_with_logits(
        own, (clause >= 0).float(), reduction="none"
    )
    return losses, logits, clause


def _loss(
    model: MultilingualEncoder,
    words: Rows,
    rows: Sequence[_TrainingRow],
    settings: MultilingualHeadSettings,
) -> torch.Tensor:
    losses, logits, clause = _own_losses(model, words, rows, half=settings.half)
    weight = torch.tensor([row.weight for row in rows])
    loss = (losses * weight).sum() / weight.sum()
    restricted = clause >= 0
    if bool(restricted.any()):
        named = functional.cross_entropy(logits[restricted, 2:], clause[restricted])
        loss = loss + settings.clause_share * named
    return loss
