"""The ledger's tables, and the numbered steps that make and change them."""

import re
from importlib import resources

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    select,
    text,
)

from safehold.errors import LedgerError

METADATA = MetaData()

HEAD = Table(
    "ledger_head",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("pruned", BigInteger, nullable=False),
)
WRITERS = Table(
    "ledger_writers",
    METADATA,
    Column("writer", String, primary_key=True),
    Column("opened_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("closed_at", Double),
    Column("home", String),
)
PROMPTS = Table(
    "ledger_prompts",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("writer", String, nullable=False),
    Column("decision_id", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("surface", String, nullable=False),
    Column("protocol", String, nullable=False),
    Column("tenant", String),
    Column("key_id", String),
    Column("use_case", String),
    Column("grant_id", String),
    Column("model", String, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("bundle_digest", String, nullable=False),
    Column("mode", String, nullable=False),
    Column("exchange", String),
    Column("verdict", String, nullable=False),
    Column("action", String, nullable=False),
    Column("clause", String),
    Column("stage", String),
    Column("score", Double),
    Column("shadow", Boolean, nullable=False),
    Column("would_block", Boolean, nullable=False),
    Column("turn", Integer),
)
PROGRESS = Table(
    "ledger_progress",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("writer", String, nullable=False),
    Column("decision_id", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("lane", String, nullable=False),
    Column("char_offset", BigInteger, nullable=False),
    Column("text", String, nullable=False),
)
FINALS = Table(
    "ledger_finals",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("writer", String, nullable=False),
    Column("decision_id", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("outcome", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("clause", String),
    Column("stage", String),
    Column("score", Double),
    Column("lane", String),
    Column("char_offset", BigInteger),
    Column("delivered", String, nullable=False),
    Column("delivered_bytes", BigInteger, nullable=False),
    Column("scored_bytes", BigInteger, nullable=False),
    Column("tokens_in", BigInteger),
    Column("tokens_out", BigInteger),
    Column("latency", String, nullable=False),
    Column("error", String),
    Column("unreadable", BigInteger),
)
EVENTS = Table(
    "ledger_events",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("writer", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String, nullable=False),
    Column("surface", String),
    Column("decision_id", String),
    Column("detail", String, nullable=False),
)
HOLDS = Table(
    "ledger_holds",
    METADATA,
    Column("decision_id", String, primary_key=True),
    Column("holder", String, primary_key=True),
    Column("held_at", Double, nullable=False),
    Column("until", Double, nullable=False),
)
ROW_TABLES = (PROMPTS, PROGRESS, FINALS, EVENTS)

VERSIONS = Table(
    "ledger_schema",
    MetaData(),
    Column("version", Integer, primary_key=True),
    Column("applied_at", Double, nullable=False),
)

_ADVISORY_LOCK = 0x5AFE_401D
_STEP_NAME = re.compile(r"(\d{4})_\w+\.sql")


def steps() -> list[tuple[int, str]]:
    """Return every migration as (version, SQL), versions 1, 2, 3 … in order."""
    files = resources.files("safehold.guard.ledger.migrations").iterdir()
    return sorted(
        (int(match[1]), file.read_text("utf-8"))
        for file in files
        if (match := _STEP_NAME.fullmatch(file.name))
    )


def schema_version(connection: Connection) -> int:
    """Return the version of the tables behind this connection, 0 when there are none."""
    if not inspect(connection).has_table(VERSIONS.name):
        return 0
    version = connection.execute(select(VERSIONS.c.version).order_by(VERSIONS.c.version.desc()))
    return version.scalars().first() or 0


def migrate(connection: Connection, *, now: float) -> None:
    """Bring the tables to this release's version, inside the caller's transaction.

    Raises:
        LedgerError: the tables were made by a newer release, or a file holds others alone.
    """
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:  # SQLite's BEGIN IMMEDIATE already keeps a second migrator out
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    present = check_version(connection, allow_older=True)
    if present == 0:
        if sqlite and (others := inspect(connection).get_table_names()):
            raise LedgerError(
                f"{connection.engine.url.database}: holds other tables ({others[0]}) and no "
                "ledger; name another file for the ledger"
            )
        VERSIONS.create(connection)
    for version, sql in steps():
        if version > present:
            for statement in statements(sql):
                # Only INTEGER PRIMARY KEY is a table's own key in SQLite; it has 64 bits there.
                connection.exec_driver_sql(
                    statement.replace("seq BIGINT PRIMARY", "seq INTEGER PRIMARY")
                    if sqlite
                    else statement
                )
            connection.execute(insert(VERSIONS), {"version": version, "applied_at": now})


def check_version(connection: Connection, *, allow_older: bool = False) -> int:
    """Return the tables' version.

    Raises:
        LedgerError: it is newer than this release knows, or (unless allowed) older.
    """
    newest, present = steps()[-1][0], schema_version(connection)
    if present > newest:
        raise LedgerError(
            f"the ledger has schema version {present}, this release knows up to {newest}; "
            "upgrade safehold"
        )
    if present < newest and not allow_older:
        raise LedgerError(
            f"the ledger has schema version {present}, expected {newest}; "
            "open it once for writing (safehold ledger migrate)"
            if present
            else "there is no ledger in this database yet; start the gateway or run "
            "safehold ledger migrate"
        )
    return present


def statements(sql: str) -> list[str]:
    """Return a script's statements without its comments."""
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
