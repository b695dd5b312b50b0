"""The review desk's own tables. No table holds content: decisions are named by their ids."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, String, Table

METADATA = MetaData()

CASES = Table(
    "review_cases",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("account", String),
    Column("opened_by", String, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("due_at", Double),
    Column("state", String, nullable=False),
    Column("outcome", String),
)
ITEMS = Table(
    "review_items",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("case_id", BigInteger, nullable=False, index=True),
    Column("decision_id", String, nullable=False),
    Column("needed", Integer, nullable=False),
    Column("gold", String),
    Column("rank", Double, nullable=False, index=True),
    Column("locked_by", String, nullable=False),
    Column("locked_until", Double, nullable=False),
)
OPENS = Table(
    "review_opens",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("item", BigInteger, nullable=False, index=True),
    Column("person", String, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("reason", String, nullable=False),
)
VERDICTS = Table(
    "review_verdicts",
    METADATA,
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("person", String, primary_key=True),
    Column("verdict", String, nullable=False),
    Column("note_digest", String, nullable=False),
    Column("given_at", Double, nullable=False),
)
DECISIONS = Table(
    "review_decisions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("case_id", BigInteger, nullable=False),
    Column("action", String, nullable=False),
    Column("decided_by", String, nullable=False),
    Column("grant_id", String),
    Column("decided_at", Double, nullable=False),
)
APPEALS = Table(
    "review_appeals",
    METADATA,
    Column("decision_id", String, primary_key=True),
    Column("token", String, nullable=False, unique=True),
    Column("case_id", BigInteger, nullable=False, index=True),
    Column("asked_at", Double, nullable=False),
)
STRATA = Table(
    "review_strata",
    METADATA,
    Column("sample", String, primary_key=True),
    Column("stratum", Integer, primary_key=True, autoincrement=False),
    Column("case_id", BigInteger, nullable=False),
    Column("caught", Boolean, nullable=False),
    Column("above_floor", Boolean, nullable=False),
    Column("size", BigInteger, nullable=False),
)
SAMPLES = Table(
    "review_samples",
    METADATA,
    Column("sample", String, primary_key=True),
    Column("decision_id", String, primary_key=True),
    Column("stratum", Integer, nullable=False),
    Column("p_inclusion", Double, nullable=False),
)
PLANTED = Table(
    "review_planted",
    METADATA,
    Column("decision_id", String, primary_key=True),
    Column("attempt", String, nullable=False),
    Column("topic", String, nullable=False),
    Column("stopped", Boolean, nullable=False),
    Column("planted_at", Double, nullable=False),
)
