"""Changes of a trial's signed file: proposed beside it, signed there, then put in its place whole.

A killed change leaves the file of before, or the proposal beside it, which is signed again.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.guard.bundle.overlay_file import RuleQuorum
from safehold.guard.gateway.bundles.trial_file import (
    TrialError,
    TrialPlan,
    decoded,
    encoded,
    opened_plan,
    read_plan,
    signed,
    signers,
    written,
)
from safehold.guard.gateway.bundles.trial_steps import NEXT_STEP, TrialStep
from safehold.trust.log.files import change_whole

PROPOSED = ".next"


class TrialBook:
    """The file of a trial, the proposal beside it, and the person who signs."""

    def __init__(self, file: Path, quorum: RuleQuorum, person: str, key: Ed25519PrivateKey) -> None:
        """Take the file, whose signatures count, and who signs.

        Raises:
            ConfigError: The key is not the person's.
        """
        quorum.check_signer(person, key)
        self._file = file
        self._proposed = file.with_name(file.name + PROPOSED)
        self._quorum = quorum
        self._person = person
        self._key = key

    def begin(self, plan: TrialPlan) -> TrialPlan:
        """Begin in shadow, one serial after the file of an earlier trial.

        Raises:
            TrialError: The plan is no beginning, or the file there does not verify.
        """
        if plan.step is not TrialStep.SHADOW:
            raise TrialError(f"trial {plan.id}: begins in shadow, not at {plan.step}")

        def first(data: bytes | None) -> bytes:
            if data is None:
                return self._signed(plan)
            before = opened_plan(data, self._quorum)
            if before.id == plan.id:
                raise TrialError(f"trial {plan.id}: is there already; a new one has a new name")
            return self._signed(msgspec.structs.replace(plan, serial=before.serial + 1))

        return read_plan(decoded(self._change(self._file, first)))

    def plan(self) -> TrialPlan:
        """Return what is in force.

        Raises:
            TrialError: There is no file, or it does not verify.
        """
        return opened_plan(self._bytes(self._file), self._quorum)

    def propose(self) -> TrialPlan:
        """Propose the next step, with this person's signature.

        Raises:
            TrialError: There is no further step.
        """
        now = self.plan()
        if now.step not in NEXT_STEP:
            raise TrialError(f"trial {now.id}: {now.step} has no further step")
        return self._propose(now, step=NEXT_STEP[now.step])

    def excuse(self, decisions: tuple[str, ...]) -> TrialPlan:
        """Propose to count these decisions as restricted, as a reviewer did."""
        now = self.plan()
        return self._propose(now, restricted=tuple(sorted({*now.restricted, *decisions})))

    def _propose(self, now: TrialPlan, **changes: object) -> TrialPlan:
        plan = msgspec.structs.replace(now, serial=now.serial + 1, **changes)

        def proposed(data: bytes | None) -> bytes:
            # Whoever proposes what lies there already signs it: nobody's signature is lost.
            there = None if data is None else decoded(data)
            if there is None or there.content != written(plan).content:
                there = written(plan)
            return encoded(signed(there, self._person, self._key))

        self._change(self._proposed, proposed)
        return plan

    def approve(self) -> tuple[TrialPlan, frozenset[str]]:
        """Sign the proposal too; return it, and who signed so far.

        Raises:
            TrialError: There is none.
        """

        def approved(data: bytes | None) -> bytes:
            if data is None:
                raise _missing(self._proposed)
            return encoded(signed(decoded(data), self._person, self._key))

        file = decoded(self._change(self._proposed, approved))
        plan = read_plan(file)
        return plan, signers(file, plan, self._quorum)

    def take(self) -> TrialPlan:
        """Put the proposal in the file's place: its signatures are verified first.

        Raises:
            TrialError: It is not signed by enough persons, or was made before another step.
        """
        proposal = self._bytes(self._proposed)
        plan = opened_plan(proposal, self._quorum)

        def taken(data: bytes | None) -> bytes:
            now = self._in_force(data)
            if plan.serial != now.serial + 1:
                raise TrialError(
                    f"trial {plan.id}: proposed before serial {now.serial}; propose anew"
                )
            return proposal

        self._change(self._file, taken)
        self._proposed.unlink(missing_ok=True)
        return plan

    def back(self) -> TrialPlan:
        """End the trial at once: one person is enough for the way back."""

        def ended(data: bytes | None) -> bytes:
            now = self._in_force(data)
            return self._signed(
                msgspec.structs.replace(now, serial=now.serial + 1, step=TrialStep.ROLLED_BACK)
            )

        return read_plan(decoded(self._change(self._file, ended)))

    def _in_force(self, data: bytes | None) -> TrialPlan:
        if data is None:
            raise _missing(self._file)
        return opened_plan(data, self._quorum)

    def _signed(self, plan: TrialPlan) -> bytes:
        return encoded(signed(written(plan), self._person, self._key))

    def _bytes(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise _missing(path) from error

    def _change(self, path: Path, change: Callable[[bytes | None], bytes]) -> bytes:
        try:
            return change_whole(path, change)
        except OSError as error:
            raise TrialError(f"{path.name}: can't be changed ({error.strerror})") from error


def _missing(path: Path) -> TrialError:
    return TrialError(f"{path.name}: expected a signed file of a trial's step")
