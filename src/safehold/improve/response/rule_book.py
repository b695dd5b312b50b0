"""Changes of the signed file of hot rules: each is a new file with the next serial, put whole.

A change reads what is there, verifies it, and signs it anew; whoever is killed on the way leaves
the file of before. Two people who change it at the same time: the second one's serial is taken, and
the change says so instead of undoing the first.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.guard.bundle.overlay_file import RuleQuorum, check, opened, sealed
from safehold.guard.overlay.interface import (
    HotRule,
    OverlayContent,
    OverlayError,
    PlacedRule,
    RuleApproval,
    RuleState,
)
from safehold.guard.overlay.live import compiled

Change = Callable[[tuple[PlacedRule, ...]], tuple[PlacedRule, ...]]


class RuleBook:
    """The file, and the person who signs its changes."""

    def __init__(self, file: Path, quorum: RuleQuorum, person: str, key: Ed25519PrivateKey) -> None:
        """Take the file, whose signatures count, and who signs."""
        self._file = file
        self._quorum = quorum
        self._person = person
        self._key = key

    def begin(self, now: int) -> None:
        """Make an empty file where there is none.

        Raises:
            OverlayError: There is one.
        """
        if self._file.exists():
            raise OverlayError(f"{self._file}: exists already")
        self._write(OverlayContent(serial=1, at=now))

    def content(self) -> OverlayContent:
        """Return what the file holds.

        Raises:
            OverlayError: It is missing or does not verify.
        """
        return _content(self._file, self._quorum)

    def shadow(self, rule: HotRule, now: int) -> int:
        """Put a rule in shadow; return the file's new serial.

        Raises:
            OverlayError: The rule can't be searched, or its id is taken by another one.
        """

        def change(rules: tuple[PlacedRule, ...]) -> tuple[PlacedRule, ...]:
            before = [one for one in rules if one.rule.id == rule.id]
            if before and before[0].rule.digest != rule.digest:
                raise OverlayError(f"hot rule {rule.id}: another rule has this id")
            return rules if before else (*rules, PlacedRule(rule))

        return self._change(change, now)

    def act(
        self,
        rule_id: str,
        approvals: tuple[RuleApproval, ...],
        now: int,
        *,
        broken_glass: bool = False,
        grant: str = "",
    ) -> int:
        """Let a rule in shadow act; return the file's new serial.

        `grant` is the request in the log that lets it act, for gateways that read one.

        Raises:
            OverlayError: There is no such rule, or it may not act.
        """

        def change(rules: tuple[PlacedRule, ...]) -> tuple[PlacedRule, ...]:
            if rule_id not in {one.rule.id for one in rules}:
                raise OverlayError(f"hot rule {rule_id}: put it in shadow first")
            return tuple(
                PlacedRule(one.rule, RuleState.ACTING, approvals, broken_glass, grant)
                if one.rule.id == rule_id
                else one
                for one in rules
            )

        return self._change(change, now)

    def end(self, rule_id: str, now: int) -> int:
        """Take a rule out; return the file's new serial.

        Raises:
            OverlayError: There is no such rule.
        """

        def change(rules: tuple[PlacedRule, ...]) -> tuple[PlacedRule, ...]:
            if rule_id not in {one.rule.id for one in rules}:
                raise OverlayError(f"hot rule {rule_id}: is not in the file")
            return tuple(one for one in rules if one.rule.id != rule_id)

        return self._change(change, now)

    def _change(self, change: Change, now: int) -> int:
        lock = self._file.with_suffix(".lock")
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            before = self.content()
            kept = tuple(one for one in before.rules if one.rule.expires > now)
            fresh = OverlayContent(serial=before.serial + 1, at=now, rules=change(kept))
            # What the workers would refuse is refused here first.
            check(fresh.rules, self._quorum)
            compiled(fresh, now=now, version=1)
            self._write(fresh)
        return fresh.serial

    def _write(self, content: OverlayContent) -> None:
        draft = self._file.with_suffix(f".{os.getpid()}.draft")
        with draft.open("wb") as file:
            file.write(sealed(content, self._person, self._key))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._file)


def _content(file: Path, quorum: RuleQuorum) -> OverlayContent:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise OverlayError(f"{file}: expected a file of hot rules") from error
    return opened(data, quorum)


def acting_in(file: Path, quorum: RuleQuorum, rule: HotRule, now: int) -> HotRule:
    """Return the rule if the file lets exactly it act now: what `respond gate` may count on.

    Raises:
        OverlayError: The file is missing, does not verify, or doesn't let this rule act now.
    """
    rules = _content(file, quorum).rules
    placed = next((one for one in rules if one.rule.digest == rule.digest), None)
    if placed is None:
        raise OverlayError(f"hot rule {rule.id}: is not in {file} as the case has it")
    if placed.state is not RuleState.ACTING:
        raise OverlayError(f"hot rule {rule.id}: expected an acting rule, it is in shadow")
    if rule.expires <= now:
        raise OverlayError(f"hot rule {rule.id}: its time is over; make a new one")
    return rule


def renewed(rule: HotRule, *, now: int, days: int) -> HotRule:
    """Return the rule from now on for so many days; approvals of before do not hold for it."""
    return msgspec.structs.replace(rule, created=now, expires=now + days * 86_400)
