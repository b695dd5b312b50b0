"""Incidents: which clocks a kind starts, when each runs out, and the template to fill in."""

import datetime as dt
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated

import msgspec

from safehold.errors import SafeholdError
from safehold.toml_text import parse_toml


class CadenceError(SafeholdError):
    """Correct the incident or the option named in the message."""

    exit_status = 2


class Moment(StrEnum):
    """What starts a clock."""

    AWARE = "aware"
    NOTIFIED = "notified"
    RESOLVED = "resolved"


class LegalClock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One clock: who wants what within how many hours of which moment, by which text."""

    id: str
    law: str
    to: str
    what: str
    hours: Annotated[float, msgspec.Meta(gt=0)]
    starts: Moment
    kinds: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class _IncidentFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clock: tuple[LegalClock, ...]


class Deadline(msgspec.Struct, frozen=True):
    """When a clock runs out (POSIX seconds); None while its moment has not come."""

    clock: LegalClock
    due: int | None


@cache
def stock_clocks() -> tuple[LegalClock, ...]:
    """Return the clocks that ship with the product."""
    file = resources.files("safehold.govern.cadence") / "clocks.toml"
    return msgspec.convert(parse_toml(file.read_text("utf-8")), _IncidentFile).clock


def incident_kinds() -> tuple[str, ...]:
    """Return the kinds of incidents that start a clock."""
    return tuple(sorted({kind for one in stock_clocks() for kind in one.kinds}))


def deadlines(kinds: tuple[str, ...], moments: dict[Moment, int]) -> tuple[Deadline, ...]:
    """Return every deadline of an incident of these kinds, the next one first.

    Raises:
        CadenceError: a kind is unknown, or a later moment is before an earlier one.
    """
    unknown = sorted(set(kinds) - set(incident_kinds()))
    if unknown or not kinds:
        raise CadenceError(
            f"expected kinds of {', '.join(incident_kinds())}; came {', '.join(unknown) or 'none'}"
        )
    if Moment.AWARE not in moments:
        raise CadenceError("expected when somebody became aware")
    if any(time < moments[Moment.AWARE] for time in moments.values()):
        raise CadenceError("expected nothing before somebody became aware")
    found = [
        Deadline(one, _due(one, moments)) for one in stock_clocks() if set(one.kinds) & set(kinds)
    ]
    return tuple(sorted(found, key=lambda one: (one.due is None, one.due or 0, one.clock.id)))


def _due(one: LegalClock, moments: dict[Moment, int]) -> int | None:
    start = moments.get(one.starts)
    return None if start is None else start + round(one.hours * 3600)


def template(name: str, kinds: tuple[str, ...], moments: dict[Moment, int]) -> str:
    """Return the incident's page in Markdown, with its clocks; what is known is filled in."""
    rows = "\n".join(
        f"| {when(one.due)} | {one.clock.what} | {one.clock.to} | {one.clock.law} |  |"
        for one in deadlines(kinds, moments)
    )
    return f"""# Incident {name}

Kinds: {", ".join(kinds)}. Somebody became aware at {when(moments[Moment.AWARE])}.

## Clocks
| Due | What | To | By | Done at |
| --- | --- | --- | --- | --- |
{rows}

## What is known
- Found by (control, person or partner):
- First sign, and last safe time:
- Systems, models and bundles concerned (digests):
- Most bytes that may have left (control res-05):

## What was done
- Contained at, and how:
- Keys revoked, flows blocked, bundles rolled back:
- Evidence kept, and its digests:

## What it undermines
- Claims of the report (ids), for the leaf `incident` of the log:
- Standards or determinations to look at again:

## Afterwards
- Cause:
- Changes, each with an owner and a date:
- Closed by two persons, at:
"""


def when(due: int | None) -> str:
    """Say a time; a clock that did not start says so."""
    if due is None:
        return "not started"
    return dt.datetime.fromtimestamp(due, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
