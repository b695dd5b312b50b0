"""Whether a case's rule and trials are in shadow, acting or ended, by their signed files.

The files say what persons signed. What a gateway made of a trial is in its own memory
(`safehold respond trial status`).
"""

import time
from enum import StrEnum
from pathlib import Path

import msgspec

from safehold.errors import BundleError
from safehold.guard.bundle.overlay_file import RuleQuorum
from safehold.guard.gateway.bundles.trial_file import opened_plan
from safehold.guard.gateway.bundles.trial_steps import TrialStep
from safehold.guard.overlay.interface import HotRule, RuleState
from safehold.improve.response.rule_book import read_rules


class Force(StrEnum):
    """What an answer to an incident does now."""

    UNPLACED = "not placed"
    """It was made and is in no signed file yet."""
    SHADOW = "shadow"
    """It is counted and stops nothing."""
    ACTING = "acting"
    ENDED = "ended"
    UNKNOWN = "unknown"
    """Its signed file is missing or does not verify; `detail` says why."""


class InForce(msgspec.Struct, frozen=True):
    """One answer to an incident: its name, what it does now, and the signed file that says so."""

    name: str
    force: Force
    file: str = ""
    detail: str = ""

    def line(self) -> str:
        """Return it as one line for a person."""
        said = f" ({self.detail})" if self.detail else ""
        return f"{self.force}{said}{f', {self.file}' if self.file else ''}"


def rule_in_force(file: Path | None, quorum: RuleQuorum, rule: HotRule, now: int) -> InForce:
    """Return what a rule does; `file` is where it was put in shadow, None where it never was."""
    if file is None:
        return InForce(rule.id, Force.UNPLACED)
    try:
        placed = [one for one in read_rules(file, quorum).rules if one.rule.id == rule.id]
    except BundleError as error:
        return InForce(rule.id, Force.UNKNOWN, str(file), str(error))
    if not placed:
        return InForce(rule.id, Force.ENDED, str(file), "taken out, or over")
    found = placed[0]
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.rule.expires))
    if found.rule.expires <= now:
        return InForce(rule.id, Force.ENDED, str(file), f"at {until}")
    acts = found.state is RuleState.ACTING
    other = "" if found.rule.digest == rule.digest else ", an earlier version of the case's rule"
    detail = f"until {until}{other}"
    return InForce(rule.id, Force.ACTING if acts else Force.SHADOW, str(file), detail)


def trial_in_force(file: Path, quorum: RuleQuorum, report: str) -> InForce:
    """Return what a trial does, by its signed file; `report` is the digest of the case's gates."""
    try:
        plan = opened_plan(file.read_bytes(), quorum)
    except OSError as error:
        detail = f"can't be read: {error.strerror}"
        return InForce("", Force.UNKNOWN, str(file), detail)
    except BundleError as error:
        return InForce("", Force.UNKNOWN, str(file), str(error))
    if plan.report != report:
        return InForce(plan.id, Force.ENDED, str(file), "another trial has this file now")
    if plan.step is TrialStep.ROLLED_BACK:
        return InForce(plan.id, Force.ENDED, str(file), "rolled back")
    if plan.step is TrialStep.SHADOW:
        return InForce(plan.id, Force.SHADOW, str(file), f"serial {plan.serial}")
    detail = f"{plan.step} % of the accounts, serial {plan.serial}"
    return InForce(plan.id, Force.ACTING, str(file), detail)
