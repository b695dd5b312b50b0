"""Read our exports with Inspect Scout, DuckDB and pandas; run by `scout.py`, in their environment.

Prints one line of JSON with what was counted, and a line for each check that failed.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
from inspect_scout import scan_results_df, transcripts_db_schema

HERE = Path(__file__).resolve().parent
OWN = 13
"""Of the columns of an export, so many are Scout's; the rest is metadata."""


def main() -> int:
    """Check everything; the exit status says whether all held."""
    folder = Path(sys.argv[1])
    told = json.loads((folder / "told.json").read_text())
    failed = schema_faults(folder / "whole")
    counts: dict[str, Any] = {"rows": told["rows"]}
    truth = pd.read_parquet(folder / "tables" / "results.parquet")
    for name, needles in (("whole", told["needles"]), ("bare", 0)):
        scanned = scan(folder, name)
        ours, found = scanned["rescan"], scanned["needle"]
        pairs = ours.merge(truth, left_on="transcript_id", right_on="decision_id")
        equal = int((pairs["value"].astype(float) == pairs["scanner_value"]).sum())
        hits = int((found["value"].astype(float) > 0).sum())
        counts[name] = {"scanned": len(ours), "equal": equal, "needles": hits}
        if (len(ours), equal) != (told["rows"], told["rows"]):
            failed.append(f"{name}: {equal} of {len(ours)} values are ours, of {told['rows']}")
        if hits != needles:
            failed.append(f"{name}: {hits} needles, expected {needles}")
        for one in (ours, found):
            errors = int(one["scan_error"].notna().sum())
            if errors:
                failed.append(f"{name}: {errors} transcripts could not be scanned")
    if truth["scanner_value"].nunique() < 2:
        failed.append("every value is the same: the comparison shows nothing")
    counts["tables"], faults = tables(folder / "tables")
    failed += faults
    failed += [f"{name}.parquet is empty" for name, size in counts["tables"].items() if not size]
    print(json.dumps(counts))
    for one in failed:
        print(f"failed: {one}")
    return 1 if failed else 0


def schema_faults(folder: Path) -> list[str]:
    """Compare our columns' types with Scout's own schema; metadata may have none of its names."""
    theirs = transcripts_db_schema(format="pyarrow")
    ours = pq.read_schema(next(folder.glob("*.parquet")))
    faults = [
        f"{name} is {ours.field(name).type}, Scout wants {theirs.field(name).type}"
        for name in ours.names
        if name in theirs.names and ours.field(name).type != theirs.field(name).type
    ]
    own = [name for name in ours.names if name in theirs.names]
    if len(own) != OWN or ours.names[:OWN] != own or "filename" in ours.names:
        faults.append(f"expected {OWN} columns of Scout before the metadata, came {ours.names}")
    return faults


def scan(folder: Path, name: str) -> dict[str, pd.DataFrame]:
    """Run Scout's own command over a database and return its results by scanner."""
    scans = folder / f"scans-{name}"
    command = [str(Path(sys.executable).parent / "scout"), "scan", str(HERE / "scout_scan.py")]
    command += ["-T", str(folder / name), "--scans", str(scans), "--max-processes", "1"]
    command += ["--display", "plain"]
    subprocess.run(command, check=True, timeout=200, stdout=subprocess.DEVNULL)
    results = scan_results_df(str(next(scans.glob("scan_id=*"))), rows="transcripts")
    return dict(results.scanners)


def tables(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Read every table with DuckDB, each column without quotes, and with pandas as an attribute."""
    counts: dict[str, int] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("*.parquet")):
        frame = pd.read_parquet(path)
        names = list(frame.columns)
        query = f"SELECT {', '.join(f't.{name}, {name}' for name in names)} FROM '{path}' t"  # noqa: S608
        rows = duckdb.sql(query).df()
        counts[path.stem] = len(rows)
        if len(rows) != len(frame):
            faults.append(f"{path.name}: DuckDB has {len(rows)} rows, pandas {len(frame)}")
        faults += [
            f"{path.name}: {name} hides an attribute of a data frame"
            for name in names
            if hasattr(pd.DataFrame, name)
        ]
        words = duckdb.sql("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category"
                           " <> 'unreserved'").fetchall()  # fmt: skip
        faults += [f"{path.name}: {name} is reserved" for name in names if (name,) in words]
    joined = duckdb.sql(
        f"SELECT count(*), year(min(happened_at)) FROM '{folder}/results.parquet'"  # noqa: S608
        f" JOIN '{folder}/accounts.parquet' USING (account) WHERE NOT exempt"
    ).fetchall()[0]
    if joined[0] != counts["results"] or joined[1] != 2030:
        faults.append(f"results join accounts {joined[0]} times, first at {joined[1]}")
    return counts, faults


if __name__ == "__main__":
    sys.exit(main())
