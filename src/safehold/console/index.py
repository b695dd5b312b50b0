"""The console's index of the ledger: names and numbers of each exchange, never its content.

A page must cost the same over a thousand rows and over millions. So what pages look for is copied
once, in order, into tables with an index for each question; each exchange counts once, whatever is
killed and however many processes follow.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from safehold.guard.ledger.coverage import LedgerCoverage, StallLimits, audit
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.joined import watermark
from safehold.guard.ledger.own_tables import make_tables
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import FINALS, PROMPTS

FactT = TypeVar("FactT", bound=msgspec.Struct)
_STRIDE = 2_000
_HOUR_S = 3600
_AUDIT_EVERY_S = 60.0
_AUDIT_DUTY = 20.0
"""An audit reads the whole ledger: it may take a twentieth of the time, never more."""

METADATA = MetaData()
EXCHANGES = Table(
    "console_exchanges",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("decision_id", String, nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("surface", String, nullable=False),
    Column("account", String, nullable=False),
    Column("model", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("stopped_at", String, nullable=False),
    Column("clause", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("score", Double),
    Column("would_block", Boolean, nullable=False),
    Column("exempt", Boolean, nullable=False),
    Column("bundle", String, nullable=False),
    Column("delivered_bytes", BigInteger, nullable=False),
    Column("total_ms", Double),
    *(
        Index(f"console_by_{one}", one, "seq")
        for one in ("outcome", "account", "clause", "surface")
    ),
)
HOURS = Table(
    "console_hours",
    METADATA,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("surface", String, primary_key=True),
    Column("exchanges", BigInteger, nullable=False),
    Column("blocked", BigInteger, nullable=False),
    Column("would_block", BigInteger, nullable=False),
    Column("unscorable", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
)
FACTS = Table(
    "console_facts",
    METADATA,
    Column("name", String, primary_key=True),
    Column("at", Double, nullable=False),
    Column("value", String, nullable=False),
)


class Hour(msgspec.Struct, frozen=True):
    """Counts of one hour (its first second) and surface."""

    hour: int
    surface: str
    exchanges: int
    blocked: int
    would_block: int
    unscorable: int
    errors: int


class ExchangeLine(msgspec.Struct, frozen=True):
    """One exchange, as a list shows it."""

    seq: int
    decision_id: str
    at: float
    surface: str
    account: str
    model: str
    outcome: str
    stopped_at: str
    clause: str
    stage: str
    score: float | None
    would_block: bool
    exempt: bool
    bundle: str
    delivered_bytes: int
    total_ms: float | None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to; empty means everything."""

    outcome: str = ""
    surface: str = ""
    account: str = ""
    clause: str = ""
    before: int = 0
    limit: int = 50


class AuditedCoverage(msgspec.Struct, frozen=True):
    """The newest audit of the whole ledger, and when it ended."""

    at: float
    found: LedgerCoverage


class ExchangeIndex:
    """Follows a ledger into the console's database, and answers pages from there."""

    def __init__(self, engine: Engine, reader: LedgerReader, clock: Callable[[], float]) -> None:
        """Take the console's database and the ledger; make the tables where there are none.

        Raises:
            LedgerError: the database can't be used.
        """
        self._engine, self._reader, self._clock = engine, reader, clock
        make_tables(engine, METADATA, name="console_index")

    # ---- following -----------------------------------------------------------------------

    def follow(self) -> int:
        """Take in what ended since the last time; return how many exchanges."""
        taken = 0
        with self._reader.snapshot() as ledger:
            through = watermark(ledger)
            while True:
                with told(self._engine), self._engine.begin() as connection:
                    after = int(_fact(connection, "cursor") or 0)
                    rows = _ended(ledger, after=after, through=through)
                    self._take(connection, rows)
                    _keep(connection, "cursor", str(rows[-1]["seq"] if rows else after), 0.0)
                taken += len(rows)
                if len(rows) < _STRIDE:
                    break
            first = ledger.execute(select(func.min(FINALS.c.seq))).scalar() or 0
        with told(self._engine), self._engine.begin() as connection:
            # What the ledger has pruned is forgotten here as well.
            connection.execute(delete(EXCHANGES).where(EXCHANGES.c.seq < first))
        return taken

    def _take(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        lines = [_line(row) for row in rows]
        connection.execute(insert(EXCHANGES), lines)
        counts: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
        for line in lines:
            hour = int(line["at"] // _HOUR_S * _HOUR_S)
            into = counts[hour, line["surface"]]
            into[0] += 1
            into[1] += line["outcome"] == "blocked_by_guard"
            into[2] += bool(line["would_block"])
            into[3] += line["outcome"] == "unscorable"
            into[4] += line["outcome"] == "error"
        names = ("exchanges", "blocked", "would_block", "unscorable", "errors")
        for (hour, surface), into in counts.items():
            here = (HOURS.c.hour == hour) & (HOURS.c.surface == surface)
            more = {name: HOURS.c[name] + count for name, count in zip(names, into, strict=True)}
            if connection.execute(update(HOURS).where(here).values(**more)).rowcount == 0:
                fresh = dict(zip(names, into, strict=True))
                connection.execute(insert(HOURS), {"hour": hour, "surface": surface, **fresh})

    def refresh(self, name: str, find: Callable[[], msgspec.Struct], *, now: float) -> None:
        """Find a fact again that takes long, if the last time is long enough ago.

        Whoever begins says so first: several processes do not all look at once.
        """
        with told(self._engine), self._engine.begin() as connection:
            took = float(_fact(connection, f"{name}-took") or 0)
            begun = float(_fact(connection, f"{name}-begun") or 0)
            if begun and begun <= now < begun + max(_AUDIT_EVERY_S, _AUDIT_DUTY * took):
                return
            _keep(connection, f"{name}-begun", str(now), now)
        start = time.perf_counter()
        found = msgspec.json.encode(find()).decode()
        took = time.perf_counter() - start
        with told(self._engine), self._engine.begin() as connection:
            _keep(connection, name, found, now)
            _keep(connection, f"{name}-took", str(took), now)

    def fact(self, name: str, kind: type[FactT]) -> FactT | None:
        """Return a fact that `refresh` found, or None before the first time."""
        with told(self._engine), self._engine.begin() as connection:
            kept = _fact(connection, name)
        return None if kept is None else msgspec.json.decode(kept, type=kind)

    def refresh_coverage(self) -> None:
        """Audit the whole ledger, if the last audit is old enough to do it again."""
        now = self._clock()

        def find() -> AuditedCoverage:
            return AuditedCoverage(now, audit(self._reader, now=now, limits=StallLimits()))

        self.refresh("coverage", find, now=now)

    # ---- answering -----------------------------------------------------------------------

    def coverage(self) -> AuditedCoverage | None:
        """Return the newest audit, or None before the first."""
        return self.fact("coverage", AuditedCoverage)

    def cursor(self) -> int:
        """Return the number of the newest row that is in the index."""
        with told(self._engine), self._engine.begin() as connection:
            return int(_fact(connection, "cursor") or 0)

    def hours(self, since: float) -> list[Hour]:
        """Return the counts of every hour from `since` on, in order."""
        query = select(HOURS).where(HOURS.c.hour >= since - _HOUR_S + 1)
        with told(self._engine), self._engine.begin() as connection:
            rows = connection.execute(query.order_by(HOURS.c.hour, HOURS.c.surface)).all()
        return [Hour(*row) for row in rows]

    def outcomes(self, decision_ids: list[str]) -> dict[str, str]:
        """Return the outcome of each of these decisions that the index knows."""
        found: dict[str, str] = {}
        for start in range(0, len(decision_ids), 500):
            some = EXCHANGES.c.decision_id.in_(decision_ids[start : start + 500])
            query = select(EXCHANGES.c.decision_id, EXCHANGES.c.outcome).where(some)
            with told(self._engine), self._engine.connect() as connection:
                found |= {row[0]: row[1] for row in connection.execute(query)}
        return found

    def lines(self, wanted: Wanted) -> list[ExchangeLine]:
        """Return exchanges that match, newest first, at most `limit`."""
        query = select(EXCHANGES)
        for name in ("outcome", "surface", "account", "clause"):
            value = getattr(wanted, name)
            if value:
                query = query.where(EXCHANGES.c[name] == value)
        if wanted.before > 0:
            query = query.where(EXCHANGES.c.seq < wanted.before)
        query = query.order_by(EXCHANGES.c.seq.desc()).limit(wanted.limit)
        with told(self._engine), self._engine.begin() as connection:
            return [ExchangeLine(*row) for row in connection.execute(query)]


def _ended(ledger: Connection, *, after: int, through: int) -> list[dict[str, Any]]:
    p, f = PROMPTS.c, FINALS.c
    query = (
        select(
            f.seq, f.decision_id, f.at, f.outcome, f.verdict, f.clause, f.stage, f.score,
            f.delivered_bytes, f.latency, p.surface, p.tenant, p.key_id, p.model, p.would_block,
            p.grant_id, p.bundle_digest, p.verdict.label("asked"), p.clause.label("asked_clause"),
            p.stage.label("asked_stage"), p.score.label("asked_score"),
        )
        .join_from(FINALS, PROMPTS, f.decision_id == p.decision_id, isouter=True)
        .where(f.seq > after, f.seq <= through)
        .order_by(f.seq)
        .limit(_STRIDE)
    )  # fmt: skip
    return [dict(row) for row in ledger.execute(query).mappings()]


def _line(row: dict[str, Any]) -> dict[str, Any]:
    latency = msgspec.json.decode(row["latency"], type=dict[str, float | None])
    on_prompt, on_reply = row["asked"] == "block", row["verdict"] == "block"
    scores = [one for one in (row["score"], row["asked_score"]) if one is not None]
    account = "/".join(one for one in (row["tenant"], row["key_id"]) if one)
    return {
        "seq": row["seq"],
        "decision_id": row["decision_id"],
        "at": row["at"],
        "surface": row["surface"] or "-",
        "account": account if row["key_id"] else "-",
        "model": row["model"] or "-",
        "outcome": row["outcome"],
        "stopped_at": "prompt" if on_prompt else "reply" if on_reply else "",
        "clause": (row["asked_clause"] if on_prompt else row["clause"]) or "",
        "stage": (row["asked_stage"] if on_prompt else row["stage"]) or "",
        "score": max(scores, default=None),
        "would_block": bool(row["would_block"]),
        "exempt": row["grant_id"] is not None,
        "bundle": row["bundle_digest"] or "",
        "delivered_bytes": row["delivered_bytes"],
        "total_ms": latency.get("total_ms"),
    }


def _fact(connection: Connection, name: str) -> str | None:
    query = select(FACTS.c.value).where(FACTS.c.name == name)
    if connection.dialect.name == "postgresql" and name == "cursor":
        query = query.with_for_update()
    kept: str | None = connection.execute(query).scalar()
    return kept


def _keep(connection: Connection, name: str, value: str, at: float) -> None:
    here = update(FACTS).where(FACTS.c.name == name).values(value=value, at=at)
    if connection.execute(here).rowcount == 0:
        connection.execute(insert(FACTS), {"name": name, "value": value, "at": at})
