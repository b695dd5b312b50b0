"""What leaves the monitor for other tools: all rows, no content unasked, no reserved names."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from sqlalchemy import insert

from safehold.cli.monitor import monitor
from safehold.detect.monitoring import export_tables, export_transcripts
from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import Caps
from safehold.detect.monitoring.export_messages import messages
from safehold.detect.monitoring.scan.interface import ScannerSpec
from safehold.detect.monitoring.scan.scanners import load_scanner
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.detect.monitoring.tables import LABELS, MonitorStore
from safehold.exchange import Channel, Exchange, Lane, OpaquePart, Role, TextPart, Turn
from safehold.guard.ledger.holds import hold
from safehold.guard.ledger.interface import Delivered, FinalRow, Latency, PromptRow
from safehold.guard.ledger.joined import Joined
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.sealing import VARIABLE, make_key
from safehold.testing.ledger import NOW, RowMaker
from safehold.testing.monitoring import fill, kept

# Every schema field of inspect-scout 0.6.1, and `filename`: its `reserved_columns()`.
_SCOUT = [
    "transcript_id",
    "source_type",
    "source_id",
    "source_uri",
    "date",
    "task_set",
    "task_id",
    "task_repeat",
    "agent",
    "agent_args",
    "model",
    "model_options",
    "score",
    "score_explanation",
    "success",
    "message_count",
    "total_time",
    "total_tokens",
    "error",
    "limit",
    "trust_content",
    "messages",
    "events",
    "timelines",
    "events_data",
    "filename",
]
# What DuckDB 1.5's `duckdb_keywords()` does not call unreserved.
_DUCKDB = [
    "all",
    "analyse",
    "analyze",
    "and",
    "anti",
    "any",
    "array",
    "as",
    "asc",
    "asof",
    "asymmetric",
    "at",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "columns",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "describe",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "generated",
    "glob",
    "group",
    "grouping",
    "grouping_id",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lambda",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "map",
    "national",
    "natural",
    "nchar",
    "none",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "pivot",
    "pivot_longer",
    "pivot_wider",
    "placing",
    "position",
    "positional",
    "precision",
    "primary",
    "qualify",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "semi",
    "setof",
    "show",
    "similar",
    "smallint",
    "some",
    "struct",
    "substring",
    "summarize",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "try_cast",
    "union",
    "unique",
    "unpack",
    "unpivot",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
]
# What a data frame of pandas has of its own, as far as a table might want it.
_PANDAS = [
    "abs",
    "agg",
    "all",
    "any",
    "apply",
    "at",
    "attrs",
    "axes",
    "clip",
    "columns",
    "compare",
    "corr",
    "count",
    "cov",
    "diff",
    "dot",
    "dtypes",
    "empty",
    "eq",
    "eval",
    "explode",
    "filter",
    "first",
    "flags",
    "ge",
    "get",
    "groupby",
    "gt",
    "head",
    "hist",
    "iat",
    "idxmax",
    "idxmin",
    "iloc",
    "index",
    "info",
    "insert",
    "items",
    "join",
    "keys",
    "kurt",
    "last",
    "le",
    "loc",
    "lt",
    "mask",
    "max",
    "mean",
    "median",
    "melt",
    "merge",
    "min",
    "mod",
    "mode",
    "mul",
    "ne",
    "ndim",
    "nunique",
    "pipe",
    "pivot",
    "plot",
    "pop",
    "pow",
    "prod",
    "quantile",
    "query",
    "rank",
    "replace",
    "sample",
    "sem",
    "set_index",
    "shape",
    "shift",
    "size",
    "skew",
    "stack",
    "std",
    "style",
    "sub",
    "sum",
    "swaplevel",
    "tail",
    "take",
    "transform",
    "transpose",
    "unstack",
    "update",
    "value_counts",
    "values",
    "var",
    "where",
    "xs",
]


def _rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return found


def _scan(ledger: str, store: str) -> None:
    worker = ScanWorker(ScanJob(ledger, store, ScannerSpec("decoded"), load_scanner), "one")
    worker.queue.plan(LedgerReader.open(ledger), name="decoded")
    while worker.step():
        pass


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A ledger of 60 exchanges, scanned, with accounts: one of them is always stopped."""
    ledger, store = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    asked = [("honest", f"question {n} about bread and salt", False) for n in range(10)]
    asked += [("bad", f"the very same rare wording of the asker {n}", True) for n in range(50)]
    fill(ledger, asked)
    at = ["--ledger", ledger, "--monitor", store]
    _scan(ledger, store)
    book = AccountBook(MonitorStore.open(store), caps=Caps())
    book.follow(LedgerReader.open(ledger))
    return at


def test_both_exports_hold_every_row_once(places: list[str], tmp_path: Path) -> None:
    """Exchanges, results, accounts and labels arrive with their values; files are their owner's."""
    scout, tables = tmp_path / "scout", tmp_path / "tables"
    to = ["export", "--scout", str(scout), "--parquet", str(tables), "--json"]
    done = CliRunner().invoke(monitor, [*places, *to])
    assert done.exit_code == 0, done.output
    told = {file["name"]: file["rows"] for file in json.loads(done.output)["files"]}
    assert told["transcripts_safehold.parquet"] == told["results.parquet"] == 60
    transcripts = {row["transcript_id"]: row for row in _rows(scout / export_transcripts.FILE)}
    assert len(transcripts) == 60
    results = _rows(tables / "results.parquet")
    assert {row["decision_id"] for row in results} == set(transcripts)
    assert {row["scanner_name"] for row in results} == {"decoded"}
    for row in results:
        twin = transcripts[row["decision_id"]]
        assert twin["rescan_decoded"] == row["scanner_value"]
        assert (twin["ledger_seq"], twin["agent"]) == (row["ledger_seq"], row["account"])
    stopped = {
        row["account"]: row["exchanges_stopped"] for row in _rows(tables / "accounts.parquet")
    }
    assert stopped == {"honest": 0, "bad": 50}
    assert {row["account"] for row in _rows(tables / "labels.parquet")} == {"bad"}
    assert transcripts["d0"]["account_labels"] is None
    labels = {row["account_label"] for row in _rows(tables / "labels.parquet")}
    assert set(transcripts["d59"]["account_labels"].split(",")) == labels
    assert transcripts["d59"]["guard_stopped"]
    assert not transcripts["d0"]["guard_stopped"]
    for folder in (scout, tables):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_a_running_export_holds_up_no_writer_and_sees_one_moment(
    storage: str, tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """What the monitor writes in the middle is kept at once, and is in no file of that export."""
    sqlite = storage == "sqlite"
    ledger = str(tmp_path / "l.db") if sqlite else new_database()
    url = str(tmp_path / "m.db") if sqlite else new_database()
    fill(ledger, [("a", f"question {n}", False) for n in range(20)])
    _scan(ledger, url)
    store, reader = MonitorStore.open(url), LedgerReader.open(ledger)
    other = MonitorStore.open(url, wait_s=0.2)
    AccountBook(store, caps=Caps()).follow(reader)
    said: list[int] = []

    def write(_: int) -> None:
        label = {"account": f"new{len(said)}", "label": "l", "reason": "r", "evidence": "[]"}
        said.append(1)
        with other.begin() as connection:
            about = {"since": NOW, "expires": NOW + 1, "queries": 1}
            connection.execute(insert(LABELS), {**label, **about})

    tables, scout = tmp_path / "tables", tmp_path / "scout"
    export_tables.export_tables(store, reader, tables, progress=write)
    assert said
    assert _rows(tables / "labels.parquet") == []
    assert len(_rows(tables / "results.parquet")) == 20
    before = len(said)
    export_transcripts.export_transcripts(
        store, reader, scout, content=False, now=NOW, progress=write
    )
    assert len(said) > before
    assert len(_rows(scout / export_transcripts.FILE)) == 20


def test_content_leaves_only_when_it_is_asked_for(places: list[str], tmp_path: Path) -> None:
    """Without --content no word of an exchange is in any file; with it, each message is whole."""
    bare, whole, tables = tmp_path / "bare", tmp_path / "whole", tmp_path / "tables"
    CliRunner().invoke(monitor, [*places, "export", "--scout", str(bare), "--parquet", str(tables)])
    CliRunner().invoke(monitor, [*places, "export", "--scout", str(whole), "--content"])
    for path in (*bare.iterdir(), *tables.iterdir()):
        text = path.read_text() if path.suffix == ".json" else str(_rows(path))
        assert not any(word in text for word in ("bread", "rare wording", "malted"))
    row = _rows(whole / export_transcripts.FILE)[0]
    said = json.loads(row["messages"])
    assert [one["role"] for one in said] == ["user", "assistant"]
    assert said[0]["content"][0]["text"] == "question 0 about bread and salt"
    assert (row["content_state"], row["message_count"]) == ("whole", 2)
    left = _rows(bare / export_transcripts.FILE)[0]
    assert json.loads(left["messages"])[0]["content"] == "[31 characters]"
    assert left["content_state"] == "left out"


def test_content_that_a_hold_keeps_encrypted_stays_in(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with the key at hand, held content is left out; its neighbours' is not."""
    make_key(tmp_path / "key")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "key"))
    hold(places[1], ["d3"], holder="case", until=NOW + 1e6, now=NOW)
    CliRunner().invoke(monitor, [*places, "export", "--scout", str(tmp_path / "out"), "--content"])
    rows = {row["transcript_id"]: row for row in _rows(tmp_path / "out" / export_transcripts.FILE)}
    assert rows["d3"]["content_state"] == "held encrypted"
    assert "bread" not in rows["d3"]["messages"]
    assert "bread" in rows["d4"]["messages"]


def test_no_column_has_a_name_that_a_reader_reserves() -> None:
    """Metadata is no column of Scout; DuckDB needs no quotes, and pandas has nothing hidden."""
    assert not set(export_transcripts.METADATA) & set(_SCOUT)
    assert set(export_transcripts.COLUMNS) < set(_SCOUT)
    for columns in (export_transcripts.METADATA, *export_tables.TABLES.values()):
        assert not set(columns) & {*_DUCKDB, *_PANDAS}


def test_an_export_changes_nothing_and_is_never_overwritten(
    places: list[str], tmp_path: Path
) -> None:
    """A second export is the first, byte for byte; a folder with any table in it refuses."""
    out, again, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (out, again):
        done = CliRunner().invoke(monitor, [*places, "export", "--parquet", str(folder)])
        assert done.exit_code == 0, done.output
    for path in out.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    other.mkdir()
    (other / "theirs.parquet").write_bytes(b"")
    for option, folder in (("--parquet", out), ("--scout", out), ("--scout", other)):
        done = CliRunner().invoke(monitor, [*places, "export", option, str(folder)])
        assert done.exit_code != 0
        assert "without an export" in str(done.exception or done.output)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "--scout DIR, --parquet DIR"),
        (["--parquet", "out", "--content"], "--content goes with --scout"),
        (["--parquet", "out", "--scout", "./out"], "two folders"),
    ],
)
def test_an_unclear_wish_is_refused(words: list[str], why: str, places: list[str]) -> None:
    """Nothing, content without transcripts, or two databases in one folder: one line says what."""
    done = CliRunner().invoke(monitor, [*places, "export", *words])
    assert done.exit_code != 0
    assert why in str(done.exception or done.output)


def test_an_export_goes_on_where_the_last_one_ended(places: list[str], tmp_path: Path) -> None:
    """`--after` takes the manifest's last number and leaves nothing out."""
    out, rest = tmp_path / "out", tmp_path / "rest"
    CliRunner().invoke(monitor, [*places, "export", "--scout", str(out)])
    last = json.loads((out / "manifest.json").read_text())["files"][0]["last_seq"]
    rows = RowMaker()
    kept(places[1], rows.prompt("new"), rows.final("new"))
    to = ["export", "--scout", str(rest), "--after", str(last)]
    CliRunner().invoke(monitor, [*places, *to])
    assert [row["transcript_id"] for row in _rows(rest / export_transcripts.FILE)] == ["new"]


def test_clocks_without_a_date_and_pruned_prompts_are_exported(tmp_path: Path) -> None:
    """A time beyond every calendar becomes null; an exchange without its prompt stays."""
    ledger, rows = str(tmp_path / "l.db"), RowMaker()
    kept(ledger, rows.prompt("far", at=1e18), rows.final("far", at=1e18), rows.final("alone"))
    at = ["--ledger", ledger, "--monitor", str(tmp_path / "m.db")]
    _scan(ledger, at[3])
    scout, tables = tmp_path / "scout", tmp_path / "tables"
    to = ["--scout", str(scout), "--parquet", str(tables), "--content"]
    done = CliRunner().invoke(monitor, [*at, "export", *to])
    assert done.exit_code == 0, done.output
    found = {row["transcript_id"]: row for row in _rows(scout / export_transcripts.FILE)}
    assert found["far"]["date"] is None
    assert found["alone"]["content_state"] == "prompt pruned"
    times = {row["decision_id"]: row["happened_at"] for row in _rows(tables / "results.parquet")}
    assert times["far"] is None
    assert times["alone"] is not None


def _joined(turns: tuple[Turn, ...], delivered: tuple[Delivered, ...]) -> Joined:
    rows = RowMaker()
    prompt: PromptRow = rows.prompt("d", exchange=Exchange(turns))
    final: FinalRow = rows.final("d", delivered=delivered, latency=Latency(total_ms=1.0))
    return Joined(seq=1, prompt=prompt, final=final)


def test_tools_reasoning_refusals_and_choices_keep_their_kind() -> None:
    """Calls are calls with arguments, reasoning is reasoning, and each choice is a message."""
    image = OpaquePart("image/png", "0" * 64, 12)
    name = TextPart("f", Channel.TOOL_NAME)
    turns = (
        Turn(Role.USER, (TextPart("look"), image)),
        Turn(Role.ASSISTANT, (name, TextPart('{"a":1}', Channel.TOOL_ARGUMENTS))),
        Turn(Role.TOOL, (TextPart("42", Channel.TOOL_RESULT),)),
    )  # fmt: skip
    delivered = (
        Delivered(Lane(0, Channel.REASONING), "hm"),
        Delivered(Lane(0), "yes"),
        Delivered(Lane(1, Channel.REFUSAL), "no"),
        Delivered(Lane(2, Channel.TOOL_NAME), "g"),
        Delivered(Lane(2, Channel.TOOL_ARGUMENTS), "not json"),
    )
    said = messages(_joined(turns, delivered), content=True)
    assert [one["role"] for one in said] == ["user", "assistant", "tool", *["assistant"] * 3]
    assert "image/png, 12 bytes" in said[0]["content"][1]["text"]
    assert said[1]["tool_calls"][0]["arguments"] == {"a": 1}
    assert said[2]["content"] == [{"type": "text", "text": "42"}]
    assert said[3]["content"][0] == {"type": "reasoning", "reasoning": "hm"}
    assert said[4]["content"][0]["refusal"] is True
    assert said[5]["tool_calls"][0] | {"id": ""} == {
        "id": "", "type": "function", "function": "g", "arguments": {"text": "not json"}
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(Role)), st.sampled_from(list(Channel)), st.text(
            st.characters(exclude_categories=()), max_size=8)),
        max_size=6,
    ),
    st.booleans(),
)  # fmt: skip
def test_any_exchange_becomes_strict_json(
    turns: list[tuple[Role, Channel, str]],
    content: bool,  # noqa: FBT001 - Hypothesis gives it by place
) -> None:
    """Lone surrogates, NUL, channels in any order: a strict reader takes the messages."""
    made = tuple(Turn(role, (TextPart(text, channel),)) for role, channel, text in turns)
    said = messages(_joined(made, ()), content=content)
    assert len(said) == len(turns)
    written = json.dumps(said, ensure_ascii=False).encode("utf-8")
    assert json.loads(written) == said
