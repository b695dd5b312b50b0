"""The account states in force: one answer for each account, at each moment."""

from collections.abc import Callable, Iterable

import msgspec

from safehold.guard.accounts.interface import AccountStanding, AccountStates, LadderStep
from safehold.trust.grants.details import ACCOUNT_STEPS, AccountStep
from safehold.trust.grants.interface import GrantError
from safehold.trust.grants.state import TrustState


class StepInForce(msgspec.Struct, frozen=True):
    """The highest step of an account now, and the least number of requests an hour."""

    level: LadderStep
    until: int
    requests_per_hour: int | None = None


StateSource = Callable[[str, float], StepInForce | None]
"""Says what is in force for an account (tenant/key) at a time; None: nothing."""


def no_states(account: str, now: float) -> None:
    """Know of no account: a gateway without account states."""
    del account, now


class States:
    """States by account, indexed once for a file."""

    def __init__(self, standings: Iterable[AccountStanding] = ()) -> None:
        """Take the steps whose grants hold."""
        self._by_account: dict[str, list[AccountStanding]] = {}
        for one in standings:
            self._by_account.setdefault(one.account, []).append(one)

    def of(self, account: str, now: float) -> StepInForce | None:
        """Return what is in force for an account."""
        found = [
            one for one in self._by_account.get(account, ()) if one.created <= now < one.expires
        ]
        if not found:
            return None
        highest = max(found, key=lambda one: (one.level.rank, one.expires))
        rates = [one.requests_per_hour for one in found if one.requests_per_hour is not None]
        return StepInForce(highest.level, highest.expires, min(rates, default=None))

    def counts(self, now: float) -> dict[LadderStep, int]:
        """Return how many accounts stand on each step now."""
        levels = [one.level for name in self._by_account if (one := self.of(name, now))]
        return {level: levels.count(level) for level in LadderStep}


def granted(one: AccountStanding, state: TrustState | None) -> bool:
    """Tell whether a step's grant gives exactly this: the account, the step, and no longer."""
    if not one.grant:
        return True
    if state is None:
        return False
    try:
        case = state.case(one.grant)
    except GrantError:
        return False
    request = case.signed.request
    details = request.details
    if case.used_at is None or case.closed or not isinstance(details, AccountStep):
        return False
    gentler = one.requests_per_hour is None or one.requests_per_hour >= details.requests_per_hour
    return (
        request.operation == ACCOUNT_STEPS.get(one.level.value)
        and details.account == one.account
        and one.expires <= details.until
        and gentler
    )


def holding(content: AccountStates, state: TrustState | None) -> tuple[AccountStanding, ...]:
    """Return the steps that need no grant or have one that holds."""
    return tuple(one for one in content.standings if granted(one, state))
