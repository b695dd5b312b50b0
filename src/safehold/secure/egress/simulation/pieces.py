"""Pieces of a long simulation, kept on disk, so that a run that was killed goes on."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from safehold.errors import DataError
from safehold.secure.egress.enforcement.state import write_durably

T = TypeVar("T")
_DIGITS = 16


class Pieces:
    """Finished pieces of the simulations with one `setting`, by name; none without a folder.

    A file's name has the digest of the setting, so that other seeds, hosts or correlations keep
    theirs in the same folder.
    """

    def __init__(self, folder: Path | None, setting: object) -> None:
        self._folder = folder
        self._digest = hashlib.sha256(msgspec.json.encode(setting)).hexdigest()[:_DIGITS]

    def once(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """Return the piece of this name: read it where it is kept, else make and keep it.

        Raises:
            DataError: A kept piece is of another release or damaged, or can't be read.
            StateError: The folder can't be written.
        """
        if self._folder is None:
            return make()
        path = self._folder / f"{self._digest}-{name}.msgpack"
        try:
            if path.exists():
                return msgspec.msgpack.decode(path.read_bytes(), type=kind)
            self._folder.mkdir(parents=True, exist_ok=True)
            made = make()
            write_durably(path, msgspec.msgpack.encode(made))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise DataError(f"{path.name}: no piece of this release; delete it") from error
        except OSError as error:
            raise DataError(f"{path}: can't be kept ({error.strerror})") from error
        return made
