"""Seed books: the written training text of the project, checked when it is read."""

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

import msgspec

from safehold.constitution import Position, SchemaError
from safehold.constitution.document import ValuePath, parse_as
from safehold.errors import DataError, shown, told_by_system
from safehold.improve.synthesis.interface import Side

_SHARED = "_shared"
"""The folder of books about everything else, which belong to every domain."""


class SeedExchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A written request and reply; without a family it is its own."""

    id: str
    family: str = ""
    prompt: str
    reply: str
    stage: str | None = None
    register: str = ""
    language: str = "en"


class SeedPrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A written request alone; without a family it is its own."""

    id: str
    family: str = ""
    text: str
    stage: str | None = None
    language: str = "en"


_SUFFIXES = frozenset({".yaml", ".yml"})
_RESTRICTED = "restricted-"
"""How the names of restricted books begin."""
_Item = TypeVar("_Item", SeedExchange, SeedPrompt)


class SeedBook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of written seeds about one clause.

    `asks` are requests that need no more than their text: each is its own family, and its id is
    taken from its text, so that lines may be added anywhere.
    """

    clause: str
    side: Side
    exchanges: tuple[SeedExchange, ...] = ()
    prompts: tuple[SeedPrompt, ...] = ()
    asks: tuple[str, ...] = ()
    name: str = ""


def domains() -> list[str]:
    """Return the domains that the package ships seed books for."""
    return sorted(
        entry.name
        for entry in _root().iterdir()
        if entry.is_dir() and entry.name != _SHARED and _own(entry)
    )


def books(domain: str) -> Iterator[SeedBook]:
    """Yield the seed books of a domain and those that all domains share, in order of their names.

    Behind them come the restricted books of domains that `neighbours.yaml` names: as permitted
    ones, since what one domain restricts is a hard neighbour of another.

    Raises:
        DataError: The domain has no books, or a book breaks the schema.
    """
    for entry in _books(domain):
        yield _read(entry, entry.name.removesuffix(".yaml"))
    for other, clause in _neighbours(domain).items():
        for entry in _restricted(other):
            name = f"{other}/{entry.name.removesuffix('.yaml')}"
            yield _as_permitted(_read(entry, name), clause)


def shared_books(clause: str) -> Iterator[SeedBook]:
    """Yield the books about everything else, as texts of a permitted clause.

    Raises:
        DataError: A book breaks the schema.
    """
    for entry in _own(_root() / _SHARED):
        book = _read(entry, entry.name.removesuffix(".yaml"))
        yield msgspec.structs.replace(book, clause=clause)


def foreign_books(clause: str, but: str) -> Iterator[SeedBook]:
    """Yield what the package's stand-ins restrict, as texts of a permitted clause of another class.

    They are the hardest text there is beside a class: other people's work, with amounts and steps.
    `but` is the stand-in to leave out: the class itself.

    Raises:
        DataError: A book breaks the schema.
    """
    for domain in domains():
        if domain != but:
            for entry in _restricted(domain):
                name = f"{domain}/{entry.name.removesuffix('.yaml')}"
                yield _as_permitted(_read(entry, name), clause)


def folder_books(folder: Path) -> Iterator[SeedBook]:
    """Yield the seed books of an operator's folder, in order of their names.

    Raises:
        DataError: The folder has no book, or one breaks the schema: file and line are named.
    """
    paths = folder_files(folder)
    if not paths:
        raise DataError(f"{folder}: expected seed books (*.yaml), came none")
    for path in paths:
        try:
            book, positions = parse_as(SeedBook, _bytes(path), source=str(path))
        except SchemaError as error:
            raise DataError(str(error)) from error
        _distinct(book, positions, path)
        yield _named(book, path.stem)


def _distinct(book: SeedBook, positions: dict[ValuePath, Position], path: Path) -> None:
    """Refuse a book with no text, or with one id or ask twice."""
    if not (book.exchanges or book.prompts or book.asks):
        raise DataError(f"{path}:1: expected exchanges, prompts or asks, got none")
    seen: set[str] = set()
    texts: list[tuple[ValuePath, str]] = [
        *((("exchanges", n, "id"), one.id) for n, one in enumerate(book.exchanges)),
        *((("prompts", n, "id"), one.id) for n, one in enumerate(book.prompts)),
        *((("asks", n), one) for n, one in enumerate(book.asks)),
    ]
    for place, text in texts:
        if text in seen:
            line = positions[place].line
            raise DataError(f"{path}:{line}: expected each id and ask once, got {text!r} again")
        seen.add(text)


def folder_beside(constitution: Path) -> Path | None:
    """Return the folder of seed books beside a constitution's file; None where it has none.

    Raises:
        DataError: It, or a book in it, can't be read.
    """
    folder = constitution.parent / "seeds"
    there = folder.is_symlink() or folder.is_dir()
    return folder if there and folder_files(folder) else None


def folder_files(folder: Path) -> list[Path]:
    """Return the paths of an operator's seed books (`*.yaml`, `*.yml`), in order of their names.

    Raises:
        DataError: One is no file, has a name that can't stand in a dataset, or has another's name.
    """
    try:
        found = sorted(one for one in folder.iterdir() if one.suffix.casefold() in _SUFFIXES)
        odd = [one for one in found if not one.is_file()]
    except OSError as error:
        raise DataError(f"{told_by_system(error, folder)}: expected a folder of books") from error
    if odd:
        kind = "a folder" if odd[0].is_dir() else "a link to nothing or something else"
        raise DataError(f"{shown(odd[0])}: expected a seed book, got {kind}")
    names: set[str] = set()
    for path in found:
        if shown(path.name) != path.name:
            raise DataError(f"{shown(path)}: expected a name in UTF-8; rename the book")
        if path.stem in names:
            raise DataError(f"{path}: expected one book of a name, got {path.stem!r} twice")
        names.add(path.stem)
    return found


def _bytes(path: Path) -> bytes:
    """Read a book.

    Raises:
        DataError: It can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{told_by_system(error, path)}: expected a readable book") from error


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of an operator's seed books.

    Raises:
        DataError: A book can't be read.
    """
    total = hashlib.sha256()
    for path in folder_files(folder):
        total.update(path.name.encode() + b"\0" + hashlib.sha256(_bytes(path)).digest())
    return total.hexdigest()


def _read(entry: Traversable, name: str) -> SeedBook:
    try:
        return _named(msgspec.yaml.decode(entry.read_bytes(), type=SeedBook), name)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"seed book {entry.name}: {error}") from error


def _neighbours(domain: str) -> dict[str, str]:
    """Return the other domains whose restricted texts are permitted in this one, with a clause."""
    file = resources.files("safehold.improve.synthesis") / "neighbours.yaml"
    table = msgspec.yaml.decode(file.read_bytes(), type=dict[str, dict[str, str]])
    return table.get(domain, {})


def _as_permitted(book: SeedBook, clause: str) -> SeedBook:
    """Return a restricted book of another domain as texts of a permitted clause of this one."""
    return msgspec.structs.replace(
        book,
        clause=clause,
        side=Side.PERMITTED,
        exchanges=tuple(_stageless(item, book.name) for item in book.exchanges),
        prompts=tuple(_stageless(item, book.name) for item in book.prompts),
    )


def _stageless(item: _Item, book: str) -> _Item:
    domain = book.split("/", 1)[0]
    return msgspec.structs.replace(item, stage=None, family=f"{domain}/{item.family}")


def _named(book: SeedBook, name: str) -> SeedBook:
    """Give the book its name, its lone requests ids and the items without a family one."""
    asks = (
        SeedPrompt(id=f"ask-{hashlib.sha256(text.encode()).hexdigest()[:10]}", text=text)
        for text in book.asks
    )
    return SeedBook(
        clause=book.clause,
        side=book.side,
        exchanges=tuple(_with_family(item, name) for item in book.exchanges),
        prompts=tuple(_with_family(item, name) for item in (*book.prompts, *asks)),
        name=name,
    )


def _with_family(item: _Item, book: str) -> _Item:
    return item if item.family else msgspec.structs.replace(item, family=f"{book}/{item.id}")


def shared_digest() -> str:
    """Return the SHA-256 over the books that every class of one's own is trained beside."""
    total = hashlib.sha256()
    foreign = (entry for domain in domains() for entry in _restricted(domain))
    for entry in (*_own(_root() / _SHARED), *foreign):
        total.update(entry.name.encode() + b"\0" + hashlib.sha256(entry.read_bytes()).digest())
    return total.hexdigest()


def digest(domain: str) -> str:
    """Return the SHA-256 over the names and bytes of a domain's books: the data digest.

    Raises:
        DataError: The domain has no books.
    """
    total = hashlib.sha256()
    foreign = (entry for other in _neighbours(domain) for entry in _restricted(other))
    for entry in (*_books(domain), *foreign):
        total.update(entry.name.encode() + b"\0" + hashlib.sha256(entry.read_bytes()).digest())
    return total.hexdigest()


def _root() -> Traversable:
    return resources.files("safehold.improve.synthesis") / "seeds"


def _books(domain: str) -> list[Traversable]:
    found = _own(_root() / domain) + _own(_root() / _SHARED)
    return sorted(found, key=lambda entry: entry.name)


def _own(folder: Traversable) -> list[Traversable]:
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return sorted(found, key=lambda entry: entry.name)


def _restricted(domain: str) -> list[Traversable]:
    return [entry for entry in _own(_root() / domain) if entry.name.startswith(_RESTRICTED)]
