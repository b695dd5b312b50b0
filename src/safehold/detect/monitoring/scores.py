"""Recorded scores by account, summed where they lie: the database counts, memory stays flat."""

from collections.abc import Iterator

import msgspec
from sqlalchemy import case, func, select

from safehold.detect.monitoring.tables import RESULTS, MonitorStore


class AccountScores(msgspec.Struct, frozen=True, kw_only=True):
    """What one scanner said of one account's exchanges."""

    account: str
    exchanges: int
    mean: float
    highest: float
    above: int
    unscorable: int


def by_account(
    store: MonitorStore, scanner: str, *, at_least: float = 0.5, limit: int | None = None
) -> Iterator[AccountScores]:
    """Yield the accounts of a scanner's results, those with the most high scores first.

    `above` counts values of `at_least` or more. An account whose every row was unscorable has a
    mean and a highest value of 0.

    Raises:
        LedgerError: the database can't be read.
    """
    value = RESULTS.c.value
    above = func.sum(case((value >= at_least, 1), else_=0))
    query = (
        select(
            RESULTS.c.account,
            func.count().label("exchanges"),
            func.coalesce(func.avg(value), 0.0).label("mean"),
            func.coalesce(func.max(value), 0.0).label("highest"),
            above.label("above"),
            func.sum(case((value.is_(None), 1), else_=0)).label("unscorable"),
        )
        .where(RESULTS.c.scanner == scanner)
        .group_by(RESULTS.c.account)
        .order_by(above.desc(), RESULTS.c.account)
        .limit(limit)
    )
    with store.begin() as connection:
        for row in connection.execute(query.execution_options(yield_per=1_000)):
            yield AccountScores(
                account=row.account,
                exchanges=row.exchanges,
                mean=float(row.mean),
                highest=float(row.highest),
                above=row.above,
                unscorable=row.unscorable,
            )
