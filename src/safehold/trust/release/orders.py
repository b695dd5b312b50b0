"""How two values of one setting compare: which one guards more.

An order is a value of one field of the table `order_table.ORDERS`. What an order can't place
(another type, a value that it does not name, not a number) is weaker: nothing is guessed.
"""

import datetime as dt
import ipaddress
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec


class GuardDirection(StrEnum):
    """How the new value guards, against the old one."""

    STRONGER = "stronger"
    EQUAL = "equal"
    WEAKER = "weaker"


class Order(Protocol):
    """Compares two different values of one field."""

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return how `new` guards against `old`."""
        ...


class Lower(msgspec.Struct, frozen=True):
    """The lower number guards more; None is no limit at all. Dates and times are ISO texts."""

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return how `new` guards against `old`."""
        if isinstance(old, str) or isinstance(new, str):
            first, second = _moment(old), _moment(new)
        else:
            first, second = _number(old, unlimited=True), _number(new, unlimited=True)
        if first is None or second is None:
            return GuardDirection.WEAKER
        return _signed((first > second) - (first < second))


class Higher(msgspec.Struct, frozen=True):
    """The higher number guards more; True is more than False. None is no number."""

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return how `new` guards against `old`."""
        first, second = _number(old), _number(new)
        if first is None or second is None:
            return GuardDirection.WEAKER
        return _signed((second > first) - (second < first))


class Ranked(msgspec.Struct, frozen=True):
    """Named values, the one that guards most first."""

    best_first: tuple[str, ...]

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return how `new` guards against `old`."""
        if old not in self.best_first or new not in self.best_first:
            return GuardDirection.WEAKER
        first, second = self.best_first.index(str(old)), self.best_first.index(str(new))
        return _signed((first > second) - (first < second))


class Fewer(msgspec.Struct, frozen=True):
    """A set of what is let through: a true subset guards more.

    `empty_is_all` is for a list that restricts only when something is in it.
    """

    empty_is_all: bool = False

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return how `new` guards against `old`."""
        first, second = _set(old), _set(new)
        if first is None or second is None:
            return GuardDirection.WEAKER
        if self.empty_is_all and first != second and not (first and second):
            return GuardDirection.STRONGER if not first else GuardDirection.WEAKER
        return _nested(second, first)


class More(msgspec.Struct, frozen=True):
    """A set of what is guarded: a true superset guards more."""

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return how `new` guards against `old`."""
        first, second = _set(old), _set(new)
        if first is None or second is None:
            return GuardDirection.WEAKER
        return _nested(first, second)


class NarrowerNetworks(msgspec.Struct, frozen=True):
    """IP networks that may be reached: guards more if each lies within an old one."""

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return how `new` guards against `old`."""
        first, second = _networks(old), _networks(new)
        if first is None or second is None:
            return GuardDirection.WEAKER
        if not _within(second, first):
            return GuardDirection.WEAKER
        return GuardDirection.EQUAL if _within(first, second) else GuardDirection.STRONGER


class Free(msgspec.Struct, frozen=True):
    """Guards nothing: a name for people, a port, a number of threads."""

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return `EQUAL`."""
        return GuardDirection.EQUAL


class Pinned(msgspec.Struct, frozen=True):
    """No order is known: any other value counts as weaker."""

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return `WEAKER`."""
        return GuardDirection.WEAKER


class Part(msgspec.Struct, frozen=True):
    """A group of fields that may be absent (None)."""

    added: GuardDirection
    removed: GuardDirection

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return what it means that the part came or went."""
        if old is None and isinstance(new, dict):
            return self.added
        if new is None and isinstance(old, dict):
            return self.removed
        return GuardDirection.WEAKER


class Rows(msgspec.Struct, frozen=True):
    """Rows that are matched by `key` (a member of each), or the entries of a mapping.

    A row that is in both is compared field by field.
    """

    added: GuardDirection
    removed: GuardDirection
    key: str = "id"

    def compare(self, old: object, new: object) -> GuardDirection:
        """Return `WEAKER`: one of the two is not made of rows."""
        return GuardDirection.WEAKER


def rows_of(value: object, key: str) -> dict[str, object] | None:
    """Return rows by name, or None if it is no set of rows with distinct names."""
    if isinstance(value, dict):
        return dict(value)
    if not isinstance(value, list | tuple):
        return None
    found: dict[str, object] = {}
    for row in value:
        name = row.get(key) if isinstance(row, dict) else None
        if not isinstance(name, str) or name in found:
            return None
        found[name] = row
    return found


def _signed(sign: int) -> GuardDirection:
    if sign == 0:
        return GuardDirection.EQUAL
    return GuardDirection.STRONGER if sign > 0 else GuardDirection.WEAKER


def _number(value: object, *, unlimited: bool = False) -> float | None:
    if value is None and unlimited:
        return math.inf
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return value


def _moment(value: object) -> float | None:
    """Return the seconds of a day or a time; None of the language is no end at all."""
    if value is None:
        return math.inf
    if not isinstance(value, str):
        return None
    try:
        at = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()


def _set(value: object) -> frozenset[object] | None:
    if not isinstance(value, list | tuple):
        return None
    if not all(isinstance(one, str | int | float) for one in value):
        return None
    return frozenset(value)


def _nested(inner: frozenset[object], outer: frozenset[object]) -> GuardDirection:
    if inner == outer:
        return GuardDirection.EQUAL
    return GuardDirection.STRONGER if inner < outer else GuardDirection.WEAKER


_Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def _networks(value: object) -> _Networks | None:
    texts = _set(value)
    if texts is None:
        return None
    try:
        return [ipaddress.ip_network(str(text)) for text in texts]
    except ValueError:
        return None


def _within(inner: _Networks, outer: _Networks) -> bool:
    return all(any(_inside(one, other) for other in outer) for one in inner)


def _inside(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network,
    other: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> bool:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.subnet_of(other)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one.subnet_of(other)
    return False
