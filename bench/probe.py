"""What a probe costs beside the model that it reads: SmolLM2-135M-Instruct in PyTorch, one thread.

The model writes with and without its hidden states being kept and a probe of all layers applied;
both take turns. A probe's weights do not matter for its cost, so they are random here.
"""

import statistics
import time
from pathlib import Path

import numpy as np
from bench.tables import Table

from safehold.guard.gateway.upstreams.embedded import find_weights
from safehold.guard.scorers.probe import LinearProbe, ProbeHead
from safehold.guard.served.interface import Said
from safehold.guard.served.model import HfModel, Sampling

ASKED = [Said("user", "Write a long story about a lighthouse.")]


def written(model: HfModel, probe: LinearProbe | None, tokens: int, seed: int) -> float:
    """Return CPU milliseconds for each token written."""
    sampling = Sampling(most=tokens, temperature=1.0, seed=seed)
    began = time.process_time()
    count = sum(spoken.tokens for spoken in model.write(ASKED, sampling, probe))
    return (time.process_time() - began) / max(1, count) * 1000


def arithmetic(probe: LinearProbe) -> float:
    """Return CPU microseconds for each token: the dot product and the smoothing alone."""
    rows = np.random.default_rng(1).normal(size=(2000, len(probe.head.weights))).astype(np.float32)
    lane = probe.open_reply()
    began = time.process_time()
    for row in rows:
        lane.feed(probe.logits(row[None, :]))
    return (time.process_time() - began) / len(rows) * 1e6


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure everything."""
    model = HfModel(Path(find_weights()), dtype="bfloat16", threads=1)
    width = model.states * model.width
    weights = np.random.default_rng(2).normal(size=width).astype(np.float32) / width
    probe = LinearProbe("all", ProbeHead(weights, 0.0, 0.0, 8), tuple(range(model.states)), "")
    tokens, rounds = (24, 2) if quick else (64, 5)
    written(model, None, 4, 0)
    without, beside = [], []
    for seed in range(rounds):
        without.append(written(model, None, tokens, seed))
        beside.append(written(model, probe, tokens, seed))
    base, both = statistics.median(without), statistics.median(beside)
    micro = arithmetic(probe)

    def row(name: str, milliseconds: float) -> tuple[str, str, str]:
        return name, f"{milliseconds:.3f}", f"{milliseconds / base * 100:.2f} %"

    return [
        Table(
            title="A probe of all layers beside its model",
            columns=("part", "CPU ms per token written", "share of the model"),
            rows=(
                row("the model alone", base),
                row("the model with its hidden states and the probe", both),
                row("the probe's arithmetic alone", micro / 1000),
            ),
            note=(
                f"{width:,} activations a token; bfloat16, one token at a time, medians of "
                f"{rounds} rounds of up to {tokens} tokens that took turns."
            ),
        )
    ]
