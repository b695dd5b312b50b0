"""Intelligence's own tables: what we tell, what came in, and what was refused."""

from sqlalchemy import Column, Double, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()

TECHNIQUES = Table(
    "intel_techniques",
    METADATA,
    Column("attack", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("updated", Integer, nullable=False),
)
INBOUND = Table(
    "intel_inbound",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("feed", String, nullable=False, index=True),
    Column("stix_id", String, nullable=False, index=True),
    Column("version", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("tlp", String, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("state", String, nullable=False),
    Column("value", LargeBinary, nullable=False),
)
REFUSED = Table(
    "intel_refused",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("feed", String, nullable=False, index=True),
    Column("outcome", String, nullable=False),
    Column("stix_id", String, nullable=False),
    Column("refused_at", Double, nullable=False),
    Column("value", LargeBinary, nullable=False),
)
COUNTS = Table(
    "intel_counts",
    METADATA,
    Column("feed", String, primary_key=True),
    Column("outcome", String, primary_key=True),
    Column("count", Integer, nullable=False),
)
FEEDS = Table(
    "intel_feeds",
    METADATA,
    Column("feed", String, primary_key=True),
    Column("added_after", String, nullable=False),
    Column("day", Integer, nullable=False),
    Column("taken_today", Integer, nullable=False),
)
