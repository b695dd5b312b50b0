"""Whether a change of settings weakens a safeguard: decided field by field, from a table.

A field without an order, one that is new and one that is gone count as weaker: whoever adds a
setting must say which of its values guards more.
"""

import datetime as dt
from collections.abc import Mapping
from enum import Enum

import msgspec

from safehold.trust.release.order_table import ORDERS
from safehold.trust.release.orders import GuardDirection, Order, Part, Rows, rows_of


class Change(msgspec.Struct, frozen=True):
    """One field that differs: its path, how it guards now, and why that is said."""

    path: str
    direction: GuardDirection
    why: str


def settings_document(value: object) -> object:  # noqa: PLR0911 - one line for each kind
    """Return settings as plain values, defaults filled in: what `changes` compares.

    A default that a later version changes is seen then, although no file changed.

    Raises:
        TypeError: a value that no settings have.
    """
    match value:
        case msgspec.Struct():
            names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
            return {said: settings_document(getattr(value, name)) for said, name in names}
        case Enum():
            return settings_document(value.value)
        case None | bool() | int() | float() | str():
            return value
        case dt.date():
            return value.isoformat()
        case Mapping():
            return {
                str(settings_document(key)): settings_document(one) for key, one in value.items()
            }
        case list() | tuple():
            return [settings_document(one) for one in value]
        case set() | frozenset():
            return sorted((settings_document(one) for one in value), key=str)
        case _:
            raise TypeError(f"expected a value of settings, got {type(value).__name__}")


def changes(
    kind: str, old: object, new: object, orders: Mapping[str, Order] = ORDERS
) -> tuple[Change, ...]:
    """Return every difference between two documents of one kind, in the order of their paths.

    Args:
        kind: First part of the paths in the table, such as `gateway`.
        old: The document in force (`settings_document`); None: there was none.
        new: The document that shall be.
        orders: The table.
    """
    if old is None or new is None:
        if old is new:
            return ()
        return (Change(kind, GuardDirection.WEAKER, "the whole document came or went"),)
    return tuple(_walk(kind, kind, old, new, orders))


def weakens(found: tuple[Change, ...]) -> bool:
    """Tell whether one of the changes weakens a safeguard."""
    return any(change.direction is GuardDirection.WEAKER for change in found)


def _walk(
    path: str, pattern: str, old: object, new: object, orders: Mapping[str, Order]
) -> list[Change]:
    if type(old) is type(new) and old == new and not _hides_kinds(old, new):
        return []
    order = orders.get(pattern)
    match order:
        case Rows():
            return _rows(path, pattern, old, new, order, orders)
        case None | Part() if isinstance(old, dict) and isinstance(new, dict):
            return _fields(path, pattern, old, new, orders)
        case None:
            return [Change(path, GuardDirection.WEAKER, "no order is known for it")]
        case _:
            return [Change(path, order.compare(old, new), type(order).__name__.lower())]


def _hides_kinds(old: object, new: object) -> bool:
    """Tell whether equal containers hold values of other kinds (True is 1, 1 is 1.0)."""
    return isinstance(old, dict | list) and repr(old) != repr(new)


def _fields(
    path: str,
    pattern: str,
    old: dict[str, object],
    new: dict[str, object],
    orders: Mapping[str, Order],
) -> list[Change]:
    found: list[Change] = []
    for name in sorted(old.keys() | new.keys()):
        where = f"{path}.{name}"
        if name not in old:
            found.append(Change(where, GuardDirection.WEAKER, "a field that was not there"))
        elif name not in new:
            found.append(Change(where, GuardDirection.WEAKER, "a field that is gone"))
        else:
            found += _walk(where, f"{pattern}.{name}", old[name], new[name], orders)
    return found


def _rows(
    path: str, pattern: str, old: object, new: object, order: Rows, orders: Mapping[str, Order]
) -> list[Change]:
    before, after = rows_of(old, order.key), rows_of(new, order.key)
    if before is None or after is None:
        return [Change(path, GuardDirection.WEAKER, "rows without distinct names")]
    found: list[Change] = []
    for name in sorted(before.keys() | after.keys()):
        where = f"{path}[{name}]"
        if name not in before:
            found.append(Change(where, order.added, "a row that was not there"))
        elif name not in after:
            found.append(Change(where, order.removed, "a row that is gone"))
        else:
            found += _walk(where, f"{pattern}.*", before[name], after[name], orders)
    return found
