"""The monitor's own tables, in a database apart from the gateway's ledger."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from safehold.guard.ledger.engine import open_engine, told
from safehold.guard.ledger.own_tables import open_tables

METADATA = MetaData()
STEPS_OF_TABLES = (
    "CREATE TABLE monitor_lost (worker TEXT NOT NULL PRIMARY KEY);",
    "ALTER TABLE monitor_units ADD COLUMN why TEXT;",
)
"""Version n to n + 1, in SQL for both storages."""

SCANNERS = Table(
    "monitor_scanners",
    METADATA,
    Column("scanner", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("planned", BigInteger, nullable=False),
)
UNITS = Table(
    "monitor_units",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("scanner", String, nullable=False, index=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("row_count", Integer, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("lease", Double, nullable=False),
    Column("worker", String, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("cpu_s", Double, nullable=False),
    Column("why", String),
    UniqueConstraint("scanner", "first"),
)
"""`state` is open, leased, done, or parked; then `why` says what the scanner could not ask."""
LOST = Table("monitor_lost", METADATA, Column("worker", String, primary_key=True))
"""Workers whose unit another one took because their lease ran out; their leader ends them."""
RESULTS = Table(
    "monitor_results",
    METADATA,
    Column("scanner", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("decision_id", String, nullable=False),
    Column("account", String, nullable=False, index=True),
    Column("happened_at", Double, nullable=False),
    Column("value", Double),
    Column("label", String, nullable=False),
    Column("clause", String),
    Column("reason", String),
)
ACCOUNTS = Table(
    "monitor_accounts",
    METADATA,
    Column("account", String, primary_key=True),
    Column("seen", BigInteger, nullable=False),
    Column("state", String, nullable=False),
)
CURSORS = Table(
    "monitor_cursors",
    METADATA,
    Column("name", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)
LABELS = Table(
    "monitor_labels",
    METADATA,
    Column("account", String, primary_key=True),
    Column("label", String, primary_key=True),
    Column("reason", String, nullable=False),
    Column("evidence", String, nullable=False),
    Column("since", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("queries", BigInteger, nullable=False),
)
STEPS = Table(
    "monitor_steps",
    METADATA,
    Column("account", String, primary_key=True),
    Column("stopped", BigInteger, nullable=False),
)
"""How often an account had been stopped when it was stepped up."""
CAPS = Table(
    "monitor_caps",
    METADATA,
    Column("name", String, primary_key=True),
    Column("caps", String, nullable=False),
    Column("accounts", Integer, nullable=False),
    Column("fitted_at", Double, nullable=False),
)
"""What honest accounts may do, as fitted last: `accounts`, and `exempt` for traffic by grant."""
BACKGROUND = Table(
    "monitor_background",
    METADATA,
    Column("name", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
"""The usual wording, and up to which exchange it was learned."""
CASES = Table(
    "monitor_cases",
    METADATA,
    Column("key", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("title", String, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("facts", String, nullable=False),
    Column("evidence", String, nullable=False),
    Column("closed_at", Double),
    Column("closed_by", String),
)
SENT = Table(
    "monitor_sent",
    METADATA,
    Column("key", String, primary_key=True),
    Column("channel", String, primary_key=True),
)
"""Which case was told over which channel."""


class MonitorStore:
    """Opens transactions on the monitor's database."""

    def __init__(self, engine: Engine, reading: Engine) -> None:
        self._engine, self._reading = engine, reading

    @classmethod
    def open(cls, url: str, *, wait_s: float = 30.0, make: bool = True) -> "MonitorStore":
        """Open the database behind a path or URL, and make its tables where there are none.

        Without `make`, for those who only read, the tables must be there.

        Raises:
            ConfigError: the URL can't be used.
            LedgerError: it can't be written, or another release made its tables.
        """
        engine = open_tables(
            url, METADATA, name="monitor", steps=STEPS_OF_TABLES, wait_s=wait_s, make=make
        )
        return cls(engine, open_engine(url, wait_s=wait_s, write=False))

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Give one transaction; it commits at the end or leaves nothing.

        Raises:
            LedgerError: the database can't be reached, read or written.
        """
        with told(self._engine), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Give a connection on which every query sees the same moment; no writer waits for it.

        Raises:
            LedgerError: the database can't be reached or read.
        """
        with told(self._reading), self._reading.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    @property
    def skips_locked(self) -> bool:
        """Whether rows that another transaction holds can be passed over."""
        return self._engine.dialect.name == "postgresql"
