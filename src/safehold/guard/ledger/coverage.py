"""The coverage audit: was everything that was served also scored and logged?

It compares what different places counted: bytes handed to sockets, bytes handed to scorers, bytes
of the text in the ledger, sequence numbers given out and rows present. None of them is a status
that some component reports about itself.
"""

import copy
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, Select, func, select

from safehold.errors import LedgerError
from safehold.guard.ledger.codec import decode_delivered
from safehold.guard.ledger.interface import Outcome
from safehold.guard.ledger.reader import LedgerReader, pages
from safehold.guard.ledger.schema import FINALS, HEAD, PROMPTS, ROW_TABLES, WRITERS

SETTLED = "WriterDied"
"""The error name of a final row that `settle` wrote for a writer that could not."""

_EXAMPLES = 5
_AT_ONCE = 500
_COUNTED = (
    FINALS.c.seq,
    FINALS.c.decision_id,
    FINALS.c.outcome,
    FINALS.c.delivered,
    FINALS.c.delivered_bytes,
    FINALS.c.scored_bytes,
    FINALS.c.error,
)
_CUT = (
    "this file is a copy made without its write-ahead log while a gateway wrote: its newest rows "
    "are not here (see ledger backup)"
)


class CoverageError(LedgerError):
    """Find out why something was served and not scored, or scored and not logged."""

    exit_status = 8


class StallLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a writer counts as dead and a running stream as stalled, in seconds."""

    dead_after_s: float = 60.0
    stalled_after_s: float = 3600.0


class SurfaceCounts(msgspec.Struct, kw_only=True):
    """Counts of one surface; `in_flight` exchanges run on a live writer and are no gap.

    `unscored_bytes` sums, over exchanges, what was delivered beyond what was scored; a surplus of
    one exchange never pays for another. `unlogged_bytes` sums the differences, either way, between
    bytes delivered and bytes of text kept.
    """

    prompts: int = 0
    outcomes: dict[Outcome, int] = msgspec.field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    in_flight: int = 0
    crashed: int = 0
    stalled: int = 0
    settled: int = 0
    without_prompt: int = 0
    delivered_bytes: int = 0
    scored_bytes: int = 0
    unscored_bytes: int = 0
    unlogged_bytes: int = 0


class LedgerCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit found; `gaps` is empty when all is covered, else one sentence per kind."""

    last_seq: int
    pruned_rows: int
    missing_rows: int
    surfaces: dict[str, SurfaceCounts]
    gaps: tuple[str, ...]


class FoundGap(msgspec.Struct):
    """One kind of gap: how often, and the first decisions that have it."""

    count: int = 0
    examples: list[str] = []

    def add(self, decision_id: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) <= _EXAMPLES:
            self.examples.append(decision_id)


class CoverageMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far an audit came, and what it counted up to there.

    What ended by then is not read again: a later audit adds to it. Prompts that had no final row
    are named, and asked about again.
    """

    seq: int
    at: float
    open: tuple[str, ...]
    surfaces: dict[str, SurfaceCounts]
    gaps: dict[str, FoundGap]


class Unfinished(msgspec.Struct, frozen=True):
    """A prompt without a final row, and why: it is in flight, stalled, or its writer died."""

    decision_id: str
    surface: str
    why: Literal["in_flight", "stalled", "crashed"]


def audit(reader: LedgerReader, *, now: float, limits: StallLimits) -> LedgerCoverage:
    """Compare the counters and rows of a whole ledger, as of one moment.

    Raises:
        LedgerError: the ledger can't be read.
    """
    return audit_since(None, reader, now=now, limits=limits)[0]


def audit_since(
    since: CoverageMark | None, reader: LedgerReader, *, now: float, limits: StallLimits
) -> tuple[LedgerCoverage, CoverageMark]:
    """Audit what is new since a mark, add it to what the mark counted, and return the next mark.

    Args:
        since: Exchanges that had ended by then are counted as they were, pruned ones too. A change
            to their rows since then is seen by an audit of everything alone; a row that is gone
            is seen by both.
        reader: The ledger.
        now: POSIX seconds.
        limits: When a writer is dead and an exchange stalled.

    Raises:
        LedgerError: the ledger can't be read, or is older than the mark.
    """
    begun = since or CoverageMark(seq=0, at=now, open=(), surfaces={}, gaps={})
    surfaces = copy.deepcopy(begun.surfaces)
    gaps = copy.deepcopy(begun.gaps)
    left: list[str] = []
    with reader.snapshot() as connection:
        head = connection.execute(select(HEAD.c.seq, HEAD.c.pruned)).one()
        if head.seq < begun.seq:
            raise LedgerError(
                f"the ledger ends at row {head.seq} and the mark at {begun.seq}: it is another "
                "ledger, or an older copy of this one"
            )
        present = sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in ROW_TABLES
        )
        cut = reader.cut_from(connection)
        prompts = select(PROMPTS.c.surface, func.count()).group_by(PROMPTS.c.surface)
        for name, count in connection.execute(prompts.where(PROMPTS.c.seq > begun.seq)):
            surfaces.setdefault(name, SurfaceCounts()).prompts += count
        finals = (
            select(*_COUNTED, PROMPTS.c.surface)
            .join_from(FINALS, PROMPTS, FINALS.c.decision_id == PROMPTS.c.decision_id, isouter=True)
            .where(FINALS.c.seq > begun.seq)
        )
        for page in pages(connection, finals, FINALS.c.seq, after=begun.seq):
            for final in page:
                name = final["surface"] or "(no prompt row)"
                _count_final(surfaces.setdefault(name, SurfaceCounts()), final, gaps)
        settled, lasting = copy.deepcopy(surfaces), copy.deepcopy(gaps)
        for one in unfinished(connection, now=now, limits=limits, since=begun):
            left.append(one.decision_id)
            _count_unfinished(surfaces[one.surface], one, gaps)
    missing = head.seq - head.pruned - present
    found = LedgerCoverage(
        last_seq=head.seq,
        pruned_rows=head.pruned,
        missing_rows=missing,
        surfaces=dict(sorted(surfaces.items())),
        gaps=(*((_CUT,) if cut else ()), *_sentences(missing, gaps)),
    )
    mark = CoverageMark(seq=head.seq, at=now, open=tuple(left), surfaces=settled, gaps=lasting)
    return found, mark


def unfinished(
    connection: Connection, *, now: float, limits: StallLimits, since: CoverageMark | None = None
) -> Iterator[Unfinished]:
    """Yield every prompt that has no final row, in order; those a mark does not name had one."""
    query = (
        select(
            PROMPTS.c.decision_id,
            PROMPTS.c.surface,
            PROMPTS.c.at,
            WRITERS.c.seen_at,
            WRITERS.c.closed_at,
        )
        .join_from(PROMPTS, WRITERS, PROMPTS.c.writer == WRITERS.c.writer, isouter=True)
        .where(~select(FINALS.c.seq).where(FINALS.c.decision_id == PROMPTS.c.decision_id).exists())
        .order_by(PROMPTS.c.seq)
    )
    for row in _asked(connection, query, since):
        lives = (
            row.seen_at is not None
            and row.closed_at is None
            and now - row.seen_at <= limits.dead_after_s
        )
        why: Literal["in_flight", "stalled", "crashed"]
        if not lives:
            why = "crashed"
        elif now - row.at > limits.stalled_after_s:
            why = "stalled"
        else:
            why = "in_flight"
        yield Unfinished(row.decision_id, row.surface, why)


def _asked(
    connection: Connection, query: Select[Any], since: CoverageMark | None
) -> Iterator[Row[Any]]:
    """Yield the prompts that can be without a final row: the mark's open ones, and later ones."""
    if since is None:
        yield from connection.execute(query)
        return
    for first in range(0, len(since.open), _AT_ONCE):
        some = since.open[first : first + _AT_ONCE]
        old = query.where(PROMPTS.c.seq <= since.seq, PROMPTS.c.decision_id.in_(some))
        yield from connection.execute(old)
    yield from connection.execute(query.where(PROMPTS.c.seq > since.seq))


def _count_unfinished(surface: SurfaceCounts, left: Unfinished, gaps: dict[str, FoundGap]) -> None:
    match left.why:
        case "in_flight":
            surface.in_flight += 1
            return
        case "stalled":
            surface.stalled += 1
        case "crashed":
            surface.crashed += 1
    gaps.setdefault(left.why, FoundGap()).add(left.decision_id)


def _count_final(surface: SurfaceCounts, final: dict[str, Any], gaps: dict[str, FoundGap]) -> None:
    decision_id, delivered = final["decision_id"], final["delivered_bytes"]
    surface.outcomes[Outcome(final["outcome"])] += 1
    surface.delivered_bytes += delivered
    surface.scored_bytes += final["scored_bytes"]
    surface.settled += final["error"] == SETTLED
    if final["surface"] is None:
        surface.without_prompt += 1
        gaps.setdefault("without_prompt", FoundGap()).add(decision_id)
    if (unscored := delivered - final["scored_bytes"]) > 0:
        surface.unscored_bytes += unscored
        gaps.setdefault("unscored", FoundGap()).add(decision_id)
    logged = _text_bytes(final["delivered"], decision_id)
    if logged is not None and (unlogged := abs(delivered - logged)):
        surface.unlogged_bytes += unlogged
        gaps.setdefault("unlogged", FoundGap()).add(decision_id)


def _text_bytes(encoded: str, decision_id: str) -> int | None:
    """Return how many bytes the row holds; None where they are sealed and the key is not here."""
    lanes = decode_delivered(encoded, decision_id)
    if lanes is None:
        return None
    return sum(len(lane.text.encode("utf-8", "surrogatepass")) for lane in lanes)


_GAPS: tuple[tuple[str, str], ...] = (
    ("unscored", "exchanges delivered more bytes than were scored"),
    ("unlogged", "exchanges delivered other bytes than the ledger holds"),
    ("crashed", "exchanges have no final row and their writer is gone (see ledger settle)"),
    ("stalled", "exchanges have no final row for too long"),
    ("without_prompt", "final rows have no prompt row"),
)


def _sentences(missing: int, gaps: dict[str, FoundGap]) -> Iterator[str]:
    if missing:
        yield f"{missing} rows are missing: numbers were given out and nothing is there"
    for gap, words in _GAPS:
        if found := gaps.get(gap):
            shown = ", ".join(found.examples[:_EXAMPLES])
            shown += ", …" if found.count > _EXAMPLES else ""
            yield f"{found.count} {words}: {shown}"
