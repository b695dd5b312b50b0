"""`safehold monitor export`: transcripts for Inspect Scout, tables for DuckDB and pandas."""

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from safehold.cli._values import KEPT_NUMBER
from safehold.errors import UsageError

_folder = click.Path(file_okay=False, path_type=Path)


@click.command("export")
@click.option("--scout", type=_folder, help="Write a transcripts database for Inspect Scout here.")
@click.option("--parquet", type=_folder, help="Write results, accounts, campaigns, cases here.")
@click.option("--content", is_flag=True, help="With --scout: what was asked and answered, too.")
@click.option(
    "--after", default=0, metavar="SEQ", type=KEPT_NUMBER, help="Only entries above this number."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_obj
def export(
    places: Any,
    scout: Path | None,
    parquet: Path | None,
    content: bool,
    after: int,
    as_json: bool,
) -> None:
    """Write what was served and what was found, for other people's tools.

    \b
    Examples:
      safehold monitor export --parquet tables/
      safehold monitor export --scout transcripts/ --content
      safehold monitor export --scout transcripts-new/ --after 120000
    """
    from safehold.detect.monitoring.export_tables import export_tables
    from safehold.detect.monitoring.export_transcripts import export_transcripts
    from safehold.detect.monitoring.tables import MonitorStore
    from safehold.guard.ledger.reader import LedgerReader

    if scout is None and parquet is None:
        raise UsageError("expected --scout DIR, --parquet DIR or both")
    if content and scout is None:
        raise UsageError(
            "--content goes with --scout: the monitor's tables hold none; "
            "safehold ledger export writes it as Parquet"
        )
    if scout is not None and parquet is not None and scout.resolve() == parquet.resolve():
        raise UsageError("expected two folders, came one for --scout and --parquet")
    store, reader = MonitorStore.open(places.monitor, make=False), LedgerReader.open(places.ledger)
    written = []
    if scout is not None:
        now = time.time()
        files = export_transcripts(store, reader, scout, content=content, now=now, after=after)
        written += [(scout, file) for file in files]
    if parquet is not None:
        files = export_tables(store, reader, parquet, after=after)
        written += [(parquet, file) for file in files]
    if as_json:
        told = [{"folder": str(where), **msgspec.structs.asdict(file)} for where, file in written]
        click.echo(msgspec.json.encode({"files": told}))
    else:
        for where, file in written:
            click.echo(f"{where / file.name}: {file.rows} rows, sha256 {file.sha256}")
