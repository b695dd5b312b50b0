"""Fits a linear probe to windows under the softmax-weighted loss.

For a reply with window scores z_t the loss is sum_t softmax(z / tau)_t * BCE(y, sigmoid(z_t)),
tau = 1: it punishes any confident peak in a permitted text and ignores the harmless beginning of a
restricted one (Constitutional Classifiers++, arXiv 2601.04603, section 5.1).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from safehold.guard.scorers.probe import ProbeHead
from safehold.improve.probes.interface import ProbeSettings, ReplyWindows
from safehold.progress import Progress


def fit(found: Sequence[ReplyWindows], settings: ProbeSettings, progress: Progress) -> ProbeHead:
    """Return the head that fits the windows; the same seed and windows give the same head.

    Features are standardised for the fit (AdamW treats all alike); the returned weights are for
    activations as they come.
    """
    torch.manual_seed(settings.seed)
    generator = np.random.default_rng(settings.seed)
    mean, scale = _moments(found)
    weights = torch.zeros(len(mean), requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW(
        [
            {"params": [weights], "weight_decay": settings.decay},
            {"params": [bias], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    per_epoch = (len(found) + settings.batch - 1) // settings.batch
    steps = settings.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
    restricted = sum(one.restricted for one in found)
    balance = (len(found) / (2 * (len(found) - restricted)), len(found) / (2 * restricted))
    progress.start("probe", steps)
    for _ in range(settings.epochs):
        order = generator.permutation(len(found))
        for start in range(0, len(order), settings.batch):
            batch = [found[index] for index in order[start : start + settings.batch]]
            loss = _loss(batch, mean, scale, weights, bias, balance)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress.advance()
    folded = weights.detach() / scale
    return ProbeHead(
        weights=folded.numpy().astype(np.float32),
        shift=-float(folded.double() @ mean.double()),
        bias=float(bias.detach()),
        floor=settings.floor,
    )


def _moments(found: Sequence[ReplyWindows]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of every feature over the full windows."""
    total = squares = torch.zeros(found[0].sums.shape[1], dtype=torch.float64)
    count = 0
    for one in found:
        rows = torch.from_numpy(one.sums[one.shares >= 1.0].astype(np.float32))
        total = total + rows.sum(dim=0, dtype=torch.float64)
        squares = squares + rows.square().sum(dim=0, dtype=torch.float64)
        count += len(rows)
    mean = total / max(1, count)
    variance = (squares / max(1, count) - mean.square()).clamp(min=0)
    deviation = variance.sqrt()
    # A feature that hardly varies carries rounding only.
    usual = deviation.median()
    return mean.float(), deviation.clamp(min=float(usual) * 1e-2 + 1e-6).float()


def _loss(
    batch: Sequence[ReplyWindows],
    mean: torch.Tensor,
    scale: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor,
    balance: tuple[float, float],
) -> torch.Tensor:
    counts = [len(one.shares) for one in batch]
    sums = torch.from_numpy(np.concatenate([one.sums for one in batch]).astype(np.float32))
    shares = torch.from_numpy(np.concatenate([one.shares for one in batch]))
    scores = ((sums - shares[:, None] * mean) / scale) @ weights + bias
    padded = torch.nn.utils.rnn.pad_sequence(
        list(torch.split(scores, counts)), batch_first=True, padding_value=-torch.inf
    )
    labels = torch.tensor([float(one.restricted) for one in batch])
    share = torch.tensor([balance[one.restricted] for one in batch])
    attention = padded.softmax(dim=1)
    losses = functional.binary_cross_entropy_with_logits(
        padded.clamp(min=-60.0), labels[:, None].expand_as(padded), reduction="none"
    )
    return ((attention * losses).sum(dim=1) * share).mean()
