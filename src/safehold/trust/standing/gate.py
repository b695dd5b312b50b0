"""The gate: whether a model may be loaded, exported or served under the standards in force.

The key service and the gateway ask it. It takes values and returns a verdict; a question that it
can't answer is a refusal.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from safehold.trust.standing.interface import (
    SafeguardStandard,
    StandardKind,
    StandardsDocument,
    StandingRecord,
)
from safehold.trust.standing.state import (
    StandardInForce,
    StandingStatus,
    ThresholdStatus,
    in_force,
    threshold_status,
)


class GatedAction(StrEnum):
    """What somebody is about to do with a model."""

    LOAD = "load"
    EXPORT = "export"
    SERVE = "serve"


class GateAllowed(msgspec.Struct, frozen=True):
    """Everything that the model demands is in force and met."""

    standards: tuple[StandardInForce, ...]


class GateRefused(msgspec.Struct, frozen=True):
    """Something is missing; each reason is one sentence."""

    reasons: tuple[str, ...]


class ModelStanding(msgspec.Struct, frozen=True):
    """Where a model stands: at every threshold, and at every standard that it demands."""

    model: str
    at: int
    thresholds: tuple[ThresholdStatus, ...]
    required: tuple[str, ...]
    active: tuple[StandardInForce, ...]


def standing_of(
    document: StandardsDocument,
    records: Sequence[StandingRecord],
    *,
    model: str,
    compute: float,
    at: int,
) -> ModelStanding:
    """Return where a model stands at time `at`."""
    thresholds = tuple(
        threshold_status(document, records, one, model=model, compute=compute, at=at)
        for one in document.thresholds
    )
    required = set(document.baseline)
    for threshold, found in zip(document.thresholds, thresholds, strict=True):
        if found.status is not StandingStatus.RULED_OUT:
            required.update(threshold.requires)
    held = (in_force(records, one.id, at=at) for one in document.standards)
    return ModelStanding(
        model=model,
        at=at,
        thresholds=thresholds,
        required=tuple(sorted(required)),
        active=tuple(one for one in held if one is not None),
    )


def gate(
    document: StandardsDocument,
    records: Sequence[StandingRecord],
    action: GatedAction,
    *,
    model: str,
    compute: float,
    at: int,
    controls: Mapping[str, int],
) -> GateAllowed | GateRefused:
    """Allow an action, or say everything that is missing.

    Args:
        document: The standards that hold.
        records: Everything that the log holds about standing.
        action: What is about to be done.
        model: SHA-256 of the model.
        compute: Effective compute of the model, in the unit that the evaluations use.
        at: The time of the question.
        controls: For each control that is met, until when its result holds.
    """
    if at < document.effective:
        return GateRefused((f"{document.id} {document.version} is not in effect yet",))
    there = standing_of(document, records, model=model, compute=compute, at=at)
    standards = {one.id: one for one in document.standards}
    active = {one.standard: one for one in there.active}
    reasons: list[str] = []
    held: list[StandardInForce] = []
    for name in there.required:
        standard = standards.get(name)
        if standard is None:
            reasons.append(f"the document demands {name} and does not define it")
            continue
        if not _concerns(standard, action):
            continue
        force = active.get(name)
        if force is None:
            reasons.append(f"{name} is required ({_why(document, there, name)}) and not active")
            continue
        held.append(force)
        for control in standard.controls:
            until = controls.get(control)
            if control not in force.without and (until is None or at >= until):
                what = "has no result" if until is None else "has a stale result"
                reasons.append(f"{name}: control {control} {what}")
    return GateRefused(tuple(reasons)) if reasons else GateAllowed(tuple(held))


def _concerns(standard: SafeguardStandard, action: GatedAction) -> bool:
    """Whether a standard binds an action: serving needs all, weights need security."""
    return action is GatedAction.SERVE or standard.kind is not StandardKind.DEPLOYMENT


def _why(document: StandardsDocument, there: ModelStanding, name: str) -> str:
    said = [
        f"{found.threshold}: {found.status.value.replace('_', ' ')}"
        for threshold, found in zip(document.thresholds, there.thresholds, strict=True)
        if name in threshold.requires and found.status is not StandingStatus.RULED_OUT
    ]
    return "; ".join(said) or "for every model"
