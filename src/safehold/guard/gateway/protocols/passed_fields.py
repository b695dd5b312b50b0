"""Strings in a reply's unknown fields, on lanes of their own, so that they leave only once scored.

The strings at one place of a field are one lane, however many pieces they come in; the names of
unknown fields, and of what stands inside them, are a lane too, also where what they name is sealed.
A field leaves when every string in it was released. Numbers and switches in it are left out: token
ids are text that no scorer reads.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import msgspec

from safehold.exchange import Channel, Lane
from safehold.guard.gateway.interface import Closed, Delta, Piece
from safehold.guard.gateway.protocols.json_border import MAX_DEPTH, Lanes

_MOST_NAMES = 4_096


class Field(msgspec.Struct, frozen=True):
    """One unknown field of an answer that goes on.

    `place` is where it stood: its path in the body, or a protocol's own words for it. `scored` is
    the part of `value` whose strings are scored; the rest is sealed, and passed by policy.
    """

    place: Any
    name: str
    value: Any
    scored: Any


def _unheard(count: int) -> None:
    """Count nothing."""
    del count


class _Waiting(msgspec.Struct):
    field: Field
    needs: list[tuple[Lane, int]]


class PassedFields:
    """The unknown fields of one answer that wait for their strings."""

    def __init__(self, lost: Callable[[int], None] = _unheard) -> None:
        """Take what counts fields that have no place in what the client gets."""
        self.lost = lost
        self._fed: dict[Lane, int] = {}
        self._released: dict[Lane, int] = {}
        self._by_place: dict[tuple[Hashable, int, tuple[str, ...]], Lane] = {}
        self._named: set[tuple[Hashable, int, tuple[str, ...]]] = set()
        self._open: dict[Hashable, list[Lane]] = {}
        self._ended: dict[Hashable, int] = {}
        self._waiting: deque[_Waiting] = deque()

    def fits(self, scope: Hashable, field: Field, lanes: Lanes) -> bool:
        """Whether a field's strings leave half of the free lanes to the answer's own texts."""
        ended = self._ended.get(scope, 0)
        places = {(scope, ended, at) for at, _ in _strings(field.scored, (field.name,))}
        names = {at for at, _ in _strings(field.value, (field.name,))}
        room = lanes.room // 2
        return len(places - self._by_place.keys()) + 1 <= room and len(names) <= _MOST_NAMES

    def take(self, scope: Hashable, field: Field, lanes: Lanes) -> list[Piece]:
        """Return a field's strings as pieces of lanes; `scope` is what ends with `close`.

        A field that does not fit is dropped and counted: it costs no answer.
        """
        if not self.fits(scope, field, lanes):
            self.lost(1)
            return []
        pieces: list[Piece] = []
        needs: list[tuple[Lane, int]] = []
        for at, _ in _strings(field.value, (field.name,)):
            named = (scope, self._ended.get(scope, 0), at)
            if named not in self._named:
                self._named.add(named)
                self._feed(self._lane(scope, (), lanes), " ".join(at) + "\n", pieces, needs)
        for at, text in _strings(field.scored, (field.name,)):
            self._feed(self._lane(scope, at, lanes), text, pieces, needs)
        self._waiting.append(_Waiting(field, needs))
        return pieces

    def _lane(self, scope: Hashable, at: tuple[str, ...], lanes: Lanes) -> Lane:
        key = (scope, self._ended.get(scope, 0), at)
        lane = self._by_place.get(key)
        if lane is None:
            lane = self._by_place[key] = lanes.get(0, Channel.FIELD, len(self._by_place))
            self._open.setdefault(scope, []).append(lane)
        return lane

    def _feed(
        self, lane: Lane, text: str, pieces: list[Piece], needs: list[tuple[Lane, int]]
    ) -> None:
        if not text:
            return
        pieces.append(Delta(lane, text))
        self._fed[lane] = self._fed.get(lane, 0) + len(text)
        needs.append((lane, self._fed[lane]))

    def close(self, scope: Hashable) -> list[Piece]:
        """Return the ends of a scope's lanes; a later field of that scope opens new ones."""
        self._ended[scope] = self._ended.get(scope, 0) + 1
        return [Closed(lane) for lane in self._open.pop(scope, ())]

    def release(self, lane: Lane, text: str) -> list[Field]:
        """Take cleared text of a lane; return the fields that are whole now, in order."""
        self._released[lane] = self._released.get(lane, 0) + len(text)
        return self.ready()

    def ready(self) -> list[Field]:
        """Return the fields that wait for nothing, in order."""
        whole: list[Field] = []
        while self._waiting and all(
            self._released.get(lane, 0) >= end for lane, end in self._waiting[0].needs
        ):
            whole.append(self._waiting.popleft().field)
        return whole


def _strings(value: Any, at: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], str]]:
    """Yield every string of a value that is scored, with its place; a list's items share one."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, at)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, (*at, name))


def only_text(value: Any, depth: int = 0) -> tuple[Any, int]:
    """Return the strings of a value in their lists and objects, and how many values were left out.

    What holds no string is None.
    """
    if isinstance(value, str):
        return value, 0
    if depth > MAX_DEPTH or not isinstance(value, list | dict):
        return None, 1
    pairs = enumerate(value) if isinstance(value, list) else value.items()
    kept: dict[Any, Any] = {}
    dropped = 0
    for name, item in pairs:
        found, left = only_text(item, depth + 1)
        dropped += left
        if found is not None:
            kept[name] = found
    if not kept:
        return None, max(dropped, 1)
    return (list(kept.values()) if isinstance(value, list) else kept), dropped


def place_in(body: Any, path: Iterable[str | int]) -> dict[str, Any] | None:
    """Return the object at a path of a body that was written anew; None where there is none."""
    place = body
    for step in path:
        inside = isinstance(place, dict) and step in place
        if not inside and not (isinstance(place, list) and step in range(len(place))):
            return None
        place = place[step]
    return place if isinstance(place, dict) else None


def woven(body: Any, fields: Iterable[Field]) -> int:
    """Put fields into a body by their paths, beside what is there; return how many did not fit."""
    homeless = 0
    for field in fields:
        place = place_in(body, field.place)
        if place is None or field.name in place:
            homeless += 1
        else:
            place[field.name] = field.value
    return homeless


def field_texts(fields: list[Field], lanes: Lanes, lost: Callable[[int], None]) -> Iterable[Delta]:
    """Yield the strings of a whole answer's fields; one that does not fit is taken off the list."""
    passed = PassedFields(lost)
    for field in tuple(fields):
        if not passed.fits(None, field, lanes):
            fields.remove(field)
            lost(1)
            continue
        for piece in passed.take(None, field, lanes):
            if isinstance(piece, Delta):
                yield piece
