"""What the scans covered: for each scanner, how many exchanges were judged and how many wait."""

import msgspec
from sqlalchemy import case, func, select

from safehold.detect.monitoring.tables import SCANNERS, UNITS, MonitorStore


class ScannerCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """One scanner: exchanges judged and waiting, up to which row of the ledger, and CPU seconds."""

    name: str
    scanner: str
    judged: int
    waiting: int
    planned: int
    cpu_s: float


def scan_coverage(store: MonitorStore) -> list[ScannerCoverage]:
    """Return every scanner that ever ran, by name.

    Raises:
        LedgerError: the database can't be read.
    """
    done = case((UNITS.c.state == "done", UNITS.c.row_count), else_=0)
    left = case((UNITS.c.state == "done", 0), else_=UNITS.c.row_count)
    query = (
        select(
            SCANNERS.c.name,
            SCANNERS.c.scanner,
            SCANNERS.c.planned,
            func.coalesce(func.sum(done), 0).label("judged"),
            func.coalesce(func.sum(left), 0).label("waiting"),
            func.coalesce(func.sum(UNITS.c.cpu_s), 0.0).label("cpu_s"),
        )
        .join_from(SCANNERS, UNITS, SCANNERS.c.scanner == UNITS.c.scanner, isouter=True)
        .group_by(SCANNERS.c.name, SCANNERS.c.scanner, SCANNERS.c.planned)
        .order_by(SCANNERS.c.name, SCANNERS.c.scanner)
    )
    with store.begin() as connection:
        return [
            ScannerCoverage(
                name=row.name,
                scanner=row.scanner,
                judged=int(row.judged),
                waiting=int(row.waiting),
                planned=int(row.planned),
                cpu_s=float(row.cpu_s),
            )
            for row in connection.execute(query)
        ]
