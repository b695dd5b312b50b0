"""Datasets on disk: digests checked, torn journals resumed, other plans refused."""

from pathlib import Path

import msgspec
import pytest

from safehold.errors import DataError, TamperError
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.build import Built
from safehold.improve.synthesis.dataset import ExampleJournal, SynthesisPlan
from safehold.improve.synthesis.interface import Split

_PLAN = SynthesisPlan(
    domain="homebrewing",
    constitution="c0ffee",
    generators=("written",),
    seed=3,
    target=10,
    seed_books="",
)


def test_an_altered_dataset_is_refused(tmp_path: Path, built: Built) -> None:
    """One changed byte in the examples is found before any example is read."""
    dataset.write(tmp_path, _PLAN, built.examples[:20], base=20, dropped=0)
    file = tmp_path / dataset.EXAMPLES
    file.write_bytes(file.read_bytes().replace(b"restricted", b"permitted_", 1))
    with pytest.raises(TamperError, match="digest"):
        list(dataset.read(tmp_path))


def test_a_dataset_without_manifest_is_unfinished(tmp_path: Path, built: Built) -> None:
    """Examples alone are no dataset."""
    dataset.write(tmp_path, _PLAN, built.examples[:5], base=5, dropped=0)
    (tmp_path / dataset.MANIFEST).unlink()
    with pytest.raises(DataError, match="no finished dataset"):
        list(dataset.read(tmp_path))


def test_examples_come_back_as_they_were_written(tmp_path: Path, built: Built) -> None:
    """Reading gives the written examples, and one split only where one is asked for."""
    kept = built.examples[:60]
    manifest = dataset.write(tmp_path, _PLAN, kept, base=60, dropped=0)
    assert tuple(dataset.read(tmp_path)) == kept
    test = list(dataset.read(tmp_path, Split.TEST))
    assert len(test) == sum(n for name, n in manifest.splits.items() if name.startswith("test"))
    assert not (tmp_path / dataset.JOURNAL).exists()


def test_a_torn_journal_goes_on_after_its_last_whole_line(tmp_path: Path, built: Built) -> None:
    """What a crash cut in half is generated again, what was whole is kept."""
    journal = ExampleJournal(tmp_path, _PLAN)
    list(journal.keep(built.examples[:4]))
    path = tmp_path / dataset.JOURNAL
    path.write_bytes(path.read_bytes()[:-30])
    again = ExampleJournal(tmp_path, _PLAN)
    assert again.examples == list(built.examples[:3])
    list(again.keep(built.examples[3:5]))
    assert ExampleJournal(tmp_path, _PLAN).examples == list(built.examples[:5])


def test_the_journal_of_another_plan_is_refused(tmp_path: Path, built: Built) -> None:
    """Two runs with different options never mix in one folder."""
    list(ExampleJournal(tmp_path, _PLAN).keep(built.examples[:1]))
    with pytest.raises(DataError, match="other options"):
        ExampleJournal(tmp_path, msgspec.structs.replace(_PLAN, seed=4))


def test_a_foreign_journal_is_refused(tmp_path: Path) -> None:
    """A file that is no journal is not written over."""
    (tmp_path / dataset.JOURNAL).write_text("my notes\nmore notes\n")
    with pytest.raises(DataError):
        ExampleJournal(tmp_path, _PLAN)
    assert (tmp_path / dataset.JOURNAL).read_text().startswith("my notes")
