"""Measures a probe: alone, beside the text scorers, and what a token costs."""

import time
from collections.abc import Sequence

from safehold.guard.scorers.probe import LinearProbe
from safehold.guard.served.interface import Said
from safehold.guard.served.model import HfModel
from safehold.guard.session.cascade import Cascade
from safehold.improve.evaluation.curves import auc, auc_lower, tpr_at
from safehold.improve.evaluation.interface import Frequency
from safehold.improve.probes.calibrate import ProbedReply, combined
from safehold.improve.probes.interface import Separated, Weights
from safehold.improve.probes.sessions import Decided

_ONE_PERCENT = 0.01
_TIMED_TOKENS = 512
_BELOW = 1e8


def weights_of(cascade: Cascade) -> Weights:
    """Return a cascade's weights of stage 1, stage 2, the probe, and the constant."""
    first, second, constant = cascade.reply.weights
    return first, second, 0.0 if cascade.probe is None else cascade.probe.weight, constant


def separations(
    base: Cascade,
    cascade: Cascade,
    probe: LinearProbe,
    judged: Sequence[ProbedReply],
    alone: Sequence[Decided],
) -> tuple[Separated, ...]:
    """Return how the text scorers alone, the probe alone and both separate the same replies.

    `alone` is what the base cascade decides those replies by.
    """
    own, both = weights_of(base), weights_of(cascade)
    scores = {
        "text": [_ranked(own, one, 0.0) for one in alone],
        "probe": [one.heard.highest(probe) for one in judged],
        "both": [_ranked(both, one.decided, one.heard.highest(probe)) for one in judged],
    }
    return tuple(
        separated(
            name,
            [score for score, one in zip(found, judged, strict=True) if one.restricted],
            [score for score, one in zip(found, judged, strict=True) if not one.restricted],
        )
        for name, found in scores.items()
    )


def _ranked(weights: Weights, decided: Decided, probe: float) -> float:
    """Order replies as the cascade does: what escalated stands above all that did not."""
    if decided.triples:
        return max(combined(weights, one) for one in decided.triples)
    return -_BELOW + weights[0] * max(-_BELOW, decided.stage1) + weights[2] * probe


def separated(name: str, high: Sequence[float], low: Sequence[float]) -> Separated:
    """Return the figures of one way of scoring."""
    value = auc(high, low)
    rate = tpr_at(high, low, _ONE_PERCENT)
    return Separated(
        scorer=name,
        n_restricted=len(high),
        n_permitted=len(low),
        auc=value,
        auc_lower=auc_lower(value, len(high), len(low)),
        tpr_at_1_percent=None if rate is None else Frequency.of(rate),
    )


def costs(model: HfModel, probe: LinearProbe) -> tuple[float, float]:
    """Return CPU microseconds for a token: the model's reading of a text, and the probe's work."""
    text = "The harbour was quiet and the boats lay still in the morning light. " * 40
    began = time.process_time()
    reading = model.read([Said("user", "Please go on.")], text, probe.layers)
    model_s = time.process_time() - began
    rows = reading.activations[:_TIMED_TOKENS]
    lane = probe.open_reply()
    began = time.process_time()
    for row in rows:
        lane.feed(probe.logits(row[None, :]))
    probe_s = time.process_time() - began
    count = max(1, len(rows))
    whole = max(1, len(reading.activations))
    return round(model_s / whole * 1e6, 2), round(probe_s / count * 1e6, 2)
