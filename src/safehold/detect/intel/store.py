"""The intelligence store: techniques that we tell, and a quarantine for what we are told."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from safehold.canonical import canonical, sha256_hex
from safehold.detect.intel.inbound import MAX_OBJECT_BYTES, Arrived, read_object, verdict
from safehold.detect.intel.interface import (
    Feed,
    InboundOutcome,
    InboundState,
    Quarantined,
    Technique,
    Tlp,
)
from safehold.detect.intel.stix import Sharer, attack_id
from safehold.detect.intel.tables import COUNTS, FEEDS, INBOUND, METADATA, REFUSED, TECHNIQUES
from safehold.detect.leaf_sink import LeafSink
from safehold.errors import UsageError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import open_tables

_DAY_S = 86_400
_KEPT_REFUSALS = 1_000
"""Refused objects kept for each feed; all are counted."""


class IntelStore:
    """Keeps intelligence in a database (path, SQLite or PostgreSQL URL)."""

    def __init__(
        self,
        url: str,
        *,
        leaves: LeafSink,
        clock: Callable[[], float] = time.time,
        make: bool = True,
    ) -> None:
        """Open the store and make its tables; without `make` they must be there.

        Raises:
            LedgerError: the database can't be used.
        """
        self._engine = open_tables(url, METADATA, name="intel", make=make)
        self._leaves, self._clock = leaves, clock

    def add(self, technique: Technique, sharer: Sharer) -> str:
        """Keep a technique, in the place of an older word on the same attack; return its id."""
        name = attack_id(technique, sharer)
        values = {"value": msgspec.json.encode(technique), "updated": technique.updated}
        with told(self._engine), self._engine.begin() as connection:
            connection.execute(delete(TECHNIQUES).where(TECHNIQUES.c.attack == name))
            connection.execute(insert(TECHNIQUES).values(attack=name, **values))
        return name

    def techniques(self) -> list[Technique]:
        """Return what we tell, oldest word first."""
        query = select(TECHNIQUES.c.value).order_by(TECHNIQUES.c.updated, TECHNIQUES.c.attack)
        with told(self._engine), self._engine.begin() as connection:
            found = connection.execute(query).scalars()
            return [msgspec.json.decode(one, type=Technique) for one in found]

    def sent(self, exported: bytes, *, to: str, by: str) -> None:
        """Keep a leaf of what leaves, before it leaves."""
        facts = {"person": by, "to": to, "decision": sha256_hex(exported)}
        self._leaves.append("intel-out", facts)

    def receive(self, feed: Feed, values: Sequence[Any]) -> dict[InboundOutcome, int]:
        """Judge and quarantine the objects of a feed; return how many came to which end.

        What is refused is kept as evidence and counted. A leaf comes before anything is kept.
        """
        now = self._clock()
        with told(self._engine), self._engine.begin() as connection:
            left = self._left(connection, feed, now)
            counts: dict[InboundOutcome, int] = {}
            known: dict[str, dict[str, str]] = {}
            used, refused = 0, list[dict[str, object]]()
            for value in values:
                one = read_object(value, feed, now=now)
                outcome = one if isinstance(one, InboundOutcome) else InboundOutcome.TAKEN
                if isinstance(one, Arrived):
                    versions = known.setdefault(
                        one.stix_id, _versions(connection, feed, one.stix_id)
                    )
                    outcome = verdict(one, versions)
                if outcome is not InboundOutcome.REPLAYED:
                    # What is refused uses up the day's allowance as well.
                    outcome = outcome if left > 0 else InboundOutcome.FLOODED
                    left -= 1
                    used += 1
                if outcome is InboundOutcome.TAKEN and isinstance(one, Arrived):
                    versions[one.version] = one.digest
                    _quarantine(connection, feed, one, now)
                elif outcome is not InboundOutcome.REPLAYED:
                    refused.append(_refusal(feed, outcome, value, now))
                counts[outcome] = counts.get(outcome, 0) + 1
            _keep_refusals(connection, feed, refused)
            if counts:
                facts = {outcome.value: str(count) for outcome, count in sorted(counts.items())}
                self._leaves.append("intel-in", {"feed": feed.name, **facts})
            _count(connection, feed, counts)
            mine = FEEDS.c.feed == feed.name
            connection.execute(
                update(FEEDS).where(mine).values(taken_today=FEEDS.c.taken_today + used)
            )
        return counts

    def cursor(self, feed: Feed) -> str:
        """Return the time of the newest object that was pulled; empty at first."""
        query = select(FEEDS.c.added_after).where(FEEDS.c.feed == feed.name)
        with told(self._engine), self._engine.begin() as connection:
            return connection.execute(query).scalar() or ""

    def move_cursor(self, feed: Feed, added_after: str) -> None:
        """Remember the time of the newest object."""
        with told(self._engine), self._engine.begin() as connection:
            mine = FEEDS.c.feed == feed.name
            connection.execute(update(FEEDS).where(mine).values(added_after=added_after))

    def room(self, feed: Feed) -> int:
        """Return how many objects the feed may still send today."""
        with told(self._engine), self._engine.begin() as connection:
            return self._left(connection, feed, self._clock())

    def counts(self) -> dict[str, dict[str, int]]:
        """Return each feed's outcomes since ever."""
        found: dict[str, dict[str, int]] = {}
        with told(self._engine), self._engine.begin() as connection:
            for row in connection.execute(select(COUNTS)).mappings():
                found.setdefault(row["feed"], {})[row["outcome"]] = row["count"]
        return found

    def quarantined(self, state: InboundState | None = None) -> list[Quarantined]:
        """Return what came in and has not expired, oldest first."""
        query = select(INBOUND).where(INBOUND.c.expires_at > self._clock())
        if state is not None:
            query = query.where(INBOUND.c.state == state)
        with told(self._engine), self._engine.begin() as connection:
            return [_row(one) for one in connection.execute(query.order_by(INBOUND.c.number))]

    def refused(self) -> list[dict[str, object]]:
        """Return the refused objects that are kept as evidence, oldest first."""
        with told(self._engine), self._engine.begin() as connection:
            rows = connection.execute(select(REFUSED).order_by(REFUSED.c.number)).all()
        return [
            {"feed": row.feed, "outcome": row.outcome, "id": row.stix_id, "at": row.refused_at}
            for row in rows
        ]

    def find(self, number: int) -> Quarantined:
        """Return one object.

        Raises:
            UsageError: there is none of this number, or it has expired.
        """
        query = select(INBOUND).where(INBOUND.c.number == number)
        with told(self._engine), self._engine.begin() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.expires_at <= self._clock():
            raise UsageError(f"there is no object {number} in quarantine, or it has expired")
        return _row(row)

    def advance(self, number: int, state: InboundState) -> None:
        """Say how far an object has come."""
        with told(self._engine), self._engine.begin() as connection:
            where = INBOUND.c.number == number
            connection.execute(update(INBOUND).where(where).values(state=state.value))

    def purge(self) -> int:
        """Forget the content of what has expired and return how many objects there were.

        Id, version and digest stay: a feed can't send the same again as if it were new.
        """
        with told(self._engine), self._engine.begin() as connection:
            old = (INBOUND.c.expires_at <= self._clock()) & (INBOUND.c.value != b"")
            return connection.execute(update(INBOUND).where(old).values(value=b"")).rowcount

    def _left(self, connection: Connection, feed: Feed, now: float) -> int:
        day = int(now // _DAY_S)
        mine = FEEDS.c.feed == feed.name
        query = select(FEEDS).where(mine)
        if connection.dialect.name == "postgresql":
            query = query.with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            values = {"feed": feed.name, "added_after": "", "day": day, "taken_today": 0}
            connection.execute(insert(FEEDS).values(**values))
            return feed.objects_per_day
        if row.day < day:  # a clock that is set back gives no second allowance
            connection.execute(update(FEEDS).where(mine).values(day=day, taken_today=0))
            return feed.objects_per_day
        return feed.objects_per_day - int(row.taken_today)


def _versions(connection: Connection, feed: Feed, stix_id: str) -> dict[str, str]:
    query = select(INBOUND.c.version, INBOUND.c.digest).where(
        INBOUND.c.feed == feed.name, INBOUND.c.stix_id == stix_id
    )
    return {row.version: row.digest for row in connection.execute(query)}


def _quarantine(connection: Connection, feed: Feed, one: Arrived, now: float) -> None:
    values = msgspec.structs.asdict(one) | {"tlp": one.tlp.value}
    values |= {"feed": feed.name, "received_at": now, "state": InboundState.QUARANTINED.value}
    connection.execute(insert(INBOUND).values(**values))


def _refusal(feed: Feed, outcome: InboundOutcome, value: object, now: float) -> dict[str, object]:
    try:
        data = msgspec.json.encode(value)[:MAX_OBJECT_BYTES]
    except RecursionError:
        data = b"nested too deeply"
    name = value.get("id") if isinstance(value, dict) else None
    shown = str(name)[:120].encode("utf-8", "replace").decode().replace("\0", "") if name else ""
    about = {"feed": feed.name, "outcome": outcome.value, "refused_at": now}
    return about | {"stix_id": shown, "value": data}


def _keep_refusals(
    connection: Connection, feed: Feed, refused: Sequence[dict[str, object]]
) -> None:
    """Keep them as evidence, up to the bound."""
    mine = REFUSED.c.feed == feed.name
    kept = connection.execute(select(func.count()).select_from(REFUSED).where(mine)).scalar_one()
    rows = refused[: max(0, _KEPT_REFUSALS - kept)]
    if rows:
        connection.execute(insert(REFUSED), list(rows))


def _count(connection: Connection, feed: Feed, counts: dict[InboundOutcome, int]) -> None:
    for outcome, count in counts.items():
        mine = (COUNTS.c.feed == feed.name) & (COUNTS.c.outcome == outcome.value)
        moved = connection.execute(
            update(COUNTS).where(mine).values(count=COUNTS.c.count + count)
        ).rowcount
        if not moved:
            values = {"feed": feed.name, "outcome": outcome.value, "count": count}
            connection.execute(insert(COUNTS).values(**values))


def _row(row: "Row[Any]") -> Quarantined:
    return Quarantined(
        number=row.number,
        feed=row.feed,
        stix_id=row.stix_id,
        kind=row.kind,
        tlp=Tlp(row.tlp),
        received_at=row.received_at,
        expires_at=row.expires_at,
        state=InboundState(row.state),
        value=row.value,
    )


def envelope(values: Iterable[object]) -> bytes:
    """Return a TAXII envelope of objects, canonical."""
    return canonical({"objects": list(values)})
