"""The written phrases that augmentation draws from: frames, wrappers, refusals, short requests."""

import json
import re
from importlib import resources
from typing import TypeVar

import msgspec

from safehold.errors import DataError

T = TypeVar("T")


class PhraseWrapper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A jailbreak wrapper: text with slots around a request."""

    family: str
    text: str

    def around(self, ask: str) -> str:
        """Put a request into the wrapper's slots."""
        words = ask.split()
        half = len(words) // 2
        first, second = " ".join(words[:half]), " ".join(words[half:])
        slots = {
            "<<json>>": json.dumps(ask, ensure_ascii=False),
            "<<words>>": ", ".join(f'"{word}"' for word in words),
            "<<a>>": first or ask,
            "<<b>>": second,
            "<<ask>>": ask,
        }
        head, *rest = self.text.split("<<")
        return head + "".join(
            slots.get(f"<<{name}>>", f"<<{name}>>") + tail
            for name, _, tail in (piece.partition(">>") for piece in rest)
        )


class Bank(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Short requests of one language, as (clause, text)."""

    restricted: tuple[tuple[str, str], ...]
    permitted: tuple[tuple[str, str], ...]


class Talks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Written conversations of one language by clause: a turn a line, the user's first and last.

    No turn of a restricted one need be restricted by itself; what the user says in all of them is.
    """

    restricted: dict[str, tuple[str, ...]] = {}
    permitted: dict[str, tuple[str, ...]] = {}


class WrappedPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wrapper with `<<ask>>` in it, and a (clause, request) of each side to put there."""

    language: str
    text: str
    restricted: tuple[str, str]
    permitted: tuple[str, str]


class Phrasebook(msgspec.Struct, frozen=True):
    """Everything that prompts and replies are dressed with."""

    frames: tuple[str, ...]
    wrappers: tuple[PhraseWrapper, ...]
    refusals: tuple[str, ...]
    systems: tuple[str, ...]


def phrasebook() -> Phrasebook:
    """Read the written phrases of the package.

    Raises:
        DataError: A file breaks its schema.
    """
    return Phrasebook(
        frames=_read("frames.yaml", tuple[str, ...]),
        wrappers=_read("wrappers.yaml", tuple[PhraseWrapper, ...]),
        refusals=_read("refusals.yaml", tuple[str, ...]),
        systems=_read("systems.yaml", tuple[str, ...]),
    )


def languages(domain: str) -> dict[str, Bank]:
    """Return the phrase bank of a domain by language; empty where none is written.

    `languages-DOMAIN.yaml` comes first, behind it `languages-DOMAIN-2-NAME.yaml` and other numbered
    files in order of their names: their lines go behind those that a language has.

    Raises:
        DataError: A file breaks its schema, or a request stands in a language twice.
    """
    found: dict[str, Bank] = {}
    for name in _bank_files(domain):
        for language, bank in _read(name, dict[str, Bank]).items():
            before = found.get(language, Bank(restricted=(), permitted=()))
            found[language] = _joined(before, bank, f"phrases/{name}: {language}")
    return found


def talks(domain: str) -> list[tuple[str, Talks]]:
    """Return the written conversations of a domain, as (language, conversations).

    They stand in `talks-DOMAIN-1-NAME.yaml` and other numbered files; a language may be in several.

    Raises:
        DataError: A file breaks its schema, or a conversation's last turn is not the user's.
    """
    found: list[tuple[str, Talks]] = []
    for name in _bank_files(domain, "talks"):
        for language, own in _read(name, dict[str, Talks]).items():
            for text in (*_all(own.restricted), *_all(own.permitted)):
                if len(text.strip().splitlines()) % 2 == 0:
                    raise DataError(
                        f"phrases/{name}: {language}: expected the user's turn last, "
                        f"got an even number of lines in {text[:40]!r}"
                    )
            found.append((language, own))
    return found


def wrapped_pairs(domain: str) -> list[WrappedPair]:
    """Return the written wrappers of a domain with their requests, from `wrapped-DOMAIN-*.yaml`.

    Raises:
        DataError: A file breaks its schema, or a wrapper has no place for its request.
    """
    found: list[WrappedPair] = []
    for name in _bank_files(domain, "wrapped"):
        for pair in _read(name, tuple[WrappedPair, ...]):
            if "<<ask>>" not in pair.text:
                raise DataError(f"phrases/{name}: expected <<ask>> in {pair.text[:40]!r}")
            found.append(pair)
    return found


def _all(by_clause: dict[str, tuple[str, ...]]) -> list[str]:
    return [text for texts in by_clause.values() for text in texts]


def _bank_files(domain: str, kind: str = "languages") -> list[str]:
    """Return the names of a domain's files of one kind, the first one first."""
    pattern = re.compile(rf"{kind}-{re.escape(domain)}(-\d+-[a-z0-9-]+)?\.yaml")
    names = [entry.name for entry in _folder().iterdir() if pattern.fullmatch(entry.name)]
    return sorted(names, key=lambda name: name.removesuffix(".yaml"))


def _joined(first: Bank, second: Bank, place: str) -> Bank:
    """Return both banks as one; `place` names the second in an error."""
    bank = Bank(
        restricted=first.restricted + second.restricted,
        permitted=first.permitted + second.permitted,
    )
    seen: set[str] = set()
    for _, text in bank.restricted + bank.permitted:
        if text in seen:
            raise DataError(f"{place}: expected each request once, got {text!r} again")
        seen.add(text)
    return bank


def _folder() -> resources.abc.Traversable:
    return resources.files("safehold.improve.synthesis") / "phrases"


def _read(name: str, shape: type[T]) -> T:
    try:
        return msgspec.yaml.decode((_folder() / name).read_bytes(), type=shape)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"phrases/{name}: {error}") from error
