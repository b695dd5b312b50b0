"""`safehold ledger`: read, audit, export and shorten the ledger of exchanges."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import click
import msgspec

from safehold.cli._values import (
    KEPT_NUMBER,
    Finite,
    WholeNumber,
)
from safehold.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from safehold.guard.ledger.coverage import LedgerCoverage
    from safehold.guard.ledger.interface import Entry

_POLL_S = 0.5
_UNITS = {"h": 3600, "d": 86_400, "w": 604_800}

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group()
@click.option(
    "--ledger",
    "url",
    default="safehold-ledger.db",
    envvar="SAFEHOLD_LEDGER",
    show_default=True,
    show_envvar=True,
    help="Path, sqlite:/// or postgresql:// URL.",
)
@click.pass_context
def ledger(context: click.Context, url: str) -> None:
    """Read the ledger of exchanges.

    \b
    Examples:
      safehold ledger tail -f
      safehold ledger show d-3f9c2a
      safehold ledger coverage || page-somebody
      safehold ledger classes
      safehold ledger export out/
      safehold ledger --ledger postgresql://safehold@db/safehold prune --older-than 30d
    """
    context.obj = url


@ledger.command()
@click.option(
    "-n",
    "count",
    default=20,
    show_default=True,
    type=WholeNumber(0),
    help="How many entries to begin with.",
)
@click.option("-f", "--follow", is_flag=True, help="Wait for new entries until interrupted.")
@_json_option
@click.pass_obj
def tail(url: str, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest entries, one line each, without their content.

    \b
    Examples:
      safehold ledger tail
      safehold ledger tail -n 100 --json | jq .row.outcome
      safehold ledger tail -f
    """
    from rich.console import Console

    from safehold.guard.ledger.reader import LedgerReader

    reader = LedgerReader.open(url)
    console = Console(highlight=False)
    entries = reader.tail(count)
    seen = entries[-1].seq if entries else max((e.seq for e in reader.tail(1)), default=0)
    try:
        while True:
            for entry in entries:
                if as_json:
                    click.echo(msgspec.json.encode(_without_content(entry)))
                else:
                    console.print(_line(entry), soft_wrap=True)
                seen = entry.seq
            if not follow:
                return
            if not entries:
                time.sleep(_POLL_S)
            entries = reader.after(seen)
    except KeyboardInterrupt:
        return


@ledger.command()
@click.argument("decision_id")
@_json_option
@click.pass_obj
def show(url: str, decision_id: str, as_json: bool) -> None:
    """Show all that is kept about one decision, content included.

    \b
    Examples:
      safehold ledger show d-3f9c2a
      safehold ledger show d-3f9c2a --json
    """
    from rich.console import Console
    from rich.text import Text

    from safehold.cli._visible import visible
    from safehold.guard.ledger.reader import LedgerReader

    entries = LedgerReader.open(url).decision(decision_id)
    if not entries:
        raise UsageError("no entry has this decision id; safehold ledger tail lists ids")
    if as_json:
        click.echo(_json(entries))
        return
    console = Console(highlight=False)
    for entry in entries:
        console.print(_line(entry), soft_wrap=True)
        for name, value in _fields(entry):
            console.print(Text(f"    {name:16} {visible(value)}"), soft_wrap=True)
        for speaker, text in _content(entry):
            console.print(Text(f"    | {speaker}", style="bold"))
            for line in visible(text).split("\n"):
                console.print(Text(f"    |   {line}"), soft_wrap=True)


@ledger.command()
@click.option(
    "--dead-after",
    default=60.0,
    show_default=True,
    type=Finite(0, min_open=True),
    metavar="SECONDS",
    help="A writer that was not seen for so long is dead.",
)
@click.option(
    "--stalled-after",
    default=3600.0,
    show_default=True,
    type=Finite(0, min_open=True),
    metavar="SECONDS",
    help="An exchange that runs for so long is a gap.",
)
@click.option(
    "--mark",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Go on where the audit that wrote this file came to, and write it anew.",
)
@click.option(
    "--mark-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --mark: the key that signs it (`safehold ledger new-key`).",
)
@_json_option
@click.pass_obj
def coverage(
    url: str,
    *,
    dead_after: float,
    stalled_after: float,
    mark: Path | None,
    mark_key: Path | None,
    as_json: bool,
) -> None:
    """Compare bytes delivered, scored and kept, and rows given out and present.

    Exits with status 8 when anything was served and not scored or not logged.

    With --mark it reads what is new since the last time; rows that are gone are found either way.
    Audit everything now and then: it alone sees that an old row's text was changed.

    \b
    Examples:
      safehold ledger coverage
      safehold ledger coverage --json --dead-after 30
      safehold ledger coverage --mark coverage.mark --mark-key /etc/safehold/mark.key
    """
    from safehold.guard.ledger.coverage import CoverageError, StallLimits, audit_since
    from safehold.guard.ledger.coverage_mark import read_mark, write_mark
    from safehold.guard.ledger.reader import LedgerReader

    limits = StallLimits(dead_after_s=dead_after, stalled_after_s=stalled_after)
    if (mark is None) != (mark_key is None):
        raise UsageError("expected --mark and --mark-key together, got one of them")
    since = read_mark(mark, mark_key) if mark and mark_key else None
    found, here = audit_since(since, LedgerReader.open(url), now=time.time(), limits=limits)
    if mark and mark_key:
        write_mark(mark, mark_key, here)
    if as_json:
        click.echo(_json(found))
    else:
        _print_coverage(found)
    if found.gaps:
        raise CoverageError("; ".join(found.gaps))


@ledger.command()
@click.option(
    "--dead-after",
    default=60.0,
    show_default=True,
    type=Finite(0, min_open=True),
    metavar="SECONDS",
    help="A writer that was not seen for so long is dead.",
)
@click.option(
    "--journal",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the gateway's crash journal (default: where `serve` keeps it).",
)
@_json_option
@click.pass_obj
def settle(url: str, dead_after: float, journal: Path | None, as_json: bool) -> None:
    """Give exchanges of a killed gateway their final row, from what is known.

    The gateway's journal holds what it had delivered. Where it is missing and needed, nothing is
    settled.

    \b
    Examples:
      safehold ledger settle
      safehold ledger settle --journal /var/lib/safehold/journal
    """
    from safehold.guard.gateway.relaying.crash_journal import default_journal, journalled
    from safehold.guard.ledger.coverage import StallLimits
    from safehold.guard.ledger.reader import LedgerReader
    from safehold.guard.ledger.retention import settle as settle_rows
    from safehold.guard.ledger.writer import Ledger

    folder = journal or default_journal(url)
    proved = journalled(folder, time.time()) if journal or folder.is_dir() else None

    async def run() -> list[str]:
        async with await Ledger.open(url) as kept:
            reader = LedgerReader.open(url)
            return await settle_rows(
                kept,
                reader,
                now=time.time(),
                limits=StallLimits(dead_after_s=dead_after),
                journalled=proved,
            )

    settled = asyncio.run(run())
    if as_json:
        click.echo(_json({"settled": settled}))
    else:
        click.echo(f"{len(settled)} exchanges settled" + "".join(f"\n  {name}" for name in settled))


@ledger.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--after", default=0, metavar="SEQ", type=KEPT_NUMBER, help="Only entries above this number."
)
@_json_option
@click.pass_obj
def export(url: str, folder: Path, after: int, as_json: bool) -> None:
    """Write the ledger, content included, as Parquet files and a manifest.

    \b
    Examples:
      safehold ledger export out/
      safehold ledger export out-new/ --after 120000
    """
    from safehold.guard.ledger.export import export as export_to
    from safehold.guard.ledger.reader import LedgerReader

    with _progress("rows", quiet=as_json) as advance:
        files = export_to(LedgerReader.open(url), folder, after=after, progress=advance)
    if as_json:
        click.echo(_json({"files": files}))
    else:
        for file in files:
            click.echo(f"{folder / file.name}: {file.rows} rows, sha256 {file.sha256}")


@ledger.command()
@_json_option
@click.pass_obj
def classes(url: str, as_json: bool) -> None:
    """Say of each class what it stopped, or in shadow would have, with an exact bound.

    \b
    Examples:
      safehold ledger classes
      safehold ledger classes --json | jq '.[] | select(.state == "shadow")'
    """
    from safehold.guard.ledger.class_counts import class_counts
    from safehold.guard.ledger.reader import LedgerReader

    found = class_counts(LedgerReader.open(url))
    if as_json:
        click.echo(_json(found))
        return
    for one in found:
        did = "would have stopped" if one.state == "shadow" else "stopped"
        click.echo(f"{one.name or 'first class'} ({one.state}): {did} {one.blocked.at_most()}")
        for clause, count in one.clauses.items():
            click.echo(f"    {clause}: {count}")
        if one.unscored:
            click.echo(f"    not scored: {one.unscored}")


@ledger.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_json_option
@click.pass_obj
def backup_command(url: str, file: Path, as_json: bool) -> None:
    """Write the whole ledger, content included, into one new SQLite file.

    It may run while gateways write. A plain copy of the file may not: rows would be left out.

    \b
    Examples:
      safehold ledger backup ledger-monday.db
      safehold ledger --ledger postgresql://safehold@db/safehold backup ledger-monday.db
    """
    from safehold.guard.ledger.backup import backup

    with _progress("rows", quiet=as_json) as advance:
        copied = backup(url, file, now=time.time(), progress=advance)
    click.echo(_json(copied) if as_json else f"{copied.rows} rows in {file}")


@ledger.command("restore")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_json_option
@click.pass_obj
def restore_command(url: str, file: Path, as_json: bool) -> None:
    """Fill an empty ledger from a backup.

    \b
    Examples:
      safehold ledger --ledger new.db restore ledger-monday.db
      safehold ledger --ledger postgresql://safehold@db/empty restore ledger-monday.db
    """
    from safehold.guard.ledger.backup import restore

    with _progress("rows", quiet=as_json) as advance:
        copied = restore(file, url, now=time.time(), progress=advance)
    click.echo(_json(copied) if as_json else f"{copied.rows} rows restored from {file}")


@ledger.command()
@click.option("--older-than", required=True, metavar="PERIOD", help="For instance 30d, 12h, 4w.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
@click.pass_obj
def prune(url: str, older_than: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove decisions older than a period for good; events stay, and record it.

    \b
    Examples:
      safehold ledger prune --older-than 30d --dry-run
      safehold ledger prune --older-than 30d --yes
    """
    from safehold.guard.ledger.retention import prune as prune_rows

    period = _period_s(older_than)
    due = prune_rows(url, older_than_s=period, dry_run=True)
    if not dry_run and due.decisions:
        until = datetime.fromtimestamp(due.cutoff, UTC).isoformat(timespec="seconds")
        if not yes:
            click.confirm(
                f"Remove {due.decisions} decisions last touched before {until} for good?",
                abort=True,
                err=True,
            )
        with _progress("decisions", total=due.decisions, quiet=as_json) as advance:
            due = prune_rows(url, older_than_s=period, progress=advance)
    if as_json:
        click.echo(_json(due))
    elif dry_run:
        click.echo(f"{due.decisions} decisions would be removed")
    else:
        click.echo(f"{due.decisions} decisions ({due.rows} rows) removed")


@ledger.command()
@_json_option
@click.pass_obj
def migrate(url: str, as_json: bool) -> None:
    """Make the ledger's tables, or bring them to this release's version.

    \b
    Examples:
      safehold ledger --ledger postgresql://safehold@db/safehold migrate
    """
    from safehold.guard.ledger.writer import Ledger

    async def run() -> None:
        async with await Ledger.open(url):
            pass

    asyncio.run(run())
    click.echo(_json({"migrated": True}) if as_json else "the ledger has this release's tables")


@ledger.command("new-key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_json_option
def new_key(file: Path, as_json: bool) -> None:
    """Make a key in FILE under which held content is encrypted at rest.

    \b
    Examples:
      safehold ledger new-key /etc/safehold/ledger.key
      export SAFEHOLD_LEDGER_KEY=/etc/safehold/ledger.key
    """
    from safehold.guard.ledger.sealing import VARIABLE, make_key

    make_key(file)
    told = f"{file} is there; name it in {VARIABLE} wherever held content is held or read"
    click.echo(_json({"key": str(file)}) if as_json else told)


def _period_s(words: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([hdw])", words)
    if match is None:
        raise UsageError(f"--older-than: expected a period like 12h, 30d or 4w, got {words[:40]!r}")
    return float(match[1]) * _UNITS[match[2]]


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _without_content(entry: "Entry") -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(entry)
    for name in ("exchange", "delivered", "text"):
        plain["row"].pop(name, None)
    return plain


def _line(entry: "Entry") -> "Text":
    from rich.text import Text

    from safehold.cli._visible import visible
    from safehold.guard.ledger.interface import EventRow, FinalRow, ProgressRow, PromptRow

    row = entry.row
    when = datetime.fromtimestamp(row.at, UTC).isoformat(sep=" ", timespec="milliseconds")[:23]
    match row:
        case PromptRow():
            words = f"prompt   {row.decision_id}  {row.surface}  {row.model}  {row.verdict}"
            words += f" -> {row.action}" + _why(row.clause, row.stage, row.score)
            words += "  would block" if row.would_block else ""
        case ProgressRow():
            words = f"progress {row.decision_id}  +{len(row.text)} characters at {row.offset}"
        case FinalRow():
            words = f"final    {row.decision_id}  {row.outcome}"
            words += _why(row.clause, row.stage, row.score)
            words += f"  {row.delivered_bytes} B delivered, {row.scored_bytes} B scored"
            words += f"  {row.error}" if row.error else ""
        case EventRow():
            detail = " ".join(f"{key}={value}" for key, value in row.detail.items())
            words = f"event    {row.kind}  {row.surface or ''}  {detail}"
        case _:
            assert_never(row)
    return Text(f"{entry.seq:>8}  {when}  {visible(words)}")


def _why(clause: str | None, stage: str | None, score: float | None) -> str:
    parts = [clause, stage, None if score is None else f"{score:.4f}"]
    known = [part for part in parts if part]
    return f"  [{' '.join(known)}]" if known else ""


def _fields(entry: "Entry") -> Iterator[tuple[str, str]]:
    for name, value in _without_content(entry)["row"].items():
        told = value
        if isinstance(value, dict):
            told = {key: inner for key, inner in value.items() if inner is not None}
        if told is not None and told != {} and name != "type":
            yield name, told if isinstance(told, str) else msgspec.json.encode(told).decode()


def _content(entry: "Entry") -> Iterator[tuple[str, str]]:
    from safehold.exchange import OpaquePart, TextPart
    from safehold.guard.ledger.interface import EventRow, FinalRow, ProgressRow, PromptRow

    match entry.row:
        case PromptRow(exchange=exchange) if exchange is not None:
            for turn in exchange.turns:
                for part in turn.parts:
                    match part:
                        case TextPart():
                            yield f"{turn.role} {part.channel}", part.text
                        case OpaquePart():
                            yield str(turn.role), f"({part.media_type}, {part.size_bytes} bytes)"
        case FinalRow(delivered=delivered):
            for piece in delivered:
                lane = piece.lane
                yield f"delivered {lane.channel} {lane.choice}/{lane.index}", piece.text
        case ProgressRow(text=text, lane=lane):
            yield f"released {lane.channel} {lane.choice}/{lane.index}", text
        case PromptRow() | EventRow():
            return
        case _:
            assert_never(entry.row)


def _print_coverage(found: "LedgerCoverage") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from safehold.cli._visible import visible

    table = Table(
        *("surface", "asked", "ended", "open", "crashed", "settled"),
        *("sent B", "scored B", "unscored", "unlogged"),
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, surface in found.surfaces.items():
        counts = (
            surface.prompts,
            sum(surface.outcomes.values()),
            surface.in_flight,
            surface.crashed + surface.stalled,
            surface.settled,
            surface.delivered_bytes,
            surface.scored_bytes,
            surface.unscored_bytes,
            surface.unlogged_bytes,
        )
        table.add_row(Text(visible(name)), *(f"{count:,}" for count in counts))
    console = Console()
    console.print(table)
    console.print(
        f"{found.last_seq} rows given out, {found.pruned_rows} pruned, "
        f"{found.missing_rows} missing; {'no gap' if not found.gaps else 'GAPS'}"
    )


@contextmanager
def _progress(what: str, *, total: int | None = None, quiet: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
