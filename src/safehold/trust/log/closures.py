"""What egress closed, as a typed reading of its leaves: whoever responds opens a case from it.

Egress and detection do not import each other. Egress appends a record of kind `incident` with these
facts; `closure_of` reads it.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from safehold.trust.log.log_entries import Record

ClosureLevel = Literal["throttle", "block", "seal", "cut"]
LEVELS: tuple[ClosureLevel, ...] = ("throttle", "block", "seal", "cut")
"""Lightest first: a tenth of a flow's budgets; a flow; everything; every device taken down."""


class EgressClosure(msgspec.Struct, frozen=True):
    """One closure: when, how far, of which flow (`*`: everything), why, and on which host."""

    time: int
    level: ClosureLevel
    flow: str
    reason: str
    host: str = ""


def closure_of(record: Record) -> EgressClosure | None:
    """Return what a record says egress closed, or None for any other record."""
    part, _, level = record.facts.get("event", "").partition("-")
    if record.kind != "incident" or part != "egress" or level not in LEVELS:
        return None
    facts = record.facts
    return EgressClosure(
        time=record.time,
        level=level,
        flow=facts.get("flow", "*"),
        reason=facts.get("reason", ""),
        host=facts.get("host", ""),
    )


def closures(leaves: Mapping[int, object]) -> Iterator[tuple[int, EgressClosure]]:
    """Yield the closures among leaves, by their index in the log."""
    for index, leaf in sorted(leaves.items()):
        found = closure_of(leaf) if isinstance(leaf, Record) else None
        if found is not None:
            yield index, found
