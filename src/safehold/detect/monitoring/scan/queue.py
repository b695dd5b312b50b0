"""The queue of units, in SQL: claimed under a lease, ended in one transaction with their results.

Work is done at least once; a result row exists exactly once, because it is written by the same
transaction that ends its unit, and that one only while the unit is still the worker's own.

A unit is parked where what its scanner asks is away. It holds up no run: the next plan opens it.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from safehold.detect.monitoring.scan.interface import ScanFinding, ScanLimits, Unit, unscorable
from safehold.detect.monitoring.tables import LOST, RESULTS, SCANNERS, UNITS, MonitorStore
from safehold.detect.runners.interface import UnitCounts
from safehold.guard.ledger.joined import Joined, joined, sizes, watermark
from safehold.guard.ledger.reader import LedgerReader

_PLAN_ROWS = 20_000
PARKED = "parked"
_LONGEST_WHY = 400


class UnitQueue:
    """The units of one scanner."""

    def __init__(self, store: MonitorStore, scanner: str, limits: ScanLimits) -> None:
        """Take the store, the scanner's digest and the limits."""
        self._store, self._scanner, self._limits = store, scanner, limits
        self._mine = UNITS.c.scanner == scanner

    def plan(self, reader: LedgerReader, *, name: str) -> int:
        """Cut every exchange up to the ledger's watermark into units; return how many units.

        Units that an earlier scan parked are open again, and not among them.

        Raises:
            LedgerError: the ledger or the monitor's database can't be used.
        """
        made = 0
        with self._store.begin() as connection:
            parked = update(UNITS).where(self._mine, UNITS.c.state == PARKED)
            connection.execute(parked.values(state="open", why=None))
        with reader.snapshot() as ledger:
            through = watermark(ledger)
            while True:
                with self._store.begin() as connection:
                    after = self._planned(connection, name)
                    some = sizes(ledger, after=after, through=through, limit=_PLAN_ROWS)
                    units = _cut(some, self._limits)
                    for rows in units:
                        connection.execute(insert(UNITS), self._unit(rows[0], rows[-1], len(rows)))
                    made += len(units)
                    end = some[-1][0] if some else max(after, through)
                    where = SCANNERS.c.scanner == self._scanner
                    connection.execute(update(SCANNERS).where(where).values(planned=end))
                if len(some) < _PLAN_ROWS:
                    return made

    def claim(self, worker: str, *, now: float) -> Unit | None:
        """Take the oldest unit that is open or whose worker is lost; None when there is none.

        A lease that ends later than any lease could is one of a clock that was set back: lost. Who
        lost it is remembered, so that its leader ends it although it holds no unit any more.
        """
        while True:
            with self._store.begin() as connection:
                lost = (UNITS.c.lease < now) | (UNITS.c.lease > now + 2 * self._limits.lease_s)
                free = or_(UNITS.c.state == "open", (UNITS.c.state == "leased") & lost)
                query = select(UNITS).where(self._mine, free).order_by(UNITS.c.id).limit(1)
                if self._store.skips_locked:
                    query = query.with_for_update(skip_locked=True)
                row = connection.execute(query).one_or_none()
                if row is None:
                    return None
                if row.state == "leased" and row.lease:  # not one whose leader gave it back
                    connection.execute(delete(LOST).where(LOST.c.worker == row.worker))
                    connection.execute(insert(LOST), {"worker": row.worker})
                losses = row.losses + (row.state == "leased")
                if losses >= self._limits.losses and self._poison(connection, row):
                    continue
                changes = {"state": "leased", "worker": worker, "losses": losses}
                lease = now + self._limits.lease_s
                connection.execute(
                    update(UNITS).where(UNITS.c.id == row.id).values(**changes, lease=lease)
                )
                return Unit(row.id, row.scanner, row.first, row.last, row.row_count)

    def finish(
        self,
        unit: Unit,
        worker: str,
        found: Sequence[tuple[Joined, ScanFinding]],
        *,
        cpu_s: float = 0.0,
    ) -> bool:
        """End the unit with its results, all or none; False when the unit is not ours any more."""
        with self._store.begin() as connection:
            return self._end(connection, unit, worker, found, state="done", cpu_s=cpu_s)

    def park(
        self,
        unit: Unit,
        worker: str,
        found: Sequence[tuple[Joined, ScanFinding]],
        waiting: Sequence[int],
        *,
        why: str,
        cpu_s: float = 0.0,
    ) -> bool:
        """Keep the results so far, and let the rest of the unit wait for the next plan.

        `waiting` are the numbers of the exchanges that have no result, in order. The first of them
        gets a unit of its own: if it alone can't be asked about, it holds up none of the others.
        False when the unit is not ours any more.
        """
        first, *others = waiting
        parts = [(first, 1)] + ([(others[0], len(others))] if others else [])
        ends = [others[0] - 1, unit.last] if others else [unit.last]
        with self._store.begin() as connection:
            cut: dict[str, object] = {"last": first - 1, "row_count": len(found)}
            whole = first == unit.first
            if whole:  # what has the unit's first number goes on as this unit
                cut = {"last": ends[0], "row_count": 1, "why": why[:_LONGEST_WHY]}
            state = PARKED if whole else "done"
            if not self._end(connection, unit, worker, found, state=state, cpu_s=cpu_s, **cut):
                return False
            for (begin, count), end in list(zip(parts, ends, strict=True))[1 if whole else 0 :]:
                row = self._unit(begin, end, count)
                row |= {"state": PARKED, "why": why[:_LONGEST_WHY]}
                connection.execute(insert(UNITS), row)
            return True

    def park_open(self, why: str) -> None:
        """Let every open unit wait for the next plan: what the scanner asks is away."""
        with self._store.begin() as connection:
            free = update(UNITS).where(self._mine, UNITS.c.state == "open")
            connection.execute(free.values(state=PARKED, why=why[:_LONGEST_WHY]))

    def parked_why(self) -> str:
        """Return why a unit waits for the next plan; empty where none does."""
        query = select(UNITS.c.why).where(self._mine, UNITS.c.state == PARKED)
        with self._store.begin() as connection:
            return str(connection.execute(query.order_by(UNITS.c.id).limit(1)).scalar() or "")

    def _end(
        self,
        connection: Connection,
        unit: Unit,
        worker: str,
        found: Sequence[tuple[Joined, ScanFinding]],
        **values: object,
    ) -> bool:
        """Take the unit from its worker and keep its results; False when it is not theirs."""
        ours = update(UNITS).where(
            UNITS.c.id == unit.id,
            UNITS.c.worker == worker,
            UNITS.c.state == "leased",
            UNITS.c.last == unit.last,
        )
        if not connection.execute(ours.values(**values)).rowcount:
            return False
        if found:
            rows = [_result(unit.scanner, one, finding) for one, finding in found]
            connection.execute(insert(RESULTS), rows)
        return True

    def release(self, worker: str) -> None:
        """Say that a worker is dead, so that its unit need not wait for the lease's end."""
        with self._store.begin() as connection:
            held = update(UNITS).where(self._mine, UNITS.c.worker == worker)
            connection.execute(held.where(UNITS.c.state == "leased").values(lease=0.0))
            connection.execute(delete(LOST).where(LOST.c.worker == worker))

    def overdue(self, *, now: float) -> set[str]:
        """Return the workers that have, or had, a unit for longer than its lease."""
        query = select(UNITS.c.worker).where(
            self._mine, UNITS.c.state == "leased", UNITS.c.lease < now
        )
        with self._store.begin() as connection:
            found = set(connection.execute(query).scalars())
            return found | set(connection.execute(select(LOST.c.worker)).scalars())

    def counts(self) -> UnitCounts:
        """Return how many units are open, leased and done."""
        query = select(UNITS.c.state, func.count()).where(self._mine).group_by(UNITS.c.state)
        with self._store.begin() as connection:
            found = {str(row[0]): int(row[1]) for row in connection.execute(query)}
        states = ("open", "leased", "done", PARKED)
        return UnitCounts(*(found.get(state, 0) for state in states))

    def cpu_s(self) -> float:
        """Return the CPU seconds that this scanner's ended units took."""
        with self._store.begin() as connection:
            spent = select(func.coalesce(func.sum(UNITS.c.cpu_s), 0.0)).where(self._mine)
            return float(connection.execute(spent).scalar_one())

    def _planned(self, connection: Connection, name: str) -> int:
        query = select(SCANNERS.c.planned).where(SCANNERS.c.scanner == self._scanner)
        if self._store.skips_locked:
            query = query.with_for_update()
        planned = connection.execute(query).scalar()
        if planned is None:
            row = {"scanner": self._scanner, "name": name, "planned": 0}
            connection.execute(insert(SCANNERS), row)
            return 0
        return int(planned)

    def _unit(self, first: int, last: int, count: int) -> dict[str, object]:
        place = {"scanner": self._scanner, "first": first, "last": last, "row_count": count}
        return {**place, "state": "open", "lease": 0.0, "worker": "", "losses": 0, "cpu_s": 0.0}

    def _poison(self, connection: Connection, row: "Row[tuple[object, ...]]") -> bool:
        """Halve a unit that keeps losing workers; False when it is one exchange already.

        The halves part the range of numbers, so that it needs no look into the ledger.
        """
        if row.first == row.last:
            return False
        middle = (row.first + row.last) // 2
        here = update(UNITS).where(UNITS.c.id == row.id)
        fresh = {"state": "open", "worker": "", "losses": 0, "lease": 0.0}
        connection.execute(here.values(last=middle, **fresh))
        connection.execute(insert(UNITS), self._unit(middle + 1, row.last, row.row_count))
        return True

    def lost_too_often(self, unit: Unit) -> bool:
        """Whether this unit is one exchange that already cost as many workers as allowed."""
        if unit.first != unit.last:
            return False
        with self._store.begin() as connection:
            losses = connection.execute(select(UNITS.c.losses).where(UNITS.c.id == unit.id))
            return int(losses.scalar_one()) >= self._limits.losses


def read_unit(reader: LedgerReader, unit: Unit) -> list[Joined]:
    """Return the unit's exchanges that are still in the ledger."""
    with reader.snapshot() as connection:
        return list(joined(connection, after=unit.first - 1, through=unit.last))


def poisoned(rows: Sequence[Joined]) -> list[tuple[Joined, ScanFinding]]:
    """Return the findings of exchanges that killed every worker that looked at them."""
    return [(one, unscorable("LostWorkers")) for one in rows]


def _cut(some: Sequence[tuple[int, int]], limits: ScanLimits) -> list[list[int]]:
    units: list[list[int]] = []
    chars = 0
    for seq, size in some:
        if not units or len(units[-1]) >= limits.unit_rows or chars + size > limits.unit_chars:
            units.append([])
            chars = 0
        units[-1].append(seq)
        chars += size
    return units


def _result(scanner: str, one: Joined, finding: ScanFinding) -> dict[str, object]:
    place = {"scanner": scanner, "seq": one.seq, "decision_id": one.decision_id}
    about = {"account": one.account, "happened_at": one.final.at}
    return {**place, **about, **{name: getattr(finding, name) for name in _FINDING}}


_FINDING = ("value", "label", "clause", "reason")
