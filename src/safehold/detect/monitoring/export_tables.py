"""What the monitor knows as Parquet files: results, accounts, labels, campaigns and cases.

No content: texts are not in the monitor's database. No column has a name that DuckDB reserves or
that a pandas data frame uses itself, so that `SELECT` needs no quotes and `frame.NAME` works.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, select

from safehold.detect.monitoring.account_book import EXEMPT
from safehold.detect.monitoring.accounts import AccountState
from safehold.detect.monitoring.campaign_book import CampaignSettings, look
from safehold.detect.monitoring.campaigns import Campaign
from safehold.detect.monitoring.tables import (
    ACCOUNTS,
    CASES,
    LABELS,
    RESULTS,
    SCANNERS,
    MonitorStore,
)
from safehold.errors import LedgerError
from safehold.guard.ledger.parquet_files import ExportedFile, Kind, new_export, write_parquet
from safehold.guard.ledger.reader import LedgerReader

_PAGE_ROWS = 2_000

TABLES: Mapping[str, Mapping[str, Kind]] = {
    "results": {
        "ledger_seq": "integer",
        "decision_id": "text",
        "account": "text",
        "happened_at": "time",
        "scanner_name": "text",
        "scanner_digest": "text",
        "scanner_value": "number",
        "scanner_label": "text",
        "clause": "text",
        "reason": "text",
    },
    "accounts": {
        "account": "text",
        "exempt": "flag",
        "last_ledger_seq": "integer",
        "exchanges": "integer",
        "exchanges_stopped": "integer",
        "stopped_resembling": "integer",
        "days_joined": "integer",
        "days_stopped": "integer",
        "longest_chain": "integer",
    },
    "labels": {
        "account": "text",
        "exempt": "flag",
        "account_label": "text",
        "reason": "text",
        "evidence": "text",
        "labelled_at": "time",
        "expires_at": "time",
        "exchanges_before": "integer",
    },
    "campaigns": {
        "campaign_id": "text",
        "alarm": "flag",
        "exchanges": "integer",
        "accounts": "integer",
        "exchanges_stopped": "integer",
        "shared_digests": "text",
    },
    "campaign_exchanges": {"campaign_id": "text", "decision_id": "text"},
    "campaign_accounts": {"campaign_id": "text", "account": "text"},
    "cases": {
        "case_key": "text",
        "case_kind": "text",
        "title": "text",
        "severity": "integer",
        "facts": "text",
        "evidence": "text",
        "opened_at": "time",
        "closed_at": "time",
        "closed_by": "text",
    },
}
"""The files and their columns. Lists (`evidence`, `facts`, `shared_digests`) are JSON text."""


def export_tables(
    store: MonitorStore,
    reader: LedgerReader,
    folder: Path,
    *,
    after: int = 0,
    settings: CampaignSettings | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[ExportedFile]:
    """Write one Parquet file for each table and a `manifest.json`; the monitor stays as it is.

    Results are those above the ledger's number `after`. Campaigns are those of a look now.

    Raises:
        DependencyError: pyarrow is not installed.
        LedgerError: a database can't be read, the folder can't be written or holds an export.
    """
    found = look(store, reader, settings, keep=False).found
    with (
        new_export(folder, *(f"{name}.parquet" for name in TABLES)) as written,
        store.snapshot() as connection,
    ):
        rows: Mapping[str, Iterable[dict[str, Any]]] = {
            "results": _results(connection, after),
            "accounts": _accounts(connection),
            "labels": _labels(connection),
            "campaigns": (_campaign(one) for one in found),
            "campaign_exchanges": (
                {"campaign_id": _id(one), "decision_id": name}
                for one in found
                for name in one.decision_ids
            ),
            "campaign_accounts": (
                {"campaign_id": _id(one), "account": name} for one in found for name in one.accounts
            ),
            "cases": _cases(connection),
        }
        for name, columns in TABLES.items():
            number = "ledger_seq" if "ledger_seq" in columns else None
            pages = _paged(rows[name])
            path = folder / f"{name}.parquet"
            written.append(write_parquet(path, columns, pages, number=number, progress=progress))
    return written


def _paged(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rest = iter(rows)
    while page := list(itertools.islice(rest, _PAGE_ROWS)):
        yield page


def _streamed(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    yield from connection.execute(query.execution_options(yield_per=_PAGE_ROWS))


def _results(connection: Connection, after: int) -> Iterator[dict[str, Any]]:
    query = (
        select(RESULTS, SCANNERS.c.name)
        .join_from(RESULTS, SCANNERS, RESULTS.c.scanner == SCANNERS.c.scanner, isouter=True)
        .where(RESULTS.c.seq > after)
        .order_by(RESULTS.c.seq, RESULTS.c.scanner)
    )
    for row in _streamed(connection, query):
        yield {
            "ledger_seq": row.seq,
            "decision_id": row.decision_id,
            "account": row.account,
            "happened_at": row.happened_at,
            "scanner_name": row.name,
            "scanner_digest": row.scanner,
            "scanner_value": row.value,
            "scanner_label": row.label,
            "clause": row.clause,
            "reason": row.reason,
        }


def _accounts(connection: Connection) -> Iterator[dict[str, Any]]:
    for row in _streamed(connection, select(ACCOUNTS).order_by(ACCOUNTS.c.account)):
        try:
            state = msgspec.json.decode(row.state, type=AccountState)
        except msgspec.DecodeError as error:
            raise LedgerError(f"the monitor's state of {row.account!r} is damaged") from error
        yield {
            **_named(row.account),
            "last_ledger_seq": row.seen,
            "exchanges": state.queries,
            "exchanges_stopped": state.blocked,
            "stopped_resembling": state.walked,
            "days_joined": state.windows,
            "days_stopped": state.split,
            "longest_chain": state.lineage,
        }


def _labels(connection: Connection) -> Iterator[dict[str, Any]]:
    for row in _streamed(connection, select(LABELS).order_by(LABELS.c.account, LABELS.c.label)):
        yield {
            **_named(row.account),
            "account_label": row.label,
            "reason": row.reason,
            "evidence": row.evidence,
            "labelled_at": row.since,
            "expires_at": row.expires,
            "exchanges_before": row.queries,
        }


def _cases(connection: Connection) -> Iterator[dict[str, Any]]:
    for row in _streamed(connection, select(CASES).order_by(CASES.c.opened_at, CASES.c.key)):
        yield {
            "case_key": row.key,
            "case_kind": row.kind,
            "title": row.title,
            "severity": row.severity,
            "facts": row.facts,
            "evidence": row.evidence,
            "opened_at": row.opened_at,
            "closed_at": row.closed_at,
            "closed_by": row.closed_by,
        }


def _campaign(one: Campaign) -> dict[str, Any]:
    return {
        "campaign_id": _id(one),
        "alarm": one.alarm,
        "exchanges": len(one.decision_ids),
        "accounts": len(one.accounts),
        "exchanges_stopped": one.stopped,
        "shared_digests": msgspec.json.encode(one.shared).decode(),
    }


def _id(one: Campaign) -> str:
    """Name a campaign by its first text, as its case does."""
    return one.decision_ids[0]


def _named(name: str) -> dict[str, Any]:
    return {"account": name.removesuffix(EXEMPT), "exempt": name.endswith(EXEMPT)}
