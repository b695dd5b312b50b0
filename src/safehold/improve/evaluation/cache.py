"""Scores kept on disk as they come, so that a killed run goes on where it stopped.

A score is valid for one bundle, one data file and one state of the guard's code; it is looked up
by the digests of all three, so nothing stale is ever reported.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from safehold.errors import DataError
from safehold.improve.evaluation.interface import ItemScores
from safehold.record_file import RecordFile

_PACKAGES = ("safehold.exchange", "safehold.guard")


class _Kept(msgspec.Struct, frozen=True):
    run: str
    item: str
    scores: ItemScores


def code_digest() -> str:
    """Return a digest of the code that gives scores (everything below the guard)."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for name, content in sorted(_sources(files(package), package)):
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in ("gateway", "ledger", "__pycache__", "stock"):
            yield from _sources(entry, f"{name}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{name}/{entry.name}", entry.read_bytes()


def run_key(bundle_digest: str, file_digest: str, code: str, variant: str) -> str:
    """Return the key under which one file's scores by one guard are kept."""
    joined = f"{bundle_digest}\n{file_digest}\n{code}\n{variant}"
    return hashlib.sha256(joined.encode()).hexdigest()[:24]


class ScoreCache:
    """The scores of earlier runs, and a file that takes this run's."""

    def __init__(self, kept: dict[tuple[str, str], ItemScores], file: RecordFile) -> None:
        """Take what was read and where to append; `open_cache` makes one."""
        self._kept = kept
        self._file = file

    def get(self, run: str, item: str) -> ItemScores | None:
        """Return an item's scores if they are known."""
        return self._kept.get((run, item))

    def put(self, run: str, item: str, scores: ItemScores) -> None:
        """Keep an item's scores; they are with the operating system when this returns."""
        self._kept[run, item] = scores
        self._file.append(msgspec.json.encode(_Kept(run, item, scores)))


@contextmanager
def open_cache(path: Path) -> Iterator[ScoreCache]:
    """Read a cache and go on appending to it; a line that a kill cut short is dropped.

    Raises:
        BusyError: Another evaluation writes it.
        DataError: The file is not such a cache, or can't be written.
    """
    with RecordFile(path) as file:
        kept = dict(_entry(path, *line) for line in enumerate(file.lines, 1))
        yield ScoreCache(kept, file)


def _entry(path: Path, number: int, line: bytes) -> tuple[tuple[str, str], ItemScores]:
    try:
        entry = msgspec.json.decode(line, type=_Kept)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path.name}, line {number}: not a score; remove the file to score anew"
        ) from error
    return (entry.run, entry.item), entry.scores
