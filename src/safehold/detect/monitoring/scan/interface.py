"""A scanner, what it finds, and the unit of work that it is given."""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from safehold.guard.ledger.joined import Joined

_LONGEST_WORD = 1_000
"""Characters of a label, clause or reason; a scanner that writes more tells content."""


class ScanFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What a scanner says of one exchange: a value in [0, 1], a label, and a clause where known.

    `value` is None when the exchange could not be scored; `reason` then says why, without content.
    """

    value: float | None
    label: str
    clause: str | None = None
    reason: str | None = None

    @property
    def sound(self) -> bool:
        """Whether this is what a scanner may say; a scanner is foreign code, so types count too."""
        words: tuple[object, ...] = (self.label, self.clause or "", self.reason or "")
        if not all(isinstance(one, str) and len(one) <= _LONGEST_WORD for one in words):
            return False
        value: object = self.value
        if value is None:
            return True
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and 0.0 <= value <= 1.0
        )


def unscorable(reason: str) -> ScanFinding:
    """Return the finding of an exchange that no scanner could read; never silently a zero."""
    return ScanFinding(value=None, label="unscorable", reason=reason)


class Postponed(msgspec.Struct, frozen=True):
    """What the scanner asks is away: the exchange is not judged, and asked about at the next scan.

    `why` is one line without content.
    """

    why: str


class Scanner(Protocol):
    """Judges one exchange after the other; `digest` changes when any of its answers could."""

    @property
    def digest(self) -> str:
        """Name, version and content of everything that decides a finding."""
        ...

    def scan(self, one: Joined) -> ScanFinding | Postponed:
        """Judge one exchange. What it raises makes the exchange unscorable, for good."""
        ...


class ScannerSpec(msgspec.Struct, frozen=True):
    """Which scanner, and its options; travels to worker processes."""

    name: str
    options: Mapping[str, str] = {}


Loader = Callable[[ScannerSpec], Scanner]


class Unit(msgspec.Struct, frozen=True):
    """The exchanges that ended in [first, last], for one scanner."""

    id: int
    scanner: str
    first: int
    last: int
    row_count: int


class ScanLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How work is cut and how long it may take.

    A unit holds at most `unit_rows` exchanges or `unit_chars` characters of kept text. A worker
    that has a unit for longer than `lease_s` is dead or hangs. After `losses` lost workers a unit
    is halved; one exchange that costs so many becomes unscorable.
    """

    unit_rows: int = 500
    unit_chars: int = 2_000_000
    lease_s: float = 300.0
    losses: int = 3
