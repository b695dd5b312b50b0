"""Where a model stands: computed from the records at the moment of the question, never stored.

Security steps, numbered alike in `threshold_status`:
1. Only records that are in the log before the question count.
2. A determination needs two persons, one that rules out three.
3. A rule-out needs a sound run of every suite of a plan that was logged before the runs.
4. Every run on the model counts, of every plan for the threshold that the plan does not supersede:
   nobody repeats a run until it pleases, under the same name or another.
5. A rule-out ends by time, by growth of compute, and by a plan that supersedes its own.
6. `passed` stays until a plan that was logged after it rules the threshold out.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from safehold.trust.standing.interface import (
    Activation,
    Adjustment,
    CapabilityThreshold,
    Deactivation,
    Determination,
    DeterminationStatus,
    EvaluationPlan,
    EvaluationRun,
    StandardsDocument,
    StandingRecord,
)
from safehold.trust.standing.rule_out import shortfalls

DECIDE = 2
"""Persons who decide, and who activate: the careful direction."""
WEAKEN = 3
"""Persons who rule out, adjust or de-activate: the direction that takes protection away."""


class StandingStatus(StrEnum):
    """Where a model stands at one threshold."""

    NOT_ASSESSED = "not_assessed"
    CANNOT_RULE_OUT = "cannot_rule_out"
    PASSED = "passed"
    EXPIRED = "expired"
    RULED_OUT = "ruled_out"


class ThresholdStatus(msgspec.Struct, frozen=True):
    """The status, why it is so, and the determination's log index (None: there is none)."""

    threshold: str
    status: StandingStatus
    reasons: tuple[str, ...] = ()
    determination: int | None = None


class StandardInForce(msgspec.Struct, frozen=True):
    """A standard in force: by which record, how, and without which controls."""

    standard: str
    index: int
    precautionary: bool
    provisional: bool
    without: frozenset[str] = frozenset()


def _persons(approvers: Sequence[str]) -> int:
    return len(set(approvers))


def _seen(records: Sequence[StandingRecord], at: int) -> list[StandingRecord]:
    return sorted((one for one in records if one.time <= at), key=lambda one: one.index)


def rule_out_faults(
    records: Sequence[StandingRecord], decided: Determination, threshold: CapabilityThreshold
) -> tuple[str, ...]:
    """Return why a determination does not rule its threshold out; empty when it does."""
    before = [one for one in records if one.index < decided.index]
    runs = {one.index: one for one in before if isinstance(one, EvaluationRun)}
    basis = [runs[index] for index in decided.basis if index in runs]
    if not basis or len(basis) != len(set(decided.basis)):
        return ("its basis names no evaluation, or one that is not in the log before it",)
    plans = _first_plans(before)
    named = {run.plan for run in basis}
    plan = plans.get(named.pop()) if len(named) == 1 else None
    if plan is None or plan.threshold != threshold.id:
        return (f"its evaluations are not of one plan for {threshold.id}",)
    said = [
        f"evaluation {run.index} is of another model" for run in basis if run.model != decided.model
    ]
    if plan.below > threshold.below:
        said.append(f"its plan asks for less than {threshold.id}: {plan.below:g}")
    missing = sorted(set(plan.suites) - {run.suite for run in basis})
    said += [f"suite {suite} has no evaluation" for suite in missing]
    counted = _counted_plans(before, plan)
    for run in runs.values():  # 4
        if run.model == decided.model and run.plan in counted:
            said += shortfalls(counted[run.plan], run)  # 3
    return tuple(said)


def _over(
    records: Sequence[StandingRecord],
    decided: Determination,
    document: StandardsDocument,
    *,
    compute: float,
    at: int,
) -> tuple[str, ...]:
    """Return why a sound rule-out holds no longer."""
    said: list[str] = []
    if at >= decided.next_review:
        said.append("its review is overdue")
    runs = [one for one in records if isinstance(one, EvaluationRun) and one.index in decided.basis]
    for run in runs:
        if at >= run.expires:
            said.append(f"evaluation {run.index} has expired")
        if not compute < run.compute * document.growth:
            said.append(f"the model's compute outgrew evaluation {run.index}")
    names = {run.plan for run in runs}
    plans = _first_plans(records)
    for one in records:
        if one.index <= decided.index:
            continue
        if isinstance(one, EvaluationPlan) and one.supersedes in names:
            said.append(f"plan {one.id} supersedes its plan")
        if isinstance(one, EvaluationRun) and one.model == decided.model:
            said += [
                fault
                for name in names & set(plans)
                for other in (_counted_plans(records, plans[name]).get(one.plan),)
                if other is not None
                for fault in shortfalls(other, one)  # 4
            ]
    return tuple(said)


def _counted_plans(
    records: Sequence[StandingRecord], plan: EvaluationPlan
) -> dict[str, EvaluationPlan]:
    """Return the plans whose runs count beside a plan: all for its threshold but those it replaced.

    A plan supersedes another only if it was logged after it and names it; so does a chain of them.
    """
    plans = _first_plans(records)
    gone: set[str] = set()
    here = plan
    while here.supersedes in plans and here.supersedes not in gone | {plan.id}:
        older = plans[here.supersedes]
        if older.index > here.index:
            break
        gone.add(older.id)
        here = older
    return {
        name: one
        for name, one in plans.items()
        if one.threshold == plan.threshold and name not in gone
    }


def _first_plans(records: Sequence[StandingRecord]) -> dict[str, EvaluationPlan]:
    """Return the plans by name; the first of a name holds, so that nobody amends one later."""
    plans: dict[str, EvaluationPlan] = {}
    for one in sorted(records, key=lambda one: one.index):
        if isinstance(one, EvaluationPlan):
            plans.setdefault(one.id, one)
    return plans


def threshold_status(
    document: StandardsDocument,
    records: Sequence[StandingRecord],
    threshold: CapabilityThreshold,
    *,
    model: str,
    compute: float,
    at: int,
) -> ThresholdStatus:
    """Return where a model stands at a threshold at time `at`; unsound determinations are none."""
    seen = _seen(records, at)  # 1
    held = ThresholdStatus(threshold.id, StandingStatus.NOT_ASSESSED)
    for one in seen:
        if not isinstance(one, Determination) or _persons(one.approvers) < DECIDE:  # 2
            continue
        if one.model != model or one.threshold != threshold.id:
            continue
        if one.status is not DeterminationStatus.RULED_OUT:
            if held.status is not StandingStatus.PASSED:  # 6
                held = ThresholdStatus(threshold.id, StandingStatus(one.status), (), one.index)
            continue
        faults = _faults(seen, one, threshold, held)
        if not faults:
            over = _over(seen, one, document, compute=compute, at=at)  # 5
            status = StandingStatus.EXPIRED if over else StandingStatus.RULED_OUT
            held = ThresholdStatus(threshold.id, status, over, one.index)
        elif held.status is not StandingStatus.RULED_OUT:
            held = msgspec.structs.replace(held, reasons=faults)
    return held


def _faults(
    seen: Sequence[StandingRecord],
    decided: Determination,
    threshold: CapabilityThreshold,
    held: ThresholdStatus,
) -> tuple[str, ...]:
    faults = list(rule_out_faults(seen, decided, threshold))
    if _persons(decided.approvers) < WEAKEN:  # 2
        faults.append(f"a rule-out needs {WEAKEN} persons")
    passed = held.determination if held.status is StandingStatus.PASSED else None
    if passed is not None and not _planned_after(seen, decided, passed):  # 6
        faults.append("the threshold was passed, and no later plan rules it out")
    return tuple(faults)


def _planned_after(
    records: Sequence[StandingRecord], decided: Determination, passed_at: int
) -> bool:
    names = {
        one.plan for one in records if isinstance(one, EvaluationRun) and one.index in decided.basis
    }
    plans = _first_plans(records)
    return all(name in plans and plans[name].index > passed_at for name in names)


def in_force(
    records: Sequence[StandingRecord], standard: str, *, at: int
) -> StandardInForce | None:
    """Return how a standard is in force at time `at`, or None."""
    held: StandardInForce | None = None
    for one in _seen(records, at):
        match one:
            case Activation() if one.standard == standard and _persons(one.approvers) >= DECIDE:
                held = StandardInForce(standard, one.index, one.precautionary, one.provisional)
            case Adjustment() if one.standard == standard and held is not None:
                if _persons(one.approvers) >= WEAKEN:
                    without = held.without | frozenset(one.without)
                    held = msgspec.structs.replace(held, without=without)
            case Deactivation() if one.standard == standard:
                if _persons(one.approvers) >= WEAKEN:
                    held = None
            case _:
                pass
    return held
