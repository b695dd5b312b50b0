"""What a training has computed so far, kept beside the bundle until the bundle is written.

A training that ends early goes on after the last part that was kept, and its bundle has the same
bytes as that of a training which nothing ended. The parts stand in `.NAME.unfinished/` beside the
bundle `NAME`. Each appears whole, under its digest, in a folder that nobody else may write to, next
to a record of what they were computed from: parts of other data, another seed or other code are
never used.
"""

import hashlib
import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

import safehold
from safehold.errors import DataError
from safehold.improve.synthesis.interface import Example
from safehold.progress import Progress
from safehold.record_file import claim

PACKAGES = ("numpy", "torch", "onnx", "onnxruntime")
_MADE_OF = "made-of.json"
_LOCK = "lock"
_PART = ".part"
_DIGEST = hashlib.sha256().digest_size
_EVERY_S = 120.0
_EXAMPLES_AT_ONCE = 100
_COUNTED = ("guard", "improve", "exchange")
"""Packages whose code decides what comes of a training."""
_OTHERS_WRITE = 0o022
_Kind = TypeVar("_Kind")


class Checkpoints:
    """Takes the parts of a training and gives them back; this one keeps nothing."""

    def read(self, name: str) -> bytes | None:
        """Return a part that was kept; None where it is still to be computed."""
        del name
        return None

    def keep(self, name: str, content: bytes) -> None:
        """Keep a part, in place of an earlier one of that name."""

    def forget(self, name: str) -> None:
        """Forget a part that another one has replaced."""

    def due(self) -> bool:
        """Whether so much was computed since the last part that it is worth keeping."""
        return False

    def clear(self) -> None:
        """Forget all: the bundle is written."""


class KeptCheckpoints(Checkpoints):
    """Keeps the parts in a folder of the file system, whose lock it holds until it is closed."""

    def __init__(self, folder: Path, lock: int, every_s: float) -> None:
        """Take the folder and the descriptor of its lock."""
        self._folder = folder
        self._lock = lock
        self._every_s = every_s
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back; what was kept stays."""
        os.close(self._lock)

    def names(self) -> tuple[str, ...]:
        """Return what was kept, in order of the names."""
        return tuple(sorted(path.stem for path in self._folder.glob(f"*{_PART}")))

    def read(self, name: str) -> bytes | None:
        """Return a part that was kept; None where there is none.

        Raises:
            DataError: The file is not what was written.
        """
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(
                f"{path}: can't be read ({error.strerror}); {_anew(path.parent)}"
            ) from (error)
        body = content[_DIGEST:]
        if hashlib.sha256(body).digest() != content[:_DIGEST]:
            raise DataError(
                f"{path}: expected what training wrote, got other bytes; {_anew(path.parent)}"
            )
        return body

    def keep(self, name: str, content: bytes) -> None:
        """Keep a part: it is on the disk whole, or the earlier one still is.

        Raises:
            DataError: The disk does not take it.
        """
        _replace(self._path(name), hashlib.sha256(content).digest() + content)
        self._last = time.monotonic()

    def forget(self, name: str) -> None:
        """Remove a part."""
        self._path(name).unlink(missing_ok=True)

    def due(self) -> bool:
        """Whether the last part was kept long enough ago."""
        return time.monotonic() - self._last >= self._every_s

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_PART}"


NOTHING_KEPT = Checkpoints()


def unfinished(bundle: Path) -> Path:
    """Return where the parts of a bundle that is being trained stand."""
    return bundle.with_name(f".{bundle.name}.unfinished")


def made_of(examples: Sequence[Example], **others: object) -> dict[str, str]:
    """Return the digests of all that a training depends on: data, code, packages, the others."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(msgspec.json.encode(example) + b"\n")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    found = {"data": digest.hexdigest(), "code": _code(), "packages": packages}
    for name, value in others.items():
        content = value if isinstance(value, bytes) else msgspec.json.encode(value)
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def kept_beside(
    bundle: Path, record: Mapping[str, str], *, anew: bool = False, every_s: float = _EVERY_S
) -> KeptCheckpoints:
    """Return what was kept of the training of a bundle; nothing where it begins.

    Parts of a training of something else are refused, or with `anew` removed.

    Raises:
        DataError: They are of something else, another process trains this bundle, or others may
            write to the folder.
    """
    folder = unfinished(bundle)
    lock = _locked(folder, bundle)
    with ExitStack() as refused:
        refused.callback(os.close, lock)
        _fitting(folder, dict(record), anew=anew)
        refused.pop_all()  # whoever takes the parts closes the lock
    return KeptCheckpoints(folder, lock, every_s)


def discard(bundle: Path) -> None:
    """Remove what is left of the training of a bundle that is written.

    Raises:
        DataError: Another process trains it.
    """
    folder = unfinished(bundle)
    if folder.is_dir() and not folder.is_symlink():
        lock = _locked(folder, bundle)
        try:
            shutil.rmtree(folder)
        finally:
            os.close(lock)


def through(kept: Checkpoints, name: str, kind: type[_Kind], compute: Callable[[], _Kind]) -> _Kind:
    """Return a part that was kept, else compute and keep it.

    Raises:
        DataError: What was kept is of another form.
    """
    content = kept.read(name)
    if content is None:
        value = compute()
        kept.keep(name, msgspec.msgpack.encode(value))
        return value
    return decoded(name, content, kind)


def decoded(name: str, content: bytes, kind: type[_Kind]) -> _Kind:
    """Return the value of a part.

    Raises:
        DataError: It is of another form.
    """
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(f"{name}{_PART}: not what training keeps: {error}") from error


def in_parts(
    kept: Checkpoints,
    name: str,
    examples: Sequence[Example],
    kind: type[_Kind],
    progress: Progress,
    compute: Callable[[Sequence[Example]], list[_Kind]],
) -> list[_Kind]:
    """Return what `compute` gives for the examples, a hundred at a time, each hundred kept."""
    found: list[_Kind] = []
    for at in range(0, len(examples), _EXAMPLES_AT_ONCE):
        some = examples[at : at + _EXAMPLES_AT_ONCE]
        part = f"{name}.{at // _EXAMPLES_AT_ONCE}"
        content = kept.read(part)
        if content is None:
            values = compute(some)
            kept.keep(part, msgspec.msgpack.encode(values))
            found += values
        else:
            found += decoded(part, content, list[kind])  # type: ignore[valid-type]
            progress.advance(len(some))
    return found


def _code() -> str:
    digest = hashlib.sha256()
    root = Path(safehold.__file__).parent
    for path in sorted(path for name in _COUNTED for path in (root / name).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _anew(folder: Path) -> str:
    return f"to train anew: rm -r {folder}"


def _locked(folder: Path, bundle: Path) -> int:
    """Make the folder, see that nobody else may write to it, and lock it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: can't be used as a folder ({error.strerror})") from error
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
        raise DataError(f"{folder}: expected a folder that only you may write to; {_anew(folder)}")
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with ExitStack() as refused:
        refused.callback(os.close, lock)
        claim(lock, f"{bundle} is being trained")
        refused.pop_all()
    return lock


def _fitting(folder: Path, record: dict[str, str], *, anew: bool) -> None:
    try:
        before = msgspec.json.decode((folder / _MADE_OF).read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
        before = {}
    parts = list(folder.glob(f"*{_PART}"))
    if before == record:
        return
    if parts and not anew:
        other = sorted(name for name in {*record, *before} if record.get(name) != before.get(name))
        raise DataError(
            f"{folder} is of a training with other {' and '.join(other)}: repeat that command to "
            f"go on with it; {_anew(folder)}"
        )
    for path in parts:
        path.unlink()
    _replace(folder / _MADE_OF, msgspec.json.encode(record))


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(
            f"{path}: can't be written ({error.strerror}); what was kept before is still there"
        ) from error
