"""From replies to the window means of the model's activations: what a probe learns from.

The smoothed logit of a linear probe is linear in the window's mean of activations, so the mean is
all that has to be kept, and only of every so many-th window.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from safehold.guard.scorers.interface import Activations
from safehold.guard.scorers.probe import WINDOW
from safehold.guard.served.model import HfModel
from safehold.guard.served.turns import said
from safehold.improve.probes.interface import ProbeSettings, ReplyWindows
from safehold.improve.synthesis.interface import Example, Side
from safehold.progress import Progress

_LARGEST = 60_000.0
"""float16 ends at 65,504; a few features of some models are larger than all others."""


def collect(
    model: HfModel,
    examples: Iterable[Example],
    layers: Sequence[int],
    settings: ProbeSettings,
    progress: Progress,
) -> list[ReplyWindows]:
    """Return the windows of every example's reply, as the model reads it after its prompt."""
    found = []
    for example in examples:
        before = said(example.exchange, last_chars=settings.prompt_chars)
        # A token has at least one character; most have four.
        reply = example.reply[: settings.reply_tokens * 8]
        reading = model.read(before, reply, layers)
        rows = reading.activations[: settings.reply_tokens]
        if len(rows):
            found.append(windows(rows, settings, restricted=example.side is Side.RESTRICTED))
        progress.advance()
    return found


def windows(rows: Activations, settings: ProbeSettings, *, restricted: bool) -> ReplyWindows:
    """Return the windows that end at every `stride`-th token, and at the last."""
    ends = sorted({*range(settings.stride - 1, len(rows), settings.stride), len(rows) - 1})
    sums, shares = [], []
    for end in ends:
        taken = rows[max(0, end + 1 - WINDOW) : end + 1]
        divisor = max(len(taken), settings.floor)
        sums.append(taken.sum(axis=0) / divisor)
        shares.append(len(taken) / divisor)
    clipped = np.clip(np.stack(sums), -_LARGEST, _LARGEST)
    return ReplyWindows(
        clipped.astype(np.float16), np.asarray(shares, dtype=np.float32), restricted
    )
