"""Paid calls in a database that many workers share: kept as they come, each once.

The dataset's own book (`calls.jsonl`) has one writer. Workers on one host or many keep their
answers here, and the leader copies them into the book.
"""

import msgspec
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert, select

from safehold.guard.ledger.engine import told
from safehold.guard.ledger.own_tables import open_tables
from safehold.improve.synthesis.calls import CallBook, GeneratorAnswer, GeneratorCall

_METADATA = MetaData()
_CALLS = Table(
    "synth_calls",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False, unique=True),
    Column("call", String),
    Column("answer", String, nullable=False),
)
"""Answers by the key of their call; without a call: one that a book had before."""


class SharedCalls:
    """The answers of all workers (`CallStore`)."""

    def __init__(self, url: str) -> None:
        """Open the database and make its table where there is none.

        Raises:
            LedgerError: The database can't be used.
        """
        self._engine = open_tables(url, _METADATA, name="synth")

    def find(self, call: GeneratorCall) -> GeneratorAnswer | None:
        """Return the answer of a call that any worker paid for."""
        query = select(_CALLS.c.answer).where(_CALLS.c.key == call.key)
        with told(self._engine), self._engine.begin() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else msgspec.json.decode(found, type=GeneratorAnswer)

    def keep(self, call: GeneratorCall, answer: GeneratorAnswer) -> None:
        """Write an answer down before anything is made of it; the first one of a call stays."""
        row = {
            "key": call.key,
            "call": msgspec.json.encode(call).decode(),
            "answer": msgspec.json.encode(answer).decode(),
        }
        with told(self._engine), self._engine.begin() as connection:
            known = select(_CALLS.c.id).where(_CALLS.c.key == call.key)
            if connection.execute(known).scalar_one_or_none() is None:
                connection.execute(insert(_CALLS), row)

    def take(self, book: CallBook) -> None:
        """Learn what a book holds, so that nobody pays for it again."""
        with told(self._engine), self._engine.begin() as connection:
            # Of earlier versions, which kept errors of a request as refusals of its prompt.
            connection.execute(delete(_CALLS).where(_CALLS.c.answer.contains('"finish":"refused"')))
            known = set(connection.execute(select(_CALLS.c.key)).scalars())
            rows = [
                {"key": key, "call": None, "answer": msgspec.json.encode(answer).decode()}
                for key, answer in book.answers().items()
                if key not in known
            ]
            if rows:
                connection.execute(insert(_CALLS), rows)

    def give(self, book: CallBook) -> int:
        """Copy what workers paid for into a book; return how many answers were new there."""
        query = select(_CALLS).where(_CALLS.c.call.is_not(None)).order_by(_CALLS.c.id)
        copied = 0
        with told(self._engine), self._engine.begin() as connection:
            for row in connection.execute(query):
                call = msgspec.json.decode(row.call, type=GeneratorCall)
                if not book.has(call):
                    book.keep(call, msgspec.json.decode(row.answer, type=GeneratorAnswer))
                    copied += 1
        return copied
