"""Sentences with slots, crossed with what may stand in them: many texts from few written ones.

`crossings/DOMAIN/*.yaml` holds blocks of one clause and language each. `{x}` is a slot, `[3-9]` a
number to draw. Restricted and permitted blocks use the same words, so that no word alone decides.
"""

import random
import re
from collections.abc import Iterator
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec

from safehold.errors import DataError
from safehold.improve.synthesis.crafts import drawn
from safehold.improve.synthesis.interface import Side

_SLOT = re.compile(r"\{(\w)\}")


class Form(StrEnum):
    """Where the texts of a block stand: as a request, as a reply, or by turns as either."""

    ASK = "ask"
    TOLD = "told"
    BOTH = "both"


class CrossingBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Texts of one clause; `each` are drawn of every text, or of every value of the slot `per`."""

    clause: str
    side: Side
    language: str = "en"
    form: Form = Form.ASK
    each: int
    per: str = ""
    slots: dict[str, tuple[str, ...]] = {}
    texts: tuple[str, ...]


class Crossed(msgspec.Struct, frozen=True):
    """One text; `family` names what it was drawn from, `told` says that it is a reply."""

    id: str
    family: str
    clause: str
    side: Side
    language: str
    text: str
    told: bool


def crossings(domain: str, seed: int) -> Iterator[Crossed]:
    """Yield the crossed texts of a domain, in an order that depends on files and seed alone.

    Raises:
        DataError: A file breaks the schema, or a text has a slot without values.
    """
    folder = resources.files("safehold.improve.synthesis") / "crossings" / domain
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir(), key=lambda file: file.name):
        name = entry.name.removesuffix(".yaml")
        for number, block in enumerate(_blocks(entry)):
            yield from crossed(block, f"{name}-{number:02}", seed)


def _blocks(entry: Traversable) -> tuple[CrossingBlock, ...]:
    try:
        return msgspec.yaml.decode(entry.read_bytes(), type=tuple[CrossingBlock, ...])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"crossings/{entry.name}: {error}") from error


def crossed(block: CrossingBlock, name: str, seed: int) -> Iterator[Crossed]:
    """Yield the texts of one block, each once.

    Raises:
        DataError: A text has a slot without values.
    """
    rng = random.Random(f"{seed}/crossings/{name}")
    seeds = block.slots.get(block.per, ()) if block.per else block.texts
    if not seeds:
        raise DataError(f"crossings {name}: expected values for the slot {block.per!r}, got none")
    seen: set[str] = set()
    for number, seed_text in enumerate(seeds):
        for which in range(block.each):
            fixed = {block.per: seed_text} if block.per else {}
            text = rng.choice(block.texts) if block.per else seed_text
            text = drawn(_filled(text, block, fixed, name, rng), rng)
            if text in seen:
                continue
            seen.add(text)
            yield Crossed(
                id=f"crossings/{name}-{number:03}-{which}",
                family=f"crossings-{name}-{number:03}",
                clause=block.clause,
                side=block.side,
                language=block.language,
                text=text,
                told=block.form is Form.TOLD or (block.form is Form.BOTH and which % 2 == 1),
            )


def _filled(
    text: str, block: CrossingBlock, fixed: dict[str, str], name: str, rng: random.Random
) -> str:
    def value(match: re.Match[str]) -> str:
        slot = match[1]
        values = block.slots.get(slot)
        if not values:
            raise DataError(f"crossings {name}: the slot {{{slot}}} has no values")
        return fixed.get(slot) or rng.choice(values)

    return _SLOT.sub(value, text)
