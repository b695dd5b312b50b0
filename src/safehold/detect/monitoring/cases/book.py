"""The cases in the monitor's database: opened once, told once over each channel, closed by name."""

from collections.abc import Iterable

import msgspec
from sqlalchemy import Row, insert, select, update

from safehold.detect.monitoring.cases.interface import Finding, MonitorCase
from safehold.detect.monitoring.tables import CASES, CURSORS, SENT, MonitorStore
from safehold.errors import UsageError


class CaseBook:
    """Opens, lists and closes cases."""

    def __init__(self, store: MonitorStore) -> None:
        """Take the monitor's database."""
        self._store = store

    def open(
        self, cases: Iterable[MonitorCase], cursor: tuple[str, int] | None = None
    ) -> list[MonitorCase]:
        """Open those that are new and return them; a closed one of the same key stays closed.

        `cursor` is up to where their source was read; it is kept with them or not at all.
        """
        fresh, found = [], list(cases)
        with self._store.begin() as connection:
            if cursor is not None:
                name, seq = cursor
                connection.execute(CURSORS.delete().where(CURSORS.c.name == name))
                connection.execute(insert(CURSORS), {"name": name, "seq": seq})
            for one in found:
                here = select(CASES.c.key).where(CASES.c.key == one.key)
                if connection.execute(here).first() is not None:
                    continue
                connection.execute(
                    insert(CASES),
                    {
                        "key": one.key,
                        "kind": one.kind.value,
                        "title": one.title,
                        "severity": one.severity,
                        "opened_at": one.opened_at,
                        "facts": msgspec.json.encode(one.facts).decode(),
                        "evidence": msgspec.json.encode(one.evidence).decode(),
                    },
                )
                fresh.append(one)
        return fresh

    def all(self, *, open_only: bool = True) -> list[MonitorCase]:
        """Return the cases, worst first, then newest."""
        query = select(CASES).order_by(CASES.c.severity.desc(), CASES.c.opened_at.desc())
        if open_only:
            query = query.where(CASES.c.closed_at.is_(None))
        with self._store.begin() as connection:
            return [_case(row) for row in connection.execute(query)]

    def close(self, key: str, *, by: str, now: float) -> None:
        """Close a case.

        Raises:
            UsageError: there is no open case of this key.
        """
        here = update(CASES).where(CASES.c.key == key, CASES.c.closed_at.is_(None))
        with self._store.begin() as connection:
            if not connection.execute(here.values(closed_at=now, closed_by=by)).rowcount:
                raise UsageError(f"expected the key of an open case, came {key}")

    def untold(self, channel: str) -> list[MonitorCase]:
        """Return the open cases that this channel was not told of, oldest first."""
        told = select(SENT.c.key).where(SENT.c.channel == channel)
        query = (
            select(CASES)
            .where(CASES.c.closed_at.is_(None), CASES.c.key.not_in(told))
            .order_by(CASES.c.opened_at)
        )
        with self._store.begin() as connection:
            return [_case(row) for row in connection.execute(query)]

    def told(self, key: str, channel: str) -> None:
        """Note that a channel took a case."""
        with self._store.begin() as connection:
            connection.execute(insert(SENT), {"key": key, "channel": channel})


def _case(row: "Row[tuple[object, ...]]") -> MonitorCase:
    return MonitorCase(
        key=row.key,
        kind=Finding(row.kind),
        title=row.title,
        severity=row.severity,
        opened_at=row.opened_at,
        facts=msgspec.json.decode(row.facts, type=dict[str, str]),
        evidence=msgspec.json.decode(row.evidence, type=tuple[str, ...]),
        closed_at=row.closed_at,
        closed_by=row.closed_by,
    )
