"""How far a trial is, shared by all workers: the evidence, and what the signed files moved.

The memory decides, not the file: a signed step that skips one, comes too early, is older than one
that was followed, or belongs to a trial that ended, changes nothing. A change is made under a lock
and put whole, so a worker that is killed leaves the memory of before.
"""

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from safehold.guard.gateway.bundles.trial_file import TrialError, TrialPlan
from safehold.guard.gateway.bundles.trial_steps import Trial, TrialExchange, TrialStep


class Verdicts(msgspec.Struct, frozen=True):
    """One exchange that both bundles judged."""

    decision_id: str
    champion: bool
    challenger: bool


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trial as its workers know it: the plan in force, its state, its own alarms by decision."""

    plan: TrialPlan
    trial: Trial
    alarms: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the challenger still judges."""
        return self.trial.step is not TrialStep.ROLLED_BACK


def followed(kept: Kept | None, plan: TrialPlan) -> Kept:
    """Return the memory after a verified plan was read.

    Raises:
        TrialError: The plan is no next step of what is remembered; the message says why.
    """
    if kept is None or (kept.plan.id != plan.id and plan.serial > kept.plan.serial):
        if plan.step is TrialStep.ROLLED_BACK and kept is None:
            return Kept(plan, _new(plan).ended("a person's word"))
        if plan.step is not TrialStep.SHADOW:
            raise TrialError(f"trial {plan.id}: begins in shadow, not at {plan.step}")
        return Kept(plan, _new(plan))
    if plan == kept.plan:
        return kept
    if plan.serial <= kept.plan.serial:
        raise TrialError(f"trial {plan.id}: serial {plan.serial} came before {kept.plan.serial}")
    free = {"serial": plan.serial, "step": plan.step, "restricted": plan.restricted}
    if msgspec.structs.replace(kept.plan, **free) != plan:
        raise TrialError(f"trial {plan.id}: another bundle or rule needs a trial of its own")
    if not set(kept.plan.restricted) <= set(plan.restricted):
        raise TrialError(f"trial {plan.id}: a reviewer's verdict is missing that was there before")
    # What a reviewer called restricted is no false alarm any more; what ended stays ended.
    named = set(plan.restricted)
    excused = sum(one in named for one in kept.alarms)
    trial = msgspec.structs.replace(
        kept.trial, evidence=kept.trial.evidence.many(0, -excused, plan.rules)
    )
    left = tuple(one for one in kept.alarms if one not in named)
    return Kept(plan, _moved(trial, plan), left)


def _new(plan: TrialPlan) -> Trial:
    return Trial(champion=plan.champion, challenger=plan.challenger)


def _moved(trial: Trial, plan: TrialPlan) -> Trial:
    if trial.step is TrialStep.ROLLED_BACK or plan.step is trial.step:
        return trial
    if plan.step is TrialStep.ROLLED_BACK:
        return trial.ended("a person's word")
    try:
        next_ = trial.forward(plan.least)
    except ValueError as error:
        raise TrialError(f"trial {plan.id}: {error}") from error
    if next_.step is not plan.step:
        raise TrialError(f"trial {plan.id}: after {trial.step} comes {next_.step}, not {plan.step}")
    return next_


def judged(kept: Kept, found: Iterable[Verdicts]) -> Kept:
    """Return the memory after some more exchanges; the evidence may end the trial."""
    trial, alarms = kept.trial, list(kept.alarms)
    named = set(kept.plan.restricted)
    for one in found:
        if trial.step is TrialStep.ROLLED_BACK:
            break
        benign = False if one.decision_id in named else None
        trial = trial.after(TrialExchange(one.champion, one.challenger, benign), kept.plan.rules)
        if one.challenger and not one.champion and benign is None:
            alarms.append(one.decision_id)
    return Kept(kept.plan, trial, tuple(alarms))


class TrialMemory:
    """The file; all of a gateway's workers share it."""

    def __init__(self, file: Path) -> None:
        """Take the file; nothing is read yet."""
        self._file = file

    def read(self) -> Kept | None:
        """Return what is remembered; None where there never was a trial.

        Raises:
            TrialError: The memory can't be read.
        """
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TrialError(f"{self._file.name}: the memory of the trial can't be read") from error
        try:
            return msgspec.json.decode(data, type=Kept)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TrialError(f"{self._file.name}: the memory of the trial is broken") from error

    def change(self, change: Callable[[Kept | None], Kept]) -> Kept:
        """Change it under the lock that all workers share.

        Raises:
            TrialError: It can't be read or written, or the change refuses.
        """
        try:
            with self._file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                before = self.read()
                after = change(before)
                if after != before:
                    self._write(after)
        except OSError as error:
            raise TrialError(
                f"{self._file.name}: the memory of the trial can't be changed"
            ) from error
        return after

    def _write(self, kept: Kept) -> None:
        draft = self._file.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(kept))
        draft.replace(self._file)
