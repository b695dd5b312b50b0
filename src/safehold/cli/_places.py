"""Where a command writes: an impossible place is refused before the work whose result goes there.

`tests/cli/test_cli_places.py` finds options of the commands about an own class without these types.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from safehold.errors import UsageError


class OutPlace(click.Path):
    """A place where something can be written; nothing is made or changed by looking."""

    def __init__(self, *, folder: bool, makes_folders: bool, kept: bool = False) -> None:
        """Take whether it is a folder, and whether the command makes the folders above it.

        With `kept`, what stands there already is only read, and `~` is the home folder.
        """
        super().__init__(file_okay=not folder, dir_okay=folder, path_type=Path)
        self._makes_folders = makes_folders
        self._kept = kept

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path.

        Raises:
            click.BadParameter: Nothing can be written there; one line says why.
        """
        if not str(value):
            self.fail("expected a path, got an empty one", param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self._kept and _left_out(param, ctx):
            return path  # with --unsigned no key is made
        try:
            self._try(Path(os.path.realpath(path.expanduser() if self._kept else path)))
        except OSError as error:
            said = f"{path}: expected a place that can be written to: {error.strerror}"
            self.fail(said, param, ctx)
        return path

    def _try(self, real: Path) -> None:
        """Write a file without a name where the place is, or would be made."""
        base = real
        if not real.is_dir():
            try:
                real.stat()
            except FileNotFoundError:
                base = real.parent
            else:
                if self.dir_okay:
                    raise NotADirectoryError(None, "it is no folder")
                if not (self._kept or os.access(real, os.W_OK)):
                    raise PermissionError(None, "it is read-only")
                return
        while self._makes_folders and not os.path.lexists(base):
            base = base.parent
        with tempfile.TemporaryFile(dir=base):
            pass


def _left_out(param: click.Parameter | None, ctx: click.Context | None) -> bool:
    """Whether the value is the option's default."""
    if ctx is None or param is None or param.name is None:
        return False
    return ctx.get_parameter_source(param.name) is ParameterSource.DEFAULT


def out_file(*, makes_folders: bool = False) -> OutPlace:
    """Return the type of an option that names a file to write."""
    return OutPlace(folder=False, makes_folders=makes_folders)


def out_folder() -> OutPlace:
    """Return the type of an option that names a folder to fill; it is made where it is missing."""
    return OutPlace(folder=True, makes_folders=True)


def key_file() -> OutPlace:
    """Return the type of an option that names a key to read, or to make where it is missing."""
    return OutPlace(folder=False, makes_folders=True, kept=True)


def write_new(path: Path, text: str) -> None:
    """Write a text file where there is none.

    Raises:
        UsageError: There is something, or it can't be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path} exists; choose another name or remove it") from error
    except OSError as error:
        raise UsageError(f"{path}: expected a writable place: {error.strerror}") from error


def write_over(path: Path, content: bytes) -> None:
    """Write a file, in place of what it held.

    Raises:
        UsageError: It can't be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{path}: expected a writable place: {error.strerror}") from error
