"""Fits what decides: the probe's escalation, the three weights, and the block threshold."""

from collections.abc import Sequence

import msgspec
import numpy as np

from safehold.errors import DataError
from safehold.guard.bundle.interface import Operating
from safehold.guard.scorers.probe import LinearProbe
from safehold.guard.session.cascade import Cascade
from safehold.improve.probes.interface import ProbeSettings, Weights
from safehold.improve.probes.sessions import Decided, HeardReply, Triple
from safehold.improve.synthesis.interface import Example, Side
from safehold.improve.training.calibration import fit_logistic, umbrella_threshold

_FOREVER = 1e9


class ProbedReply(msgspec.Struct, frozen=True):
    """A labelled reply, what the probe heard of it, and what the cascade would decide by."""

    example: Example
    heard: HeardReply
    decided: Decided

    @property
    def restricted(self) -> bool:
        """Whether its label says restricted."""
        return self.example.side is Side.RESTRICTED


def escalation(
    probe: LinearProbe, heard: Sequence[tuple[Example, HeardReply]], settings: ProbeSettings
) -> float:
    """Return the logit that lets the wanted share of restricted replies through to stage 2."""
    scores: dict[Side, list[float]] = {side: [] for side in Side}
    for example, one in heard:
        scores[example.side].append(one.highest(probe))
    wanted = float(np.quantile(scores[Side.RESTRICTED], 1 - settings.escalate_recall))
    return max(wanted, float(np.quantile(scores[Side.PERMITTED], 1 - settings.escalate_most)))


def fit_weights(judged: Sequence[ProbedReply]) -> Weights:
    """Return the weights (stage 1, stage 2, probe, constant) fitted to the hottest escalations.

    A scorer that is better turned round is broken, not informative: its weight is 0.
    """
    rows = [(one.restricted, top) for one in judged if (top := one.decided.hottest) is not None]
    labels = [restricted for restricted, _ in rows]
    if len(set(labels)) < len(Side):
        raise DataError("the calibration split's escalations are all of one side")
    used = [0, 1, 2]
    while True:
        features = [
            [value for index, value in enumerate(msgspec.structs.astuple(top)) if index in used]
            for _, top in rows
        ]
        fitted = fit_logistic(features, labels)
        worst = min(range(len(used)), key=lambda index: fitted[index])
        if fitted[worst] >= 0 or len(used) == 1:
            break
        used.pop(worst)
    whole = dict(zip(used, fitted[:-1], strict=True))
    first, second, third = (max(0.0, whole.get(index, 0.0)) for index in range(3))
    return first, second, third, fitted[-1]


def combined(weights: Weights, one: Triple) -> float:
    """Return the deciding logit of one escalation."""
    return weights[0] * one.stage1 + weights[1] * one.stage2 + weights[2] * one.probe + weights[3]


def _highest(weights: Weights, triples: Sequence[Triple]) -> float:
    """Return a reply's deciding logit; what never escalated can't be blocked and is lowest."""
    return max((combined(weights, one) for one in triples), default=-_FOREVER)


def threshold_of(
    cascade: Cascade,
    weights: Weights,
    judged: Sequence[ProbedReply],
    settings: ProbeSettings,
) -> tuple[Cascade, Operating]:
    """Return the cascade with its weights and block threshold, and how the threshold was set.

    Only permitted originals count for it, as for any bundle's.

    Raises:
        DataError: They are too few for the guarantee.
    """
    benign = [
        _highest(weights, one.decided.triples)
        for one in judged
        if not one.restricted and not one.example.lineage.chain
    ]
    threshold = umbrella_threshold(benign, settings.alpha, settings.delta)
    reply = msgspec.structs.replace(
        cascade.reply,
        weights=(weights[0], weights[1], weights[3]),
        block=float(np.nextafter(max(threshold.value, -_FOREVER / 2), np.inf)),
    )
    probe = cascade.probe
    if probe is not None:
        probe = msgspec.structs.replace(probe, weight=weights[2])
    operating = Operating(
        alpha=settings.alpha,
        delta=settings.delta,
        calibration_n=threshold.n,
        calibration_rank=threshold.rank,
        escalated=(0, 0),
        test_false_positives=(0, 0),
        test_true_positives=(0, 0),
    )
    return msgspec.structs.replace(cascade, reply=reply, probe=probe), operating
