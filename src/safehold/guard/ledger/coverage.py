"""The coverage audit: was everything that was served also scored and logged?

It compares what different places counted: bytes handed to sockets, bytes handed to scorers, bytes
of the text in the ledger, sequence numbers given out and rows present. None of them is a status
that some component reports about itself.
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, func, select

from safehold.errors import LedgerError
from safehold.guard.ledger.codec import decode_delivered
from safehold.guard.ledger.interface import Outcome
from safehold.guard.ledger.reader import LedgerReader, pages
from safehold.guard.ledger.schema import FINALS, HEAD, PROMPTS, ROW_TABLES, WRITERS

SETTLED = "WriterDied"
"""The error name of a final row that `settle` wrote for a writer that could not."""

_EXAMPLES = 5
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
    surfaces: dict[str, SurfaceCounts] = {}
    examples: dict[str, list[str]] = {}
    with reader.snapshot() as connection:
        head = connection.execute(select(HEAD.c.seq, HEAD.c.pruned)).one()
        present = sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in ROW_TABLES
        )
        cut = reader.cut_from(connection)
        prompts = select(PROMPTS.c.surface, func.count()).group_by(PROMPTS.c.surface)
        for name, count in connection.execute(prompts):
            surfaces[name] = SurfaceCounts(prompts=count)
        for left in unfinished(connection, now=now, limits=limits):
            _count_unfinished(surfaces[left.surface], left, examples)
        finals = select(FINALS, PROMPTS.c.surface).join_from(
            FINALS, PROMPTS, FINALS.c.decision_id == PROMPTS.c.decision_id, isouter=True
        )
        for page in pages(connection, finals, FINALS.c.seq):
            for final in page:
                name = final["surface"] or "(no prompt row)"
                _count_final(surfaces.setdefault(name, SurfaceCounts()), final, examples)
    missing = head.seq - head.pruned - present
    return LedgerCoverage(
        last_seq=head.seq,
        pruned_rows=head.pruned,
        missing_rows=missing,
        surfaces=dict(sorted(surfaces.items())),
        gaps=(*((_CUT,) if cut else ()), *_sentences(missing, examples)),
    )


def unfinished(connection: Connection, *, now: float, limits: StallLimits) -> Iterator[Unfinished]:
    """Yield every prompt that has no final row, in order."""
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
    for row in connection.execute(query):
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


def _count_unfinished(
    surface: SurfaceCounts, left: Unfinished, examples: dict[str, list[str]]
) -> None:
    match left.why:
        case "in_flight":
            surface.in_flight += 1
            return
        case "stalled":
            surface.stalled += 1
        case "crashed":
            surface.crashed += 1
    examples.setdefault(left.why, []).append(left.decision_id)


def _count_final(
    surface: SurfaceCounts, final: dict[str, Any], examples: dict[str, list[str]]
) -> None:
    decision_id, delivered = final["decision_id"], final["delivered_bytes"]
    surface.outcomes[Outcome(final["outcome"])] += 1
    surface.delivered_bytes += delivered
    surface.scored_bytes += final["scored_bytes"]
    surface.settled += final["error"] == SETTLED
    if final["surface"] is None:
        surface.without_prompt += 1
        examples.setdefault("without_prompt", []).append(decision_id)
    if (unscored := delivered - final["scored_bytes"]) > 0:
        surface.unscored_bytes += unscored
        examples.setdefault("unscored", []).append(decision_id)
    logged = _text_bytes(final["delivered"], decision_id)
    if logged is not None and (unlogged := abs(delivered - logged)):
        surface.unlogged_bytes += unlogged
        examples.setdefault("unlogged", []).append(decision_id)


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


def _sentences(missing: int, examples: dict[str, list[str]]) -> Iterator[str]:
    if missing:
        yield f"{missing} rows are missing: numbers were given out and nothing is there"
    for gap, words in _GAPS:
        if found := examples.get(gap):
            shown = ", ".join(found[:_EXAMPLES]) + (", …" if len(found) > _EXAMPLES else "")
            yield f"{len(found)} {words}: {shown}"
