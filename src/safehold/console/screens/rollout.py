"""Rollout: which bundle guards now, how it came there, and one button that goes back."""

import msgspec
from sqlalchemy import select

from safehold.console.screens.response import ResponseCase, responses
from safehold.console.shell.access import ConsoleRole, Done, PageVisit
from safehold.console.sources import ConsoleSources, GatewayStatus
from safehold.errors import SafeholdError, UpstreamError, UsageError
from safehold.guard.ledger.codec import to_entry
from safehold.guard.ledger.interface import EventRow
from safehold.guard.ledger.schema import EVENTS

_SHOWN = 30
_KINDS = ("start", "bundle_swap", "bundle_refused", "canary", "surface_closed", "surface_opened")


class GuardEvent(msgspec.Struct, frozen=True):
    """A change around the guard, as the ledger has it."""

    seq: int
    at: float
    kind: str
    surface: str
    detail: str


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's own word on its bundles, and the ledger's on what changed."""

    gateway: GatewayStatus | None
    said: str
    rows: tuple[GuardEvent, ...]
    may_roll_back: bool
    responses: tuple[ResponseCase, ...]
    """Challengers with their gates."""


class RollBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Go back; `from_bundle` is the digest on the page, so that nobody goes back twice."""

    from_bundle: str


def rollout(visit: PageVisit[ConsoleSources]) -> Rollout:
    """Return how the guard's bundles stand."""
    link = visit.sources.gateway
    status, said = None, "no gateway is named (option --gateway)"
    if link is not None:
        try:
            status, said = link.status(), ""
        except SafeholdError as error:
            said = str(error)
    able = {ConsoleRole.RESPONDER, ConsoleRole.RELEASER, ConsoleRole.LEAD} & visit.roles
    return Rollout(
        gateway=status,
        said=said,
        rows=tuple(_events(visit)),
        may_roll_back=bool(able and status is not None and status.previous),
        responses=tuple(one for one in responses(visit) if one.gates),
    )


def roll_back(visit: PageVisit[ConsoleSources], posted: RollBack) -> Done:
    """Have the gateway return to the bundle before.

    Raises:
        UsageError: another bundle guards by now.
        UpstreamError: the gateway refused, or does not answer.
    """
    link = visit.sources.gateway
    if link is None:
        raise UpstreamError("no gateway is named (option --gateway)")
    if link.status().bundle != posted.from_bundle:
        raise UsageError("another bundle guards by now: load the page again")
    digest = link.roll_back()
    return Done(f"Rolled back: {digest[:8]} guards now.", "/rollout")


def _events(visit: PageVisit[ConsoleSources]) -> list[GuardEvent]:
    query = (
        select(EVENTS).where(EVENTS.c.kind.in_(_KINDS)).order_by(EVENTS.c.seq.desc()).limit(_SHOWN)
    )
    with visit.sources.reader.snapshot() as connection:
        found = [to_entry(EventRow, dict(row)) for row in connection.execute(query).mappings()]
    return [
        GuardEvent(
            seq=one.seq,
            at=one.row.at,
            kind=one.row.kind.value.replace("_", " "),
            surface=one.row.surface or "",
            detail=", ".join(f"{key}: {value}" for key, value in one.row.detail.items()),
        )
        for one in found
        if isinstance(one.row, EventRow)
    ]
