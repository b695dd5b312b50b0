"""What a command reads: one look at every file that it is given, before any work.

A file in a wrong encoding, a folder, an empty file or one that is cut off is one line with the
option, the file and the place in it. `tests/cli/test_cli_reads.py` goes through the commands about
security and finds files without these types, and readers besides these.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from enum import Enum, auto
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
import msgspec

from safehold.errors import DataError
from safehold.toml_text import parse_toml

T = TypeVar("T")
MOST_BYTES = 64 * 2**20
"""Of a document: what is longer is none that a person wrote."""
_MARKS = {
    b"\xef\xbb\xbf": "a byte order mark before the text",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Form(Enum):
    """What a file must be like, as far as every reader of it agrees."""

    BYTES = auto()
    """Anything, but not nothing."""
    ROWS = auto()
    """Lines of text in any number; their reader judges each."""
    TEXT = auto()
    """UTF-8 without a byte order mark, and no NUL."""
    JSON = auto()
    TOML = auto()


class InFile(click.Path):
    """A file that a command reads."""

    def __init__(self, form: Form, *, made_by: str = "") -> None:
        """Take its form, and the command that makes one, for whoever has none."""
        super().__init__(exists=True, dir_okay=False, path_type=Path)
        self.form = form
        self._made_by = made_by

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path.

        Raises:
            click.BadParameter: There is no such file, or not one of its form; one line says why.
        """
        path = _path(self, value, param, ctx)
        try:
            check(path, self.form)
        except DataError as error:
            made_by = (
                f"; {self._made_by} makes one"
                if self._made_by and not os.path.lexists(path)
                else ""
            )
            self.fail(f"{error}{made_by}", param, ctx)
        return path


class NamedPlace(click.Path):
    """A folder, socket or file that need not be there; the command itself says what it lacks."""

    def __init__(self, *, folder: bool = False, exists: bool = False) -> None:
        """Take whether it is a folder, and whether it must be there."""
        super().__init__(exists=exists, file_okay=not folder, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path.

        Raises:
            click.BadParameter: It is empty, or is not there, or is another thing.
        """
        return Path(os.fsdecode(super().convert(_path(self, value, param, ctx), param, ctx)))


def _path(
    kind: click.Path, value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> Path:
    text = os.fsdecode(value)
    if not text:
        kind.fail("expected a path, got an empty one", param, ctx)
    if "\0" in text:
        kind.fail("expected a path, got one with a NUL character", param, ctx)
    return Path(text)


def any_file(*, made_by: str = "") -> InFile:
    """Return the type of a file of bytes: a program, an archive, evidence."""
    return InFile(Form.BYTES, made_by=made_by)


def rows_file() -> InFile:
    """Return the type of a file of lines, of any length."""
    return InFile(Form.ROWS)


def text_file(*, made_by: str = "") -> InFile:
    """Return the type of a text: a key, a signature, a policy that is signed as it is written."""
    return InFile(Form.TEXT, made_by=made_by)


def json_file(*, made_by: str = "") -> InFile:
    """Return the type of a JSON document."""
    return InFile(Form.JSON, made_by=made_by)


def toml_file(*, made_by: str = "") -> InFile:
    """Return the type of a TOML document."""
    return InFile(Form.TOML, made_by=made_by)


def secret_file() -> NamedPlace:
    """Return the type of a private key or a bearer key: its reader looks at its rights first."""
    return NamedPlace()


def in_folder() -> NamedPlace:
    """Return the type of a folder that is there."""
    return NamedPlace(folder=True, exists=True)


def log_folder() -> NamedPlace:
    """Return the type of a folder of a log, or of its keys: the log says what it lacks."""
    return NamedPlace()


def any_place() -> NamedPlace:
    """Return the type of a socket, or of a file or folder that the command makes or takes."""
    return NamedPlace()


def check(path: Path, form: Form) -> None:
    """Look whether a file is of its form; a pipe can be read once only, and is not looked at.

    Raises:
        DataError: It is not, or can't be read.
    """
    if _is_pipe(path):
        return
    if form is Form.ROWS:
        with _opened(path) as file:
            _checked_text(path, file.read(4096).rpartition(b"\n")[0], whole=False)
        return
    data = read_bytes(path, most=MOST_BYTES if form is not Form.BYTES else None)
    if form is Form.BYTES:
        return
    text = _checked_text(path, data)
    parsers: dict[Form, Callable[[str], object]] = {Form.JSON: _json, Form.TOML: parse_toml}
    if form in parsers:
        try:
            parsers[form](text)
        except RecursionError as error:
            raise DataError(f"{path}: nested too deep to be read") from error
        except ValueError as error:  # of both parsers, with line and column
            raise DataError(f"{path}: expected {form.name}: {in_a_line(error)}") from error


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} (at line {error.lineno}, column {error.colno})") from error


def in_a_line(error: Exception) -> str:
    """Return an error of a parser in one short line."""
    return " ".join(str(error).split())[:200]


def read_bytes(path: Path, *, most: int | None = MOST_BYTES) -> bytes:
    """Return what a file holds.

    Args:
        path: The file.
        most: So many bytes at most; None: any number.

    Raises:
        DataError: It can't be read, is no file, is empty or is longer.
    """
    with _opened(path) as file:
        try:
            data = file.read() if most is None else file.read(most + 1)
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: expected a file with something in it, got an empty one")
    if most is not None and len(data) > most:
        raise DataError(f"{path}: expected at most {most} bytes")
    return data


def read_text(path: Path) -> str:
    """Return the text of a file, whatever the locale's encoding is.

    Raises:
        DataError: As for `read_bytes`, or it is no UTF-8 text; the line is told.
    """
    return _checked_text(path, read_bytes(path))


def read_json(path: Path, kind: type[T], what: str) -> T:
    """Return the typed value of a JSON file.

    Raises:
        DataError: As for `read_text`, or it is no JSON of this type; the member is told.
    """
    text = read_text(path)
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError as error:
        raise DataError(f"{path}: nested too deep to be read") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: expected {what}: {in_a_line(error)}") from error


def read_rows(path: Path, kind: type[T], what: str) -> Iterator[T]:
    """Yield the typed values of a file of JSON lines.

    Raises:
        DataError: It can't be read, or a line is none of this type; the line is told.
    """
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield msgspec.json.decode(line, type=kind)
            except RecursionError as error:
                raise DataError(f"{path}: line {number}: nested too deep to be read") from error
            except msgspec.DecodeError as error:
                said = in_a_line(error)
                raise DataError(f"{path}: line {number}: expected {what}: {said}") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _is_pipe(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode) and not path.is_dir()
    except OSError:
        return False


def _checked_text(path: Path, data: bytes, *, whole: bool = True) -> str:
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise DataError(f"{path}: expected UTF-8 text, got {name}: save it as plain UTF-8")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line}: expected text, got a NUL character")
    if whole and not text.strip():
        raise DataError(f"{path}: expected a file with something in it, got white space alone")
    return text
