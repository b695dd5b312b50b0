"""Incidents: what the log tells of, newest first, and how long each has been open."""

from collections.abc import Mapping

import msgspec

from safehold.console.screens.enclave import leaves
from safehold.console.screens.response import ResponseCase, responses
from safehold.console.shell.access import PageVisit
from safehold.console.sources import ConsoleSources
from safehold.trust.grants.events import Alarm
from safehold.trust.log.log_entries import Record

_READ_BACK = 2_000


class IncidentRow(msgspec.Struct, frozen=True):
    """An incident or alarm of the log: its leaf, when, what, and what it is about."""

    leaf: int
    at: float
    kind: str
    title: str
    detail: str
    open: bool


class Incidents(msgspec.Struct, frozen=True):
    """All of the newest leaves that tell of trouble."""

    rows: tuple[IncidentRow, ...]
    now: float
    responses: tuple[ResponseCase, ...]


def _title(facts: Mapping[str, str], index: int) -> str:
    """Return what an incident is called: by who reported it, or by the event that a guard told."""
    name = facts.get("incident") or facts.get("title") or facts.get("event", "").replace("-", " ")
    return name.capitalize() if name else f"Leaf {index}"


def incidents(visit: PageVisit[ConsoleSources]) -> Incidents:
    """Return the incidents and alarms among the newest leaves."""
    return Incidents(tuple(_found(visit)), visit.now, responses(visit))


def open_incidents(visit: PageVisit[ConsoleSources]) -> list[IncidentRow]:
    """Return those that nobody has closed."""
    return [one for one in _found(visit) if one.open]


def _found(visit: PageVisit[ConsoleSources]) -> list[IncidentRow]:
    found: list[IncidentRow] = []
    closed: set[str] = set()
    for index, leaf in leaves(visit, most=_READ_BACK):
        if isinstance(leaf, Alarm):
            found.append(IncidentRow(index, leaf.time, leaf.kind, leaf.subject, leaf.detail, True))
        elif isinstance(leaf, Record) and leaf.kind == "incident":
            name = _title(leaf.facts, index)
            if leaf.facts.get("state") == "closed":
                closed.add(name)
            detail = ", ".join(
                f"{key.replace('-', ' ')}: {text}"
                for key, text in leaf.facts.items()
                if key not in {"incident", "title", "state", "event"}
            )
            found.append(IncidentRow(index, leaf.time, "incident", name, detail, True))
    done = [msgspec.structs.replace(one, open=one.open and one.title not in closed)
            for one in found]  # fmt: skip
    return sorted(done, key=lambda one: -one.leaf)
