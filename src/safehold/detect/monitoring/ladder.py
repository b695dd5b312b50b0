"""The ladder: what an account's labels lead to, and the signed file that a gateway follows.

    observe -> review -> step-up -> rate-limit -> suspend

A label opens a review and steps the account up for a day. An account that goes on being stopped
while it is stepped up is limited for a day. Whatever lasts longer, and every suspension, is decided
by people: it needs a grant (docs/detection.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.detect.monitoring.account_book import EXEMPT, STANDS_OUT, KeptLabel
from safehold.detect.monitoring.accounts import AccountState
from safehold.guard.accounts.file import Keys, check, opened, sealed
from safehold.guard.accounts.interface import (
    DAY_S,
    PROVISIONAL_S,
    AccountStanding,
    AccountStateError,
    AccountStates,
    LadderStep,
)
from safehold.trust.log.files import change_whole, write_new

_FRESH_S = 7 * DAY_S
_MISSING = "expected a file of account states; `safehold monitor ladder begin`"
_EVIDENCE = 16


class Climb(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the monitor steps accounts up by itself; nothing of it lasts more than a day.

    `limit_after` stopped exchanges since the account was stepped up lead to `requests_per_hour`.
    """

    limit_after: int = 5
    requests_per_hour: int = 6


def climbed(
    before: Sequence[AccountStanding],
    labels: Iterable[KeptLabel],
    states: Mapping[str, AccountState],
    *,
    now: int,
    stepped_at: Mapping[str, int],
    how: Climb,
) -> tuple[AccountStanding, ...]:
    """Return the steps as they are after a look at the labels; steps by grant stay as they are.

    `stepped_at` is how often each account had been stopped when it last was stepped up: no label
    renews a day by itself. Exempt traffic is judged by its own caps, and its label leads to a
    review alone; so does the label of an account that only stands out among all.
    """
    kept = [one for one in before if one.expires > now]
    have = {(one.account, one.level, one.label) for one in kept}
    fresh: list[AccountStanding] = []
    for label in labels:
        exempt = label.account.endswith(EXEMPT)
        account = label.account.removesuffix(EXEMPT)
        levels = [LadderStep.REVIEW]
        if not exempt and label.label != STANDS_OUT:
            since = stepped_at.get(account)
            stopped = states[account].blocked if account in states else 0
            if since is None:
                levels.append(LadderStep.STEP_UP)
            elif stopped - since >= how.limit_after:
                levels += [LadderStep.STEP_UP, LadderStep.RATE_LIMIT]
        for level in levels:
            if (account, level, label.label) in have:
                continue
            have.add((account, level, label.label))
            ends = label.expires if level is LadderStep.REVIEW else now + PROVISIONAL_S
            fresh.append(
                AccountStanding(
                    account=account,
                    level=level,
                    label=label.label,
                    reason=label.reason[:400],
                    evidence=label.evidence[-_EVIDENCE:],
                    created=now,
                    expires=max(now + 1, min(int(ends), now + 90 * DAY_S)),
                    requests_per_hour=(
                        how.requests_per_hour if level is LadderStep.RATE_LIMIT else None
                    ),
                )
            )
    return (*kept, *fresh)


class StateBook:
    """The file of account states, and who signs its changes; each is the next serial, put whole."""

    def __init__(self, file: Path, keys: Keys, signer: str, key: Ed25519PrivateKey) -> None:
        """Take the file, whose signatures count, and who signs."""
        self._file, self._keys, self._signer, self._key = file, keys, signer, key

    def begin(self, now: int) -> None:
        """Make an empty file where there is none.

        Raises:
            AccountStateError: there is one.
        """
        first = AccountStates(serial=1, at=now, fresh_until=now + _FRESH_S)
        try:
            write_new(self._file, sealed(first, self._signer, self._key), mode=0o644)
        except FileExistsError as error:
            raise AccountStateError(f"{self._file}: exists already") from error
        except OSError as error:
            raise _refused(self._file, error) from error

    def content(self) -> AccountStates:
        """Return what the file holds.

        Raises:
            AccountStateError: it is missing or does not verify.
        """
        try:
            data = self._file.read_bytes()
        except OSError as error:
            raise AccountStateError(f"{self._file}: {_MISSING}") from error
        return opened(data, self._keys)

    def step(self, standing: AccountStanding, now: int) -> int:
        """Put an account on a step; return the file's new serial.

        Raises:
            AccountStateError: the step may not be what it says.
        """
        place = (standing.account, standing.level, standing.label)
        return self.change(
            lambda all_: (*(x for x in all_ if (x.account, x.level, x.label) != place), standing),
            now,
        )

    def lift(self, account: str, now: int) -> int:
        """Take an account off the ladder; return the file's new serial.

        Raises:
            AccountStateError: it is on no step.
        """

        def change(standings: tuple[AccountStanding, ...]) -> tuple[AccountStanding, ...]:
            kept = tuple(one for one in standings if one.account != account)
            if len(kept) == len(standings):
                raise AccountStateError(f"account {account}: is on no step")
            return kept

        return self.change(change, now)

    def change(
        self, change: Callable[[tuple[AccountStanding, ...]], tuple[AccountStanding, ...]], now: int
    ) -> int:
        """Change the steps under a lock; return the file's new serial.

        Raises:
            AccountStateError: what the gateways would refuse is refused here first.
        """
        serial = 0

        def next_of(data: bytes | None) -> bytes:
            nonlocal serial
            if data is None:
                raise AccountStateError(f"{self._file}: {_MISSING}")
            before = opened(data, self._keys)
            kept = tuple(one for one in before.standings if one.expires > now)
            fresh = AccountStates(
                serial=before.serial + 1,
                at=now,
                fresh_until=now + _FRESH_S,
                standings=change(kept),
            )
            check(fresh)
            serial = fresh.serial
            return sealed(fresh, self._signer, self._key)

        try:
            change_whole(self._file, next_of)
        except OSError as error:
            raise _refused(self._file, error) from error
        return serial


def _refused(file: Path, error: OSError) -> AccountStateError:
    return AccountStateError(f"{file}: can't be changed ({error.strerror})")
