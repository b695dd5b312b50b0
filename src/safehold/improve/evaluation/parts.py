"""Data that settings may be chosen on, and data that is looked at once.

Texts of one repository are alike, so a repository goes to one part as a whole, by a stable hash of
its name: nobody chooses which.
"""

import hashlib
from enum import StrEnum


class DataPart(StrEnum):
    """`tune`: settings may be chosen on it. `blind`: scored once for a released bundle."""

    TUNE = "tune"
    BLIND = "blind"


def repository(source: str) -> str:
    """Return the repository or package of a source: what stands before `@`, `==`, `#` or `:`.

    The colon of a package registry's name (`pypi:NAME`) is part of it.
    """
    name = source.partition("@")[0].partition("==")[0].partition("#")[0]
    kind, colon, rest = name.partition(":")
    if colon and kind in ("pypi", "npm", "crates"):
        return f"{kind}:{rest.partition(':')[0]}"
    return kind


def part_of(source: str) -> DataPart:
    """Return the part of a source: the last bit of the first byte of its repository's SHA-256."""
    odd = hashlib.sha256(repository(source).encode()).digest()[0] & 1
    return DataPart.BLIND if odd else DataPart.TUNE
