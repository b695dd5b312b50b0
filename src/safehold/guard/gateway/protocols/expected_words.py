"""Which words a place of a request may hold, for the sentence that refuses another one."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import inspect

_PLACE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.(\w+)|\[(?:\d+|\.\.\.)\]")
_MOST = 30


def expected_words(kind: Any, message: str) -> str | None:
    """Return the words that belong where a decoder's message points, or None for another fault.

    `kind` is the type that was to be read. The answer names a place and our own words only, never
    what came.
    """
    place = _PLACE.search(message)
    if not message.startswith("Invalid") or place is None:
        return None
    steps = [match.group(1) or "" for match in _STEP.finditer(place.group(1))]
    if not steps:
        return None
    kinds = list(_members([inspect.type_info(kind)]))
    for step in steps[:-1]:
        kinds = list(_members(_inside(kinds, step)))
    words = sorted(set(_words(kinds, steps[-1])))
    if not words or len(words) > _MOST:
        return None
    return f"${place.group(1)}: expected {' or '.join(words)}, came another"


def _members(kinds: Iterable[inspect.Type]) -> Iterator[inspect.Type]:
    for kind in kinds:
        if isinstance(kind, inspect.UnionType):
            yield from _members(kind.types)
        else:
            yield kind


def _inside(kinds: Iterable[inspect.Type], step: str) -> Iterator[inspect.Type]:
    """Yield the types of a field, or for an empty step those of the items."""
    for kind in kinds:
        match kind:
            case inspect.StructType(fields=fields) if step:
                yield from (field.type for field in fields if field.encode_name == step)
            case inspect.ListType(item_type=item) if not step:
                yield item
            case inspect.DictType(value_type=value) if not step:
                yield value
            case _:
                continue


def _words(kinds: Iterable[inspect.Type], step: str) -> Iterator[str]:
    for kind in kinds:
        if isinstance(kind, inspect.StructType) and kind.tag_field == step:
            yield str(kind.tag)
    for kind in _members(_inside(kinds, step)):
        if isinstance(kind, inspect.LiteralType):
            yield from (str(value).lower() for value in kind.values)
