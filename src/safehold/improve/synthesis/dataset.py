"""Datasets on disk: `examples.jsonl` and a `manifest.json` that holds its digest and lineage."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from safehold.errors import DataError, TamperError
from safehold.improve.synthesis.interface import Example, Split

EXAMPLES = "examples.jsonl"
MANIFEST = "manifest.json"
CONSTITUTION = "constitution.yaml"
"""A copy of the file that the dataset was made from, where it is no stock one."""
SCHEMA = 1


class SynthesisPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was asked for: equal plans give equal datasets (a model's sampling aside)."""

    domain: str
    constitution: str
    generators: tuple[str, ...]
    seed: int
    target: int
    seed_books: str
    """Digest of the written seeds, empty where they were not used."""
    fill: int = 0
    """How often thin groups of a model's were filled."""


class DatasetManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A dataset's identity card."""

    plan: SynthesisPlan
    sha256: str
    size_bytes: int
    examples: int
    base: int
    families: int
    dropped_duplicates: int
    splits: dict[str, int]
    clauses: dict[str, int]
    recipes: dict[str, int]
    languages: dict[str, int]
    schema: int = SCHEMA


def write(
    folder: Path, plan: SynthesisPlan, examples: Iterable[Example], *, base: int, dropped: int
) -> DatasetManifest:
    """Write a dataset; the manifest appears last and only when the examples are whole."""
    kept = tuple(examples)
    body = b"".join(msgspec.json.encode(example) + b"\n" for example in kept)
    manifest = DatasetManifest(
        plan=plan,
        sha256=hashlib.sha256(body).hexdigest(),
        size_bytes=len(body),
        examples=len(kept),
        base=base,
        families=len({example.family for example in kept}),
        dropped_duplicates=dropped,
        splits=_count(f"{one.split}/{one.side}" for one in kept),
        clauses=_count(one.clause for one in kept),
        recipes=_count(_recipe(one) for one in kept),
        languages=_count(one.language for one in kept),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    _replace(folder / EXAMPLES, body)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    _replace(folder / MANIFEST, text)
    return manifest


def manifest_of(folder: Path) -> DatasetManifest:
    """Read a dataset's manifest.

    Raises:
        DataError: There is none, or it breaks the schema.
    """
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=DatasetManifest)
    except FileNotFoundError as error:
        raise DataError(f"{folder} is no finished dataset: {MANIFEST} is missing") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"{folder / MANIFEST}: {error}") from error


def read(folder: Path, *splits: Split) -> Iterator[Example]:
    """Yield the examples of some splits (none given: all), the file checked against its digest.

    Raises:
        DataError: A file is missing or breaks the schema.
        TamperError: The examples differ from the digest in the manifest.
    """
    manifest = manifest_of(folder)
    try:
        body = (folder / EXAMPLES).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{folder / EXAMPLES} is missing") from error
    if hashlib.sha256(body).hexdigest() != manifest.sha256:
        raise TamperError(f"{folder / EXAMPLES} differs from the digest in its manifest")
    decoder = msgspec.json.Decoder(Example)
    for number, line in enumerate(body.splitlines(), 1):
        try:
            example = decoder.decode(line)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise DataError(f"{folder / EXAMPLES} line {number}: {error}") from error
        if not splits or example.split in splits:
            yield example


def _recipe(example: Example) -> str:
    return example.id.rpartition("~")[2].rpartition("-")[0] if "~" in example.id else "base"


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _replace(path: Path, body: bytes) -> None:
    part = path.with_name(path.name + ".tmp")
    with part.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
