"""The bounty book's tables. Submissions lie here sealed; no column holds their content."""

from sqlalchemy import BigInteger, Column, Double, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()

SUBMISSIONS = Table(
    "bounty_submissions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("received_at", Double, nullable=False),
    Column("programme", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("state", String, nullable=False),
    Column("prints", LargeBinary),
    Column("rating", LargeBinary),
    Column("rated_by", String),
    Column("rated_at", Double),
    Column("triaged_at", Double),
    Column("duplicate_of", BigInteger),
    Column("fix", String),
    Column("fix_check", String),
    Column("paid_by", String),
    Column("paid_at", Double),
    Column("disclosed_at", Double),
)
EVENTS = Table(
    "bounty_events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("submission", BigInteger, nullable=False, index=True),
    Column("happened_at", Double, nullable=False),
    Column("person", String, nullable=False),
    Column("what", String, nullable=False),
    Column("detail", String, nullable=False),
)
TERMS = Table(
    "bounty_terms",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("version", BigInteger, nullable=False, unique=True),
    Column("content", String, nullable=False),
)
"""Each programme under which something was submitted: its terms hold for that to the end."""
STEPS_OF_TABLES = (
    """
CREATE TABLE bounty_terms (
  digest TEXT NOT NULL PRIMARY KEY, version BIGINT NOT NULL UNIQUE, content TEXT NOT NULL
);""",
)
"""Version n to n + 1, in SQL for both storages."""
REPLAYS = Table(
    "bounty_replays",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("submission", BigInteger, nullable=False, index=True),
    Column("happened_at", Double, nullable=False),
    Column("person", String, nullable=False),
    Column("report", LargeBinary, nullable=False),
)
