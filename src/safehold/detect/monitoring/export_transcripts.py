"""Exchanges as a database of transcripts that Inspect Scout opens.

A folder of Parquet files with Scout's own columns (`transcripts_db_schema`, inspect-scout 0.6) and
one column for each piece of metadata. None of ours has a name that Scout reserves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from safehold.detect.monitoring.account_book import EXEMPT, stopped
from safehold.detect.monitoring.export_messages import messages
from safehold.detect.monitoring.tables import LABELS, RESULTS, SCANNERS, MonitorStore
from safehold.guard.ledger.holds import sealed
from safehold.guard.ledger.joined import Joined, joined, watermark
from safehold.guard.ledger.parquet_files import ExportedFile, Kind, new_export, write_parquet
from safehold.guard.ledger.reader import LedgerReader

FILE = "transcripts_safehold.parquet"
_JOINED_ROWS = 100  # as many as `joined` has in memory
_PAGE_ROWS, _PAGE_CHARS = 500, 8_000_000

COLUMNS: Mapping[str, Kind] = {
    "transcript_id": "text",
    "source_type": "text",
    "source_uri": "text",
    "date": "text",
    "task_set": "text",
    "agent": "text",
    "model": "text",
    "message_count": "integer",
    "total_time": "number",
    "total_tokens": "integer",
    "error": "text",
    "trust_content": "flag",
    "messages": "text",
}
"""Columns of Scout that are filled."""

METADATA: Mapping[str, Kind] = {
    "ledger_seq": "integer",
    "account": "text",
    "account_labels": "text",
    "tenant": "text",
    "use_case": "text",
    "grant_id": "text",
    "surface": "text",
    "bundle_digest": "text",
    "outcome": "text",
    "guard_stopped": "flag",
    "prompt_verdict": "text",
    "prompt_clause": "text",
    "prompt_score": "number",
    "reply_verdict": "text",
    "reply_clause": "text",
    "reply_score": "number",
    "content_state": "text",
}
"""Metadata of ours; `rescan_NAME` is added for each scanner: the highest value it gave."""


def export_transcripts(
    store: MonitorStore,
    reader: LedgerReader,
    folder: Path,
    *,
    content: bool,
    now: float,
    after: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[ExportedFile]:
    """Write every exchange that ended, above the number `after`, as one transcript.

    Without `content` each message tells how many characters were left out. Content that a hold
    keeps encrypted is left out always. `now` (epoch seconds) says which labels still stand.

    Raises:
        DependencyError: pyarrow is not installed.
        LedgerError: a database can't be read, the folder can't be written or holds an export.
    """
    with store.snapshot() as known:
        scanners, labels = _scanners(known), _labels(known, now)
    columns: dict[str, Kind] = {**COLUMNS, **METADATA}
    columns.update((name, "number") for name in sorted({*scanners.values()}))
    with (
        new_export(folder, FILE) as written,
        reader.snapshot() as ledger,
        store.snapshot() as known,
    ):
        found = joined(ledger, after=after, through=watermark(ledger))
        rows = (
            {**dict.fromkeys(columns), **row}
            for page in _pages(found)
            for row in _rows(page, known, ledger, scanners, labels, content=content)
        )
        file = write_parquet(
            folder / FILE, columns, _paged(rows), number="ledger_seq", progress=progress
        )
        written.append(file)
    return written


def _rows(
    page: list[Joined],
    known: Connection,
    ledger: Connection,
    scanners: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    content: bool,
) -> Iterator[dict[str, Any]]:
    values = _values(known, page, scanners)
    closed = sealed(ledger, [one.decision_id for one in page])
    for one in page:
        shown = content and one.decision_id not in closed
        said = messages(one, content=shown)
        row = {**_transcript(one), **_metadata(one), **values[one.seq]}
        row["messages"] = msgspec.json.encode(said).decode()
        row["message_count"] = len(said)
        row["content_state"] = _content_state(one, content=content, shown=shown)
        granted = one.prompt is not None and one.prompt.grant_id is not None
        row["account_labels"] = labels.get(one.account + (EXEMPT if granted else ""))
        yield row


def _content_state(one: Joined, *, content: bool, shown: bool) -> str:
    if not content:
        return "left out"
    if not shown:
        return "held encrypted"
    return "whole" if one.prompt is not None else "prompt pruned"


def _transcript(one: Joined) -> dict[str, Any]:
    prompt, final = one.prompt, one.final
    tokens = [count for count in (final.tokens_in, final.tokens_out) if count is not None]
    took_ms = final.latency.total_ms
    return {
        "transcript_id": one.decision_id,
        "source_type": "safehold",
        "source_uri": f"safehold://decision/{one.decision_id}",
        "date": _date(final.at if prompt is None else prompt.at),
        "task_set": None if prompt is None else prompt.surface,
        "agent": one.account,
        "model": None if prompt is None else prompt.model,
        "total_time": None if took_ms is None else took_ms / 1_000,
        "total_tokens": sum(tokens) if tokens else None,
        "error": final.error,
        "trust_content": False,
    }


def _metadata(one: Joined) -> dict[str, Any]:
    prompt, final = one.prompt, one.final
    row = {
        "ledger_seq": one.seq,
        "account": one.account,
        "outcome": final.outcome.value,
        "guard_stopped": stopped(one),
        "reply_verdict": final.verdict.value,
        "reply_clause": final.clause,
        "reply_score": final.score,
    }
    if prompt is not None:
        row |= {
            "tenant": prompt.tenant,
            "use_case": prompt.use_case,
            "grant_id": prompt.grant_id,
            "surface": prompt.surface,
            "bundle_digest": prompt.bundle_digest,
            "prompt_verdict": prompt.verdict.value,
            "prompt_clause": prompt.clause,
            "prompt_score": prompt.score,
        }
    return row


def _date(at: float) -> str | None:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # a clock that told no date
        return None


def _pages(found: Iterable[Joined]) -> Iterator[list[Joined]]:
    page: list[Joined] = []
    for one in found:
        page.append(one)
        if len(page) == _JOINED_ROWS:
            yield page
            page = []
    if page:
        yield page


def _paged(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    page: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        page.append(row)
        size += len(row["messages"])
        if len(page) == _PAGE_ROWS or size > _PAGE_CHARS:
            yield page
            page, size = [], 0
    if page:
        yield page


def _scanners(known: Connection) -> dict[str, str]:
    """Return the column of each scanner by its digest; scanners of one name share one."""
    rows = known.execute(select(SCANNERS.c.scanner, SCANNERS.c.name))
    return {row.scanner: f"rescan_{row.name}" for row in rows}


def _values(
    known: Connection, page: list[Joined], scanners: Mapping[str, str]
) -> dict[int, dict[str, float]]:
    here = (RESULTS.c.seq >= page[0].seq) & (RESULTS.c.seq <= page[-1].seq)
    query = (
        select(RESULTS.c.scanner, RESULTS.c.seq, func.max(RESULTS.c.value).label("highest"))
        .where(here, RESULTS.c.scanner.in_(scanners), RESULTS.c.value.is_not(None))
        .group_by(RESULTS.c.scanner, RESULTS.c.seq)
    )
    values: dict[int, dict[str, float]] = defaultdict(dict)
    for row in known.execute(query):
        mine, name = values[row.seq], scanners[row.scanner]
        mine[name] = max(mine.get(name, 0.0), row.highest)
    return values


def _labels(known: Connection, now: float) -> dict[str, str]:
    query = select(LABELS.c.account, LABELS.c.label).where(LABELS.c.expires > now)
    found: dict[str, list[str]] = defaultdict(list)
    for row in known.execute(query.order_by(LABELS.c.label)):
        found[row.account].append(row.label)
    return {account: ",".join(names) for account, names in found.items()}
