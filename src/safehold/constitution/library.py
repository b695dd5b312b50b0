"""Where constitutions come from: the stock ones, and files."""

from importlib import resources
from pathlib import Path

from safehold.constitution.document import MAX_BYTES, Document, parse
from safehold.constitution.interface import Constitution
from safehold.errors import ConstitutionError

_SUFFIX = ".yaml"


def stock() -> tuple[str, ...]:
    """Return the names of the stock constitutions, sorted."""
    folder = resources.files("safehold.constitution") / "stock"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def load(name_or_path: str | Path) -> Constitution:
    """Return a stock constitution by its name, or the one in a file.

    Raises:
        ConstitutionError: there is neither, or the file can't be read.
        SchemaError: the file breaks the schema.
    """
    return load_document(name_or_path).constitution


def load_document(name_or_path: str | Path) -> Document:
    """Return the same as `load`, with the place of each value in the file.

    A bare word that is a stock name means the stock constitution; `./word` means a file.

    Raises:
        ConstitutionError: there is neither, or the file can't be read.
        SchemaError: the file breaks the schema.
    """
    if isinstance(name_or_path, str) and name_or_path in stock():
        entry = resources.files("safehold.constitution") / "stock" / f"{name_or_path}{_SUFFIX}"
        return parse(entry.read_bytes(), source=entry.name)
    path = Path(name_or_path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConstitutionError(
            f"expected a file or a stock constitution ({', '.join(stock())}), "
            f"got {str(name_or_path)!r}"
        ) from error
    except OSError as error:
        raise ConstitutionError(f"{path}: expected a readable file: {error.strerror}") from error
    return parse(data, source=str(path))
