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

from safehold.console.approvals.challenges import (
    LIFE_S,
    MOST,
    MOST_EACH,
    fresh,
    person_of,
    too_many,
    unknown,
)
from safehold.errors import TrustError
from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import make_tables

IDLE_S = 30 * 60.0
LONGEST_S = 8 * 3600.0
CHALLENGE_LIFE_S = 300.0
_MOST_CHALLENGES = 10_000
_TOUCH_S = 30.0
_ENROLMENT = "enrolment:"

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
        if nonce.startswith(_ENROLMENT):
            raise TrustError("this login took too long or was used before: begin again")
        with told(self._engine), self._engine.begin() as connection:
            recent = CHALLENGES.c.made_at > now - CHALLENGE_LIFE_S
            gone = connection.execute(delete(CHALLENGES).where(CHALLENGES.c.nonce == nonce, recent))
            if gone.rowcount != 1:
                raise TrustError("this login took too long or was used before: begin again")

    def enrolments(self) -> "StoredChallenges":
        """Return the challenges of enrolments, which stand in the same database."""
        return StoredChallenges(self._engine, self._clock)

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


class StoredChallenges:
    """Challenges of enrolments, which every console process on the database gives and takes.

    They stand beside those of logins, each under a name that no login asks for.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine, self._clock = engine, clock

    def give(self, person: str) -> str:
        """Return a fresh challenge for a person.

        Raises:
            TrustError: too many are open.
        """
        now, challenge = self._clock(), fresh(person)
        nonce, all_of_them = CHALLENGES.c.nonce, CHALLENGES.c.nonce.startswith(_ENROLMENT)
        mine = nonce.startswith(_nonce(person, ""), autoescape=True)
        with told(self._engine), self._engine.begin() as connection:
            old = CHALLENGES.c.made_at <= now - LIFE_S
            connection.execute(delete(CHALLENGES).where(old))
            query = select(nonce).where(mine).order_by(CHALLENGES.c.made_at.desc())
            beyond = connection.execute(query.offset(MOST_EACH - 1)).scalars().all()
            connection.execute(delete(CHALLENGES).where(nonce.in_(beyond)))
            count = select(func.count()).select_from(CHALLENGES).where(all_of_them)
            if connection.execute(count).scalar_one() >= MOST:
                raise too_many()
            row = {"nonce": _nonce(person, challenge), "made_at": now}
            connection.execute(insert(CHALLENGES), row)
        return challenge

    def spend(self, challenge: str) -> str:
        """Take a challenge away; return the person that it was given for.

        Raises:
            SignatureError: it was not given within five minutes, or was spent.
        """
        person = person_of(challenge)
        this = CHALLENGES.c.nonce == _nonce(person, challenge)
        recent = CHALLENGES.c.made_at > self._clock() - LIFE_S
        with told(self._engine), self._engine.begin() as connection:
            if connection.execute(delete(CHALLENGES).where(this, recent)).rowcount != 1:
                raise unknown()
        return person


def _nonce(person: str, challenge: str) -> str:
    return f"{_ENROLMENT}{person.encode().hex()}:{challenge}"


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
