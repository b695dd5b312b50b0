"""Datasets on disk: digests checked, torn journals resumed, other plans refused."""

from pathlib import Path

import pytest

from safehold.errors import DataError, TamperError
from safehold.improve.synthesis import dataset
from safehold.improve.synthesis.build import Built
from safehold.improve.synthesis.dataset import SynthesisPlan
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
