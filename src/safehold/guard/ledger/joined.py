"""Joined exchanges: a prompt with how it ended, in the order in which they ended.

The ledger gives out sequence numbers under one lock that is held until the commit. So the highest
number that a snapshot shows is a watermark: no row will ever appear at or below it. An exchange is
placed by its final row's number; one that ends later is placed later, one whose writer died is
placed when `settle` ends it. Nothing is placed twice and nothing is passed over.
"""

from collections.abc import Iterator

import msgspec
from sqlalchemy import Connection, func, select

from safehold.errors import LedgerError
from safehold.exchange import Exchange
from safehold.guard.ledger.codec import to_entry
from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.guard.ledger.schema import FINALS, HEAD, PROMPTS

_PAGE_ROWS = 100


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange that ended. `seq` is its final row's number; `prompt` is None when pruned."""

    seq: int
    prompt: PromptRow | None
    final: FinalRow

    @property
    def decision_id(self) -> str:
        """The decision that both rows are about."""
        return self.final.decision_id

    @property
    def account(self) -> str:
        """Who asked: tenant and key, the key alone, or `-` where the gateway has no accounts."""
        if self.prompt is None or self.prompt.key_id is None:
            return "-"
        return "/".join(name for name in (self.prompt.tenant, self.prompt.key_id) if name)

    @property
    def exchange(self) -> Exchange | None:
        """The prompt with its history, where it could be read as an exchange."""
        return None if self.prompt is None else self.prompt.exchange


def watermark(connection: Connection) -> int:
    """Return the number at or below which no row will appear any more."""
    seq: int = connection.execute(select(HEAD.c.seq)).scalar_one()
    return seq


def sizes(connection: Connection, *, after: int, through: int, limit: int) -> list[tuple[int, int]]:
    """Return (seq, characters kept) of at most `limit` exchanges in order, without their text."""
    size = func.coalesce(func.length(PROMPTS.c.exchange), 0) + func.length(FINALS.c.delivered)
    query = (
        select(FINALS.c.seq, size)
        .join_from(FINALS, PROMPTS, FINALS.c.decision_id == PROMPTS.c.decision_id, isouter=True)
        .where(FINALS.c.seq > after, FINALS.c.seq <= through)
        .order_by(FINALS.c.seq)
        .limit(limit)
    )
    return [(seq, length) for seq, length in connection.execute(query)]


def joined(connection: Connection, *, after: int, through: int) -> Iterator[Joined]:
    """Yield the exchanges that ended in (after, through], in order, a page in memory at a time.

    Raises:
        LedgerError: a row holds what no release of ours writes.
    """
    while True:
        query = (
            select(FINALS)
            .where(FINALS.c.seq > after, FINALS.c.seq <= through)
            .order_by(FINALS.c.seq)
            .limit(_PAGE_ROWS)
        )
        finals = [to_entry(FinalRow, dict(row)) for row in connection.execute(query).mappings()]
        ids = [entry.row.decision_id for entry in finals if isinstance(entry.row, FinalRow)]
        asked = select(PROMPTS).where(PROMPTS.c.decision_id.in_(ids))
        prompts = {
            row["decision_id"]: to_entry(PromptRow, dict(row)).row
            for row in connection.execute(asked).mappings()
        }
        for entry in finals:
            if not isinstance(entry.row, FinalRow):
                raise LedgerError(f"row {entry.seq} is no final row")
            prompt = prompts.get(entry.row.decision_id)
            yield Joined(
                seq=entry.seq,
                prompt=prompt if isinstance(prompt, PromptRow) else None,
                final=entry.row,
            )
        if len(finals) < _PAGE_ROWS:
            return
        after = finals[-1].seq
