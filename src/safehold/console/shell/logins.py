"""Logins in SQL (SQLite or PostgreSQL): hashed tokens, spent challenges, counters of keys.

Any number of console processes share one database. A token is 32 random bytes; only its SHA-256
is kept, so that who reads the database can be nobody else.
"""

import hashlib
import secrets
from collections.abc import Callable

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from safehold.errors import TrustError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import make_tables

IDLE_S = 30 * 60.0
LONGEST_S = 8 * 3600.0
CHALLENGE_LIFE_S = 300.0
_MOST_CHALLENGES = 10_000
_TOUCH_S = 30.0

METADATA = MetaData()
LOGINS = Table(
    "console_logins",
    METADATA,
    Column("token_sha256", String, primary_key=True),
    Column("person", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)
CHALLENGES = Table(
    "console_challenges",
    METADATA,
    Column("nonce", String, primary_key=True),
    Column("made_at", Double, nullable=False),
)
COUNTERS = Table(
    "console_counters",
    METADATA,
    Column("key_id", String, primary_key=True),
    Column("sign_count", BigInteger, nullable=False),
)


class Login(msgspec.Struct, frozen=True):
    """A login that holds now: whose, and by which key (empty: the demo's own link)."""

    person: str
    key_id: str
    made_at: float


class Logins:
    """Makes, finds and ends logins."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        """Take the console's database and make the tables where there are none.

        Raises:
            LedgerError: the database can't be used.
        """
        self._engine, self._clock = engine, clock
        make_tables(engine, METADATA, name="console_logins")

    def challenge(self) -> str:
        """Return a fresh nonce, good for one login within five minutes.

        Raises:
            TrustError: too many are open.
        """
        now = self._clock()
        nonce = secrets.token_hex(32)
        with told(self._engine), self._engine.begin() as connection:
            old = CHALLENGES.c.made_at <= now - CHALLENGE_LIFE_S
            connection.execute(delete(CHALLENGES).where(old))
            count = connection.execute(select(func.count()).select_from(CHALLENGES)).scalar_one()
            if count >= _MOST_CHALLENGES:
                raise TrustError("too many logins at once; wait five minutes")
            connection.execute(insert(CHALLENGES), {"nonce": nonce, "made_at": now})
        return nonce

    def spend(self, nonce: str) -> None:
        """Take a challenge away.

        Raises:
            TrustError: it was not given here within five minutes, or was used.
        """
        now = self._clock()
        with told(self._engine), self._engine.begin() as connection:
            fresh = CHALLENGES.c.made_at > now - CHALLENGE_LIFE_S
            gone = connection.execute(delete(CHALLENGES).where(CHALLENGES.c.nonce == nonce, fresh))
            if gone.rowcount != 1:
                raise TrustError("this login took too long or was used before: begin again")

    def counter(self, key_id: str) -> int:
        """Return the highest counter that a login showed of a key."""
        query = select(COUNTERS.c.sign_count).where(COUNTERS.c.key_id == key_id)
        with told(self._engine), self._engine.begin() as connection:
            return connection.execute(query).scalar() or 0

    def begin(self, person: str, key_id: str, *, sign_count: int = 0) -> str:
        """Keep a login and return its new token; what the browser held before is worth nothing.

        Raises:
            TrustError: another login showed as high a counter of the key meanwhile: it is a copy.
        """
        now = self._clock()
        token = secrets.token_urlsafe(32)
        with told(self._engine), self._engine.begin() as connection:
            row = {"token_sha256": _digest(token), "person": person, "key_id": key_id}
            connection.execute(delete(LOGINS).where(LOGINS.c.made_at <= now - LONGEST_S))
            connection.execute(insert(LOGINS), {**row, "made_at": now, "seen_at": now})
            if key_id:
                _count(connection, key_id, sign_count)
        return token

    def find(self, token: str) -> Login | None:
        """Return the login of a token: at most 8 hours old and 30 minutes unused."""
        now, digest = self._clock(), _digest(token)
        with told(self._engine), self._engine.connect() as connection:
            query = select(LOGINS).where(LOGINS.c.token_sha256 == digest)
            found = connection.execute(query).one_or_none()
            connection.rollback()
        if found is None or found.made_at <= now - LONGEST_S or found.seen_at <= now - IDLE_S:
            return None
        if found.seen_at <= now - _TOUCH_S:
            with told(self._engine), self._engine.begin() as connection:
                seen = update(LOGINS).where(LOGINS.c.token_sha256 == digest)
                connection.execute(seen.values(seen_at=now))
        return Login(found.person, found.key_id, found.made_at)

    def end(self, token: str) -> None:
        """Forget a login."""
        with told(self._engine), self._engine.begin() as connection:
            connection.execute(delete(LOGINS).where(LOGINS.c.token_sha256 == _digest(token)))


def _count(connection: Connection, key_id: str, sign_count: int) -> None:
    """Keep a key's counter, which rises; a key that counts nothing stays at 0."""
    mine = COUNTERS.c.key_id == key_id
    rises = (COUNTERS.c.sign_count < sign_count) | (COUNTERS.c.sign_count == 0)
    changed = connection.execute(update(COUNTERS).where(mine, rises).values(sign_count=sign_count))
    if changed.rowcount:
        return
    if connection.execute(select(COUNTERS.c.key_id).where(mine)).scalar() is not None:
        raise TrustError("this key's counter fell back: it may be a copy; tell your colleagues")
    connection.execute(insert(COUNTERS), {"key_id": key_id, "sign_count": sign_count})


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def form_token(token: str) -> str:
    """Return what forms of a login carry beside the cookie: it tells nothing of the token."""
    return hashlib.sha256(b"safehold-console-form\0" + token.encode()).hexdigest()
