"""Seed books: the written training text of the project, checked when it is read."""

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TypeVar

import msgspec

from safehold.errors import DataError
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

    Raises:
        DataError: The domain has no books, or a book breaks the schema.
    """
    for entry in _books(domain):
        try:
            book = msgspec.yaml.decode(entry.read_bytes(), type=SeedBook)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise DataError(f"seed book {entry.name}: {error}") from error
        yield _named(book, entry.name.removesuffix(".yaml"))


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


def digest(domain: str) -> str:
    """Return the SHA-256 over the names and bytes of a domain's books: the data digest.

    Raises:
        DataError: The domain has no books.
    """
    total = hashlib.sha256()
    for entry in _books(domain):
        total.update(entry.name.encode() + b"\0" + hashlib.sha256(entry.read_bytes()).digest())
    return total.hexdigest()


def _root() -> Traversable:
    return resources.files("safehold.improve.synthesis") / "seeds"


def _books(domain: str) -> list[Traversable]:
    found = _own(_root() / domain) + _own(_root() / _SHARED)
    return sorted(found, key=lambda entry: entry.name)


def _own(folder: Traversable) -> list[Traversable]:
    return [entry for entry in folder.iterdir() if entry.name.endswith(".yaml")]
