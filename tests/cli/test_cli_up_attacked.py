"""`safehold up` before everything that goes wrong for a newcomer: one line, and soon."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.synth import synth
from safehold.cli.up import up
from safehold.errors import ConstitutionError, DataError, SafeholdError, UpstreamError
from safehold.testing.generator import GeneratorServer, Habit, generating

_BIKES = Path(__file__).parents[2] / "examples" / "classes" / "bicycle-repair.yaml"


def _up(*words: object) -> None:
    result = CliRunner().invoke(up, [str(one) for one in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def _one_line(error: SafeholdError, status: int) -> None:
    assert "\n" not in str(error)
    assert error.exit_status == status


@pytest.mark.parametrize(
    ("habit", "why"),
    [
        (Habit.HANGS, "raise --timeout (now 2) or lower --concurrency"),
        (Habit.REFUSES, "mostly: refused"),
        (Habit.MARKUP, "mostly: markup"),
        (Habit.NOT_JSON, "got HTML"),
        (Habit.REPEATS, "mostly: "),
        (Habit.NONSENSE, "mostly: "),
        (Habit.NO_RIGHTS, "no right to this model"),
        (Habit.MOVED, "got a redirect to elsewhere.example (HTTP 308), which is not followed"),
    ],
)
def test_a_bad_generator_ends_it_in_one_line_before_anything_is_trained(
    tmp_path: Path, habit: Habit, why: str
) -> None:
    """Whatever is wrong with the model is exit status 4, said once; no dataset, no bundle."""
    with generating(GeneratorServer(habit)) as server, pytest.raises(UpstreamError) as caught:
        _up(
            _BIKES, "--generator", server.url, "--out", tmp_path / "g",
            "--timeout", "2" if habit is Habit.HANGS else "20",
            "--signing-key", tmp_path / "key.pem",
        )  # fmt: skip
    assert why in str(caught.value)
    _one_line(caught.value, 4)
    assert not (tmp_path / "g" / "data" / "manifest.json").exists()
    assert not (tmp_path / "g" / "bundle").exists()
    assert not (tmp_path / "key.pem").exists()


def test_what_a_hopeless_run_says_makes_the_next_one_ask(tmp_path: Path) -> None:
    """A model that is set right is asked anew when the kept answers are removed, as was said."""
    words = ["--constitution", str(_BIKES), "--out", str(tmp_path / "d"), "--rounds", "1"]
    server = GeneratorServer(Habit.REFUSES)
    with generating(server):
        for _ in range(2):
            result = CliRunner().invoke(synth, [*words, "--generator", server.url])
            assert isinstance(result.exception, UpstreamError)
            assert "without that file" in str(result.exception)
        refused = len(server.asked)
        assert len(set(server.asked)) == refused, "what was answered is not asked for twice"
        (tmp_path / "d" / "calls.jsonl").unlink()
        server.habit = Habit.REPEATS
        server.asked.clear()
        CliRunner().invoke(synth, [*words, "--generator", server.url])
        assert server.asked


@pytest.mark.parametrize("content", ["", "schema: 1\n", "[]\n", "just a text\n", "a: [1\n"])
def test_an_empty_or_torn_constitution_is_one_line(tmp_path: Path, content: str) -> None:
    """It names the file, asks nobody, and is exit status 2."""
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with generating(GeneratorServer()) as server:
        with pytest.raises(ConstitutionError, match=r"mine\.yaml") as caught:
            _up(path, "--generator", server.url, "--out", tmp_path / "g")
        assert server.asked == []
    _one_line(caught.value, 2)


def test_a_clause_without_neighbours_is_named(tmp_path: Path) -> None:
    """Nothing would keep the guard narrow: the clause is named before anybody is asked."""
    path = tmp_path / "mine.yaml"
    text = _BIKES.read_text("utf-8")
    path.write_text(re.sub(r"neighbours: \[[^\]]+\]", "neighbours: []", text), encoding="utf-8")
    with generating(GeneratorServer()) as server:
        with pytest.raises(SafeholdError, match="neighbour") as caught:
            _up(path, "--generator", server.url, "--out", tmp_path / "g")
        assert server.asked == []
    _one_line(caught.value, 2)


@pytest.mark.parametrize(
    "book",
    ["exchanges: [", "side: restricted\nclause: nowhere\nexchanges: []\n", "strange: 1\n", ""],
)
def test_a_broken_book_is_named_with_its_file(tmp_path: Path, book: str) -> None:
    """A seeds folder with one bad book ends it before a call is paid."""
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "wheels.yaml").write_text(book, encoding="utf-8")
    with generating(GeneratorServer()) as server:
        with pytest.raises(DataError, match=r"wheels\.yaml") as caught:
            _up(_BIKES, "--generator", server.url, "--seeds", folder, "--out", tmp_path / "g")
        assert server.asked == []
    _one_line(caught.value, 2)
