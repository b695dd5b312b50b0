"""Caps fitted on the operator's own honest accounts, kept and fitted anew.

The statistics hold for accounts within the caps, so the caps have to be the operator's own: what
honest accounts there do. Traffic under a grant has caps of its own, or no label at all.
"""

from collections.abc import Collection

import msgspec
from sqlalchemy import delete, insert, select

from safehold.detect.monitoring.account_book import EXEMPT, AccountBook
from safehold.detect.monitoring.accounts import AccountState, Caps, fit_caps
from safehold.detect.monitoring.tables import CAPS, MonitorStore
from safehold.errors import DataError

LEAST_ACCOUNTS = 30
_LEAST_QUERIES = 50


class FittedCaps(msgspec.Struct, frozen=True, kw_only=True):
    """Caps, on how many accounts with enough queries they were fitted, and when."""

    caps: Caps
    accounts: int
    fitted_at: float


def fit(store: MonitorStore, honest: Collection[str], *, now: float) -> dict[str, FittedCaps]:
    """Fit the caps on these accounts' traffic so far, and keep them.

    `honest` are accounts that people looked at. Exempt traffic of the same accounts gives the caps
    of exempt traffic, where there is enough.

    Raises:
        DataError: fewer than 30 of them have 50 exchanges or more: their greatest rates say little.
    """
    states = AccountBook(store, caps=Caps()).states()
    plain = [states[name] for name in sorted(honest) if name in states]
    exempt = [states[name + EXEMPT] for name in sorted(honest) if name + EXEMPT in states]
    known = _enough(plain)
    if known < LEAST_ACCOUNTS:
        raise DataError(
            f"expected {LEAST_ACCOUNTS} honest accounts with {_LEAST_QUERIES} exchanges or more, "
            f"came {known}: look at more accounts, or wait"
        )
    found = {"accounts": FittedCaps(caps=fit_caps(plain), accounts=known, fitted_at=now)}
    if _enough(exempt) >= LEAST_ACCOUNTS:
        own = FittedCaps(caps=fit_caps(exempt), accounts=_enough(exempt), fitted_at=now)
        found["exempt"] = own
    with store.begin() as connection:
        for name, one in found.items():
            connection.execute(delete(CAPS).where(CAPS.c.name == name))
            row = {"name": name, "caps": msgspec.json.encode(one.caps).decode()}
            rest = {"accounts": one.accounts, "fitted_at": one.fitted_at}
            connection.execute(insert(CAPS), {**row, **rest})
    return found


def fitted(store: MonitorStore) -> dict[str, FittedCaps]:
    """Return what was fitted last: `accounts`, and `exempt` where there was enough."""
    with store.begin() as connection:
        return {
            row.name: FittedCaps(
                caps=msgspec.json.decode(row.caps, type=Caps),
                accounts=row.accounts,
                fitted_at=row.fitted_at,
            )
            for row in connection.execute(select(CAPS))
        }


def caps_of(store: MonitorStore) -> tuple[Caps, Caps | None]:
    """Return the caps in force, and those of exempt traffic; the defaults until some are fitted."""
    found = fitted(store)
    exempt = found.get("exempt")
    plain = found.get("accounts")
    return (Caps() if plain is None else plain.caps), (None if exempt is None else exempt.caps)


def _enough(states: list[AccountState]) -> int:
    return sum(one.queries >= _LEAST_QUERIES for one in states)
