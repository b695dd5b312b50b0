"""Changes of the signed file of hot rules: each is a new file with the next serial, put whole.

A change reads what is there, verifies it, and signs it anew; whoever is killed on the way leaves
the file of before. Of two people who change it at the same time, the second one's change is made to
what the first one left.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.guard.bundle.overlay_file import MAX_FILE_BYTES, RuleQuorum, check, opened, sealed
from safehold.guard.overlay.interface import (
    DAY_S,
    HotRule,
    OverlayContent,
    OverlayError,
    PlacedRule,
    RuleApproval,
    RuleState,
)
from safehold.guard.overlay.live import compiled
from safehold.trust.log.files import change_whole, write_new

_PERSONS = 2
Change = Callable[[tuple[PlacedRule, ...]], tuple[PlacedRule, ...]]


class RuleBook:
    """The file, and the person who signs its changes."""

    def __init__(self, file: Path, quorum: RuleQuorum, person: str, key: Ed25519PrivateKey) -> None:
        """Take the file, whose signatures count, and who signs.

        Raises:
            ConfigError: The key is not the person's.
        """
        quorum.check_signer(person, key)
        self._file = file
        self._quorum = quorum
        self._person = person
        self._key = key

    def begin(self, now: int) -> None:
        """Make an empty file where there is none.

        Raises:
            OverlayError: There is one.
        """
        try:
            write_new(self._file, self._sealed(OverlayContent(serial=1, at=now)), mode=0o644)
        except FileExistsError as error:
            raise OverlayError(f"{self._file}: exists already") from error
        except OSError as error:
            raise _refused(self._file, error) from error

    def content(self) -> OverlayContent:
        """Return what the file holds.

        Raises:
            OverlayError: It is missing or does not verify.
        """
        return read_rules(self._file, self._quorum)

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
        serial = 0

        def next_of(data: bytes | None) -> bytes:
            nonlocal serial
            if data is None:
                raise OverlayError(f"{self._file}: expected a file of hot rules")
            before = opened(data, self._quorum)
            kept = tuple(one for one in before.rules if one.rule.expires > now)
            fresh = OverlayContent(serial=before.serial + 1, at=now, rules=change(kept))
            # What the workers would refuse is refused here first.
            check(fresh.rules, self._quorum)
            compiled(fresh, now=now, version=1)
            serial = fresh.serial
            return self._sealed(fresh)

        try:
            change_whole(self._file, next_of)
        except OSError as error:
            raise _refused(self._file, error) from error
        return serial

    def _sealed(self, content: OverlayContent) -> bytes:
        return sealed(content, self._person, self._key)


def _refused(file: Path, error: OSError) -> OverlayError:
    return OverlayError(f"{file}: can't be changed ({error.strerror})")


def read_rules(file: Path, quorum: RuleQuorum) -> OverlayContent:
    """Return what a signed file of hot rules holds.

    Raises:
        OverlayError: It is missing, too large, or does not verify.
    """
    try:
        if not file.is_file():  # A pipe or a device would never end.
            raise OverlayError(f"{file}: expected a file of hot rules")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise OverlayError(f"{file}: is larger than any file of hot rules")
        with file.open("rb") as given:
            data = given.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise OverlayError(f"{file}: expected a file of hot rules ({error.strerror})") from error
    return opened(data, quorum)


def standing_in(file: Path, quorum: RuleQuorum, rule: HotRule, now: int) -> HotRule:
    """Return the rule if a release may rest on it: it acts now, by two persons, and for a day more.

    Raises:
        OverlayError: Fewer than two persons are asked for, one person alone broke the glass, or
            the rule ends before the next answer could be there; or as `acting_in`.
    """
    if quorum.needed < _PERSONS:
        raise OverlayError(
            f"hot rule {rule.id}: a release rests on what two persons let act; give both with "
            "--person-pub"
        )
    placed = _acting_in(file, quorum, rule, now)
    if placed.broken_glass:
        raise OverlayError(f"hot rule {rule.id}: one person alone let it act; have two approve it")
    if rule.expires - now < DAY_S:
        raise OverlayError(
            f"hot rule {rule.id}: ends within a day; make one that outlasts the release "
            "(`respond rule --days`)"
        )
    return rule


def acting_in(file: Path, quorum: RuleQuorum, rule: HotRule, now: int) -> HotRule:
    """Return the rule if the file lets exactly it act now.

    Raises:
        OverlayError: The file is missing, does not verify, or doesn't let this rule act now.
    """
    return _acting_in(file, quorum, rule, now).rule


def _acting_in(file: Path, quorum: RuleQuorum, rule: HotRule, now: int) -> PlacedRule:
    rules = read_rules(file, quorum).rules
    placed = next((one for one in rules if one.rule.digest == rule.digest), None)
    if placed is None:
        raise OverlayError(f"hot rule {rule.id}: is not in {file} as the case has it")
    if placed.state is not RuleState.ACTING:
        raise OverlayError(f"hot rule {rule.id}: expected an acting rule, it is in shadow")
    if rule.expires <= now:
        raise OverlayError(f"hot rule {rule.id}: its time is over; make a new one")
    return placed


def renewed(rule: HotRule, *, now: int, days: int) -> HotRule:
    """Return the rule from now on for so many days; approvals of before do not hold for it."""
    return msgspec.structs.replace(rule, created=now, expires=now + days * 86_400)
