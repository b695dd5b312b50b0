"""Trains stage 1: L2-regularised logistic regression on windows of set-valued n-gram features.

The problem is convex: a full-batch L-BFGS reaches its one optimum, whatever the seed.
"""

import warnings
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import torch
from torch.nn import functional

from safehold.errors import DataError
from safehold.guard.scorers.tokens import tokens
from safehold.guard.scorers.windowed import WINDOW, WindowHead, pair_row, word_rows
from safehold.improve.training.interface import LabelledText, Texts
from safehold.progress import Progress


class WindowHeadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How stage 1 is trained; `bits` is the base-2 logarithm of the table's rows.

    `strength` is the inverse of the penalty, as liblinear's C. `most_windows` of a text are used.
    """

    floor: int
    bits: int = 17
    strength: float = 30.0
    steps: int = 60
    most_windows: int = 8


class _Window(msgspec.Struct, frozen=True):
    grams: list[int]
    words: list[int]
    label: float
    weight: float


def train_window_head(
    texts: Texts,
    settings: WindowHeadSettings,
    progress: Progress,
    start: WindowHead | None = None,
) -> WindowHead:
    """Return the head that fits the labelled texts.

    With `start`, a warm start: the fit begins at that head and the penalty is on the distance from
    it, so that what the texts say nothing of stays as it was.

    Raises:
        DataError: The head to start from has another number of rows.
    """
    mask = (1 << settings.bits) - 1
    windows = [window for text in texts for window in _windows(text, mask, settings)]
    matrix, label, weight = _matrix(windows, 1 << settings.bits)
    transposed = matrix.t().to_sparse_csr()
    before = torch.zeros((1 << settings.bits), 1, dtype=torch.float64)
    first = 0.0
    if start is not None:
        if len(start.table) != len(before):
            raise DataError(
                f"a warm start needs {len(before)} rows, the head has {len(start.table)}"
            )
        before = torch.tensor(start.table, dtype=torch.float64)[:, None]
        first = start.bias
    table = before.clone()
    table.requires_grad = True
    bias = torch.tensor([first], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [table, bias], max_iter=settings.steps, history_size=12, line_search_fn="strong_wolfe"
    )
    progress.start("stage 1", settings.steps)

    def loss() -> torch.Tensor:
        with torch.no_grad():
            logits = (matrix @ table)[:, 0] + bias
            losses = functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
            slope = (weight * (torch.sigmoid(logits) - label))[:, None]
            table.grad = settings.strength * (transposed @ slope) + table - before
            bias.grad = settings.strength * slope.sum(dim=0)
            total: torch.Tensor = settings.strength * (weight * losses).sum()
        progress.advance()
        return total + 0.5 * (table.detach() - before).square().sum()

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    weights = table.detach().numpy()[:, 0].astype(np.float32)
    return WindowHead(table=weights, bias=float(bias.detach()), floor=settings.floor)


def _windows(text: LabelledText, mask: int, settings: WindowHeadSettings) -> Iterator[_Window]:
    words = tokens(text.text)
    starts = list(range(0, max(1, len(words) - WINDOW // 2), WINDOW // 2))[: settings.most_windows]
    for start in starts if words else ():
        own: set[int] = set()
        grams: set[int] = set()
        previous = words[start - 1] if start else "^"
        for word in words[start : start + WINDOW]:
            row, parts = word_rows(word, mask)
            own |= {row, pair_row(previous, word, mask)}
            grams.update(parts)
            previous = word
        yield _Window(
            sorted(grams), sorted(own), float(text.restricted), text.weight / len(starts) ** 0.5
        )


def _matrix(
    windows: Sequence[_Window], width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features [windows, rows] with each half at norm 1, labels, and balanced weights."""
    columns: list[int] = []
    values: list[float] = []
    bounds = [0]
    for window in windows:
        for half in (window.grams, window.words):
            columns += half
            values += [len(half) ** -0.5] * len(half)
        bounds.append(len(columns))
    with warnings.catch_warnings():
        # The compressed layout is still called beta; its products are compared with lanes in tests.
        warnings.simplefilter("ignore")
        matrix = torch.sparse_csr_tensor(
            torch.tensor(bounds),
            torch.tensor(columns),
            torch.tensor(values, dtype=torch.float64),
            size=(len(windows), width),
        )
    label = torch.tensor([window.label for window in windows], dtype=torch.float64)
    weight = torch.tensor([window.weight for window in windows], dtype=torch.float64)
    positive = (weight * label).sum()
    share = torch.where(label > 0, positive, weight.sum() - positive)
    return matrix, label, weight * weight.sum() / (2 * share)
