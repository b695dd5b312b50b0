"""A challenger on trial: which accounts it serves, and when it goes on, back or through.

Accounts are drawn by a keyed hash, so an account keeps its bundle from one request to the next and
from one step to a wider one, and nobody can choose an account that is on trial. Each step wants its
own number of exchanges, by which both bundles judged the same text; the champion stays loaded. A
step forward is somebody's signature; the way back is nobody's: it follows from the evidence.
"""

import hashlib
import hmac
from enum import StrEnum

import msgspec

from safehold.guard.gateway.bundles.rollback_evidence import RollbackEvidence, RollbackRules

_BUCKETS = 10_000


class TrialStep(StrEnum):
    """How far a trial is."""

    SHADOW = "shadow"
    """The challenger judges everything and decides nothing."""
    FIVE = "5"
    QUARTER = "25"
    ALL = "100"
    ROLLED_BACK = "rolled-back"
    """Ended by the evidence or by somebody; the champion serves everybody."""


_SHARE = {
    TrialStep.SHADOW: 0.0,
    TrialStep.FIVE: 0.05,
    TrialStep.QUARTER: 0.25,
    TrialStep.ALL: 1.0,
    TrialStep.ROLLED_BACK: 0.0,
}
NEXT_STEP = {
    TrialStep.SHADOW: TrialStep.FIVE,
    TrialStep.FIVE: TrialStep.QUARTER,
    TrialStep.QUARTER: TrialStep.ALL,
}


class TrialExchange(msgspec.Struct, frozen=True):
    """One exchange that both bundles judged: who would refuse it, and what it was.

    `benign` is None until a reviewer or a slower scorer said; only what is benign is evidence, and
    what nobody judged counts as benign, so that silence never keeps a bad challenger.
    """

    champion: bool
    challenger: bool
    benign: bool | None = None


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trial as it stands; every change is a new value, to be signed and logged by its caller.

    `seen` counts the exchanges of this step.
    """

    champion: str
    challenger: str
    step: TrialStep = TrialStep.SHADOW
    seen: int = 0
    evidence: RollbackEvidence = RollbackEvidence()
    reason: str = ""

    def after(self, judged: TrialExchange, rules: RollbackRules) -> "Trial":
        """Return the trial after one more exchange; the evidence may end it."""
        if self.step is TrialStep.ROLLED_BACK:
            return self
        benign = judged.benign is not False
        evidence = self.evidence.many(
            1,
            int(benign and judged.challenger and not judged.champion),
            rules,
            champions=int(benign and judged.champion and not judged.challenger),
        )
        fresh = msgspec.structs.replace(self, seen=self.seen + 1, evidence=evidence)
        if evidence.rolled_back:
            return fresh.ended("more false alarms of its own than are tolerated")
        return fresh

    def ended(self, reason: str) -> "Trial":
        """Return the trial rolled back: a failed canary, a silent ledger, a person's word."""
        return msgspec.structs.replace(self, step=TrialStep.ROLLED_BACK, reason=reason)

    def forward(self, least: int) -> "Trial":
        """Return the next step, after at least so many exchanges in this one.

        Raises:
            ValueError: It is too early, or there is no further step.
        """
        if self.step not in NEXT_STEP:
            raise ValueError(f"a trial that is {self.step} has no further step")
        if self.seen < least:
            raise ValueError(f"{self.seen} exchanges in step {self.step}, {least} are needed")
        return msgspec.structs.replace(self, step=NEXT_STEP[self.step], seen=0)

    def serves(self, account: str, secret: bytes) -> str:
        """Return the digest of the bundle that decides for an account."""
        on_trial = bucket(account, secret) < _SHARE[self.step] * _BUCKETS
        return self.challenger if on_trial else self.champion


def bucket(account: str, secret: bytes) -> int:
    """Return an account's place in 0 to 9,999 by HMAC-SHA-256."""
    digest = hmac.new(secret, account.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") % _BUCKETS
