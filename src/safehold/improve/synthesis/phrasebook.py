"""The written phrases that augmentation draws from: frames, wrappers, refusals, short requests."""

import json
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
    """Return the phrase bank of a domain by language; empty where none is written."""
    name = f"languages-{domain}.yaml"
    return _read(name, dict[str, Bank]) if (_folder() / name).is_file() else {}


def _folder() -> resources.abc.Traversable:
    return resources.files("safehold.improve.synthesis") / "phrases"


def _read(name: str, shape: type[T]) -> T:
    try:
        return msgspec.yaml.decode((_folder() / name).read_bytes(), type=shape)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"phrases/{name}: {error}") from error
