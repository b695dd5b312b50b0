"""Neighbours: proposed by a model, decided by a person, read back into the file."""

import csv
import io
import json
from pathlib import Path

import pytest
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
    decisions = read_sheet(sheet, document.constitution, name="s")
    made = reviewed(document, path.read_text(encoding="utf-8"), decisions)
    path.write_text(made, encoding="utf-8")
    assert load(path).restricted[0].neighbours == ("new-one", *names)
    assert next(c for c in load(path).permitted if c.id == "new-one").policy == "A # b"


@pytest.mark.parametrize(
    ("decision", "to", "why"),
    [
        ("maybe", "", "line 2: expected accept, reject or relabel, got 'maybe'"),
        ("relabel", "nowhere", "line 2: relabel needs a clause"),
    ],
)
def test_a_wrong_decision_names_its_line(decision: str, to: str, why: str) -> None:
    """A typing error in the sheet is found, with the line."""
    one = NeighbourProposal(id="a", beside="bicycle-mending", title="T", policy="P", ask="")
    sheet = sheet_csv([one]).replace("\r\n,,", f"\r\n{decision},{to},")
    with pytest.raises(DataError, match=why):
        read_sheet(sheet, load(_BIKES), name="sheet.csv")


def test_the_canned_generator_proposes_for_any_subject(tmp_path: Path) -> None:
    """Who tries the tutorial without a model gets a sheet to decide in."""
    with generating(GeneratorServer()) as server:
        assert "2 proposals" in _run(_BIKES, "--generator", server.url, "--sheet", tmp_path)


def test_a_model_that_proposes_nothing_is_an_error(tmp_path: Path) -> None:
    """A refusal gives no empty sheet that looks like a finished review."""
    with generating(GeneratorServer(Habit.REFUSES)) as server, pytest.raises(UpstreamError):
        _run(_BIKES, "--generator", server.url, "--sheet", tmp_path)
    assert not (tmp_path / "neighbours.csv").exists()


_SEEN = st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])


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
    assert len(read_sheet(out.getvalue(), load(_BIKES), name="s")) == len(proposals)
