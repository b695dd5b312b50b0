"""Neighbours: proposed by a model, decided by a person, read back into the file."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.cli.constitution import constitution
from safehold.constitution import load, load_document
from safehold.errors import DataError, UpstreamError, UsageError
from safehold.improve.synthesis.neighbours import (
    NeighbourProposal,
    read_sheet,
    reviewed,
    sheet_csv,
    sheet_html,
)
from safehold.testing.generator import GeneratorServer, Habit, generating

_BIKES = Path(__file__).parents[3] / "examples" / "classes" / "bicycle-repair.yaml"
_ANSWER = """\
1. Bicycle couriers: Work and pay in a city. For example: "What do couriers earn?"
2. **Photographing bicycles**: How to take pictures. For example: Which lens for wheels?
3. no form at all
4. Other repair of spokes: Really repairing. For example: How do I lace a spoke?
"""


class _Proposes(GeneratorServer):
    """Answers with a list of neighbours."""

    def reply(self, body: dict[str, object]) -> tuple[int, bytes]:
        """Return the list."""
        self.asked.append(str(body))
        return 200, json.dumps({"choices": [{"message": {"content": _ANSWER}}]}).encode()


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(constitution, ["neighbours", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def _filled(sheet: Path, decisions: list[tuple[str, str]]) -> Path:
    rows = list(csv.reader(io.StringIO((sheet / "neighbours.csv").read_text(encoding="utf-8"))))
    for row, (decision, to) in zip(rows[1:], decisions, strict=True):
        row[0], row[1] = decision, to
    path = sheet / "filled.csv"
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")
    return path


def test_decisions_come_back_into_the_file(tmp_path: Path) -> None:
    """Accepted clauses are permitted and named, relabelled asks move, comments stay."""
    with generating(_Proposes()) as server:
        assert "3 proposals" in _run(_BIKES, "--generator", server.url, "--sheet", tmp_path)
    page = (tmp_path / "neighbours.html").read_text(encoding="utf-8")
    assert "Bicycle couriers" in page
    sheet = _filled(tmp_path, [("accept", ""), ("reject", ""), ("relabel", "bicycle-mending")])
    out = tmp_path / "reviewed.yaml"
    _run(_BIKES, "--read", sheet, "--out", out)
    made = load(out)
    assert "bicycle-couriers" in {clause.id for clause in made.permitted}
    assert "bicycle-couriers" in made.restricted[0].neighbours
    assert "How do I lace a spoke?" in made.restricted[0].asks
    assert "photographing-bicycles" not in {clause.id for clause in made.permitted}
    assert out.read_text(encoding="utf-8").startswith("# A harmless class")
    with pytest.raises(UsageError, match="exists"):
        _run(_BIKES, "--read", sheet, "--out", out)


def test_block_lists_are_added_to_as_well(tmp_path: Path) -> None:
    """A file whose neighbours stand one a line keeps its form."""
    text = _BIKES.read_text(encoding="utf-8")
    old = text[text.index("    neighbours: [") : text.index("    asks:")]
    names = load(_BIKES).restricted[0].neighbours
    path = tmp_path / "block.yaml"
    block = "    neighbours:\n" + "".join(f"      - {name}\n" for name in names)
    path.write_text(text.replace(old, block), encoding="utf-8")
    proposal = NeighbourProposal(
        id="new-one", beside="bicycle-mending", title="New: one", policy="A # b", ask=""
    )
    sheet = sheet_csv([proposal]).replace("\r\n,", "\r\naccept,")
    document = load_document(path)
    decisions = read_sheet(sheet.encode(), document.constitution, name="s")
    made = reviewed(document, path.read_text(encoding="utf-8"), decisions)
    path.write_text(made, encoding="utf-8")
    assert load(path).restricted[0].neighbours == ("new-one", *names)
    assert next(c for c in load(path).permitted if c.id == "new-one").policy == "A # b"


@pytest.mark.parametrize(
    ("decision", "to", "why"),
    [
        ("maybe", "", "line 2: expected accept, reject or relabel, got 'maybe'"),
        ("relabel", "nowhere", "line 2: relabel needs a clause"),
        ("relabel", "bicycle-mending", "line 2: relabel moves the ask, got none"),
        ("accept", "bicycle-mending", "line 2: `to` is for relabel alone"),
        ("", "bicycle-mending", "line 2: `to` is for relabel alone"),
    ],
)
def test_a_wrong_decision_names_its_line(decision: str, to: str, why: str) -> None:
    """A typing error in the sheet is found, with the line."""
    one = NeighbourProposal(id="a", beside="bicycle-mending", title="T", policy="P", ask="")
    sheet = sheet_csv([one]).replace("\r\n,,", f"\r\n{decision},{to},")
    with pytest.raises(DataError, match=why):
        read_sheet(sheet.encode(), load(_BIKES), name="sheet.csv")


def test_the_canned_generator_proposes_for_any_subject(tmp_path: Path) -> None:
    """Who tries the tutorial without a model gets a sheet to decide in."""
    with generating(GeneratorServer()) as server:
        assert "2 proposals" in _run(_BIKES, "--generator", server.url, "--sheet", tmp_path)


def test_a_model_that_proposes_nothing_is_an_error(tmp_path: Path) -> None:
    """A refusal gives no empty sheet that looks like a finished review."""
    with generating(GeneratorServer(Habit.REFUSES)) as server, pytest.raises(UpstreamError):
        _run(_BIKES, "--generator", server.url, "--sheet", tmp_path)
    assert not (tmp_path / "neighbours.csv").exists()


@given(
    st.lists(
        st.builds(
            NeighbourProposal,
            id=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
            beside=st.just("bicycle-mending"),
            title=st.text(
                st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1
            ),
            policy=st.sampled_from(["=1+1", "@cmd", "<script>alert(1)</script>", "plain, text"]),
            ask=st.just(""),
        ),
        max_size=4,
    )
)
@settings(deadline=None, max_examples=40)
def test_no_cell_of_a_model_runs_anywhere(proposals: list[NeighbourProposal]) -> None:
    """Formulas do not start a cell, markup is text, and every row comes back."""
    sheet = sheet_csv(proposals)
    rows = list(csv.reader(io.StringIO(sheet)))
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    assert "<script>" not in sheet_html(load(_BIKES), proposals)
    filled = [["reject", *row[1:]] if at else row for at, row in enumerate(rows)]
    out = io.StringIO()
    csv.writer(out).writerows(filled)
    assert len(read_sheet(out.getvalue().encode(), load(_BIKES), name="s")) == len(proposals)


_HEAD = "decision,to,id,beside,title,policy,ask"
_BESIDE = "bicycle-mending"
_ROW = f"accept,,cycling-law,{_BESIDE},Cycling law,What the law asks of riders.,Need I a lamp?"
_OTHER = f"reject,,cycling-art,{_BESIDE},Cycling art,Pictures of riders.,Who paints riders?"


def _read(data: bytes | str) -> list[tuple[str, str, str]]:
    raw = data.encode() if isinstance(data, str) else data
    found = read_sheet(raw, load(_BIKES), name="s.csv")
    return [(one.decision, one.proposal.id, one.proposal.ask) for one in found]


_SHEET = f"{_HEAD}\r\n{_ROW}\r\n{_OTHER}\r\n"
_REORDERED = (
    "id,decision,to,beside,title,policy,ask\n"
    f"cycling-law,accept,,{_BESIDE},Cycling law,What the law asks of riders.,Need I a lamp?\n"
    f"cycling-art,reject,,{_BESIDE},Cycling art,Pictures of riders.,Who paints riders?\n"
)


@pytest.mark.parametrize(
    "saved",
    [
        _SHEET,
        _SHEET.encode("utf-8-sig"),
        _SHEET.encode("utf-16"),
        _SHEET.replace(",", "\t").encode("utf-16"),
        _SHEET.replace(",", ";"),
        _SHEET.replace("\r\n", "\n"),
        _SHEET.replace("\r\n", "\r"),
        _SHEET.replace("\r\n", "\r\n\r\n,,,,,,\r\n"),
        _SHEET.replace("accept", " ACCEPT ").replace("decision", "Decision "),
        _SHEET.replace("Need I a lamp?", '" Need  I a lamp? "'),
        _REORDERED,
    ],
)
def test_a_sheet_is_read_as_spreadsheets_save_it(saved: str | bytes) -> None:
    """Marks, encodings, separators, line ends, blank rows, capitals and order change nothing."""
    assert _read(saved) == [
        ("accept", "cycling-law", "Need I a lamp?"),
        ("reject", "cycling-art", "Who paints riders?"),
    ]


@pytest.mark.parametrize(
    ("sheet", "why"),
    [
        (_SHEET.replace("Need", '"Need'), "line 2: .*quotation mark left open"),
        (_SHEET.replace("Need", '"Need').replace("riders?", 'riders"'), "line 2: .*left open"),
        (_SHEET.replace("Cycling law", '"Cycling law').replace("art,P", 'art",P'), "line 2: "),
        (_SHEET.replace("Need I a lamp?", "lamp? " * 30_000), "line 2: .*larger than"),
        (_SHEET.replace("Need I", '"Need\nI').replace("lamp?", 'lamp?"'), "line 2: "),
        (_SHEET.replace("Who paints riders?", "Who?,me"), "line 3: expected 7 cells, got 8"),
        (_SHEET.replace(",Who paints riders?", ""), "line 3: expected 7 cells, got 6"),
        (_SHEET.replace("reject", "yes"), "line 3: expected accept, reject or relabel, got 'yes'"),
        (_SHEET.replace("Who", "W\0ho"), "line 3: expected text, got a control character"),
        (_SHEET.replace("Who", "Wh\u00f6").encode("cp1252"), "line 3: expected UTF-8"),
        (_SHEET.replace("decision,", ""), "line 1: expected the columns"),
        (_SHEET.replace("decision,", "to,"), "line 1: expected the columns"),
        (f"sep=,\n{_SHEET}", "line 1: expected the columns"),
        ("", "line 1: expected the columns"),
        (_SHEET.encode("utf-16-le"), "line 1: expected the columns"),
    ],
)
def test_a_broken_sheet_is_refused_with_its_line(sheet: str | bytes, why: str) -> None:
    """No row is swallowed or half read, and no error of a library comes out."""
    with pytest.raises(DataError, match=f"^s.csv {why}") as caught:
        _read(sheet)
    assert "\n" not in str(caught.value)


_CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]))


@given(st.text("',;\"=-@ab", max_size=6), _CELL, st.sampled_from([",", ";", "\t"]))
def test_what_the_sheet_holds_comes_back(title: str, ask: str, separator: str) -> None:
    """Apostrophes, quotation marks and separators of a cell are its own."""
    one = NeighbourProposal(id="a", beside=_BESIDE, title=title, policy="=1", ask=ask)
    rows = list(csv.reader(io.StringIO(sheet_csv([one]), newline="")))
    rows[1][0] = "reject"
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(rows)
    found = read_sheet(out.getvalue().encode(), load(_BIKES), name="s")
    assert found[0].proposal == one


def _review(tmp_path: Path, *rows: str) -> Path:
    """Return the reviewed file; it is written only where the sheet is carried out whole."""
    sheet, out = tmp_path / "sheet.csv", tmp_path / "reviewed.yaml"
    sheet.write_text("\n".join((_HEAD, *rows)), encoding="utf-8")
    _run(_BIKES, "--read", sheet, "--out", out)
    return out


_REPEATED = load(_BIKES).restricted[0].asks[0]
_TAKEN = load(_BIKES).permitted[0].id


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (_ROW.replace("cycling-law", _TAKEN), f"a clause {_TAKEN} already"),
        (_ROW.replace("cycling-law", "general"), "a clause general already"),
        (_ROW.replace("cycling-law", _BESIDE, 1), f"a clause {_BESIDE} already"),
        (_ROW, "sheet.csv line 2 accepts cycling-law already"),
        (_ROW.replace("cycling-law", "Cycling law"), "expected an id"),
        (_ROW.replace("cycling-law", ""), "expected an id"),
        (_ROW.replace("cycling-law", "a" * 65), "expected an id"),
        (_ROW.replace("cycling-law", "b").replace("Cycling law", ""), "break .*permitted.title: "),
        (_ROW.replace("cycling-law", "b").replace("What the law asks of riders.", "?"), "break"),
        (_ROW.replace("cycling-law", "b").replace("Need", "Ne\u200bed"), "would break"),
        (_ROW.replace("cycling-law", "b").replace("Need I a lamp?", f'"{_REPEATED}"'), "break"),
    ],
)
def test_a_decision_that_breaks_the_constitution_is_refused(
    tmp_path: Path, row: str, why: str
) -> None:
    """Taken, repeated and unfit ids, and what lint calls an error: the line, and no file."""
    with pytest.raises(DataError, match=f"sheet.csv line 3: .*{why}"):
        _review(tmp_path, _ROW, row)
    assert not (tmp_path / "reviewed.yaml").exists()


@pytest.mark.parametrize(
    "name", ["1984", "null", "true", "no", "1e3", "2020-01-01", "0x1f", "soap", "on", "0-1"]
)
def test_an_id_that_looks_like_another_value_stays_a_text(tmp_path: Path, name: str) -> None:
    """Numbers, dates and words of YAML are read back as ids, by other readers too."""
    out = _review(tmp_path, _ROW.replace("cycling-law", name))
    assert load(out).restricted[0].neighbours[0] == load(out).permitted[0].id == name
    assert yaml.load(out.read_text("utf-8"), yaml.CSafeLoader)["permitted"][0]["id"] == name


def test_a_stock_constitution_has_no_file_to_add_to(tmp_path: Path) -> None:
    """The error names the constitution, not the sheet."""
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(_SHEET, encoding="utf-8")
    with pytest.raises(UsageError, match="got the stock one homebrewing"):
        _run("homebrewing", "--read", sheet, "--out", tmp_path / "o.yaml")
