"""What stands on a disk while others write there."""

from pathlib import Path


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what all files under a folder hold, by path.

    A file may go while it is read (SQLite empties its log into the database): then all of it is
    read again, so that nothing moves past from a file that is still to be read into one that was.
    """
    while True:
        try:
            return {one: one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}
        except FileNotFoundError:
            continue
