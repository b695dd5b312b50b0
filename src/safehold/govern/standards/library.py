"""Documents of standards: stock ones by name, an operator's own by path; histories as files."""

from importlib import resources
from pathlib import Path

import msgspec

from safehold.errors import ConfigError
from safehold.trust.demands.document import parse_standards
from safehold.trust.demands.met import read_met
from safehold.trust.log.note import parse_vkey
from safehold.trust.standing.interface import StandardsDocument, StandingRecord

_MAX_BYTES = 16 * 2**20


def stock_names() -> tuple[str, ...]:
    """Return the names of the stock documents."""
    folder = resources.files("safehold.govern.standards") / "stock"
    return tuple(
        sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.is_file())
    )


def load_standards(name: str) -> StandardsDocument:
    """Return a stock document by name, or the document of a file.

    Raises:
        ConfigError: There is no such document, or it contradicts its own words.
    """
    if name in stock_names():
        file = resources.files("safehold.govern.standards") / "stock" / f"{name}.toml"
        return parse_standards(file.read_text("utf-8"), name)
    path = Path(name)
    if path.suffix != ".toml":
        known = ", ".join(stock_names())
        raise ConfigError(f"standards: expected a .toml file or one of {known}; came {name!r}")
    return parse_standards(_read(path).decode("utf-8", "replace"), path.name)


def read_history(path: Path) -> tuple[StandingRecord, ...]:
    """Return the records of a JSONL file, one a line, in the order of the log.

    Raises:
        ConfigError: It can't be read, a line is no record, or two lines have one index.
    """
    found: list[StandingRecord] = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=StandingRecord))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path.name}, line {number}: {error}") from error
        if len(found) > 1 and found[-1].index <= found[-2].index:
            raise ConfigError(
                f"{path.name}, line {number}: expected an index above the line before"
            )
    return tuple(found)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: expected at most {_MAX_BYTES} bytes")
    return data


def read_controls(path: Path, key: str | None = None) -> dict[str, int]:
    """Return until when each control's result holds.

    With a verifier key from the signed file that `controls run --valid` writes; without one from a
    plain JSON object, for a look.

    Raises:
        ConfigError: It can't be read, or is not an object of seconds.
        TrustError: The key's holder did not sign it.
    """
    if key is not None:
        return read_met(_read(path), parse_vkey(key)).until
    try:
        return msgspec.json.decode(_read(path), type=dict[str, int])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path.name}: {error}") from error
