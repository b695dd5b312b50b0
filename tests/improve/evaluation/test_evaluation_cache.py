"""A killed evaluation goes on where it stopped, and nothing stale is reported."""

from pathlib import Path

import pytest

from safehold.errors import BusyError, DataError
from safehold.improve.evaluation.cache import code_digest, open_cache, run_key
from safehold.improve.evaluation.interface import ItemScores, Score

SCORES = ItemScores(prompt=Score(1.5, None, blocked=False, escalations=0), reply=None)


def test_scores_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """A line cut short is dropped, the whole ones before it stay, and appending goes on."""
    path = tmp_path / "scores.jsonl"
    with open_cache(path) as cache:
        cache.put("run", "a", SCORES)
        cache.put("run", "b", SCORES)
    path.write_bytes(path.read_bytes()[:-7])
    with open_cache(path) as cache:
        assert cache.get("run", "a") == SCORES
        assert cache.get("run", "b") is None
        cache.put("run", "b", SCORES)
    with open_cache(path) as cache:
        assert cache.get("run", "b") == SCORES


def test_two_evaluations_of_one_folder_are_refused(tmp_path: Path) -> None:
    """The second one is told of the first, whose scores stay whole."""
    path = tmp_path / "scores.jsonl"
    with open_cache(path) as cache:
        with pytest.raises(BusyError, match="another process"), open_cache(path):
            pass
        cache.put("run", "a", SCORES)
    with open_cache(path) as cache:
        assert cache.get("run", "a") == SCORES


def test_foreign_file_refuses(tmp_path: Path) -> None:
    """A file that holds something else is never taken for scores, nor overwritten."""
    path = tmp_path / "scores.jsonl"
    path.write_text('{"precious": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1"), open_cache(path):
        pass
    assert path.read_text(encoding="utf-8") == '{"precious": 1}\n'


@pytest.mark.parametrize("changed", range(4))
def test_any_changed_digest_is_another_run(changed: int) -> None:
    """Another bundle, file, code or variant shares no score."""
    given = ["b", "f", "c", "v"]
    other = [value + "x" if at == changed else value for at, value in enumerate(given)]
    assert run_key(*given) != run_key(*other)


def test_code_digest_is_stable() -> None:
    """The digest depends on the code alone."""
    assert code_digest() == code_digest()
