"""Rollout: which bundle guards now, what is released to guard next, and one button that goes back.

Going back is one person's act. Going on is not: a bundle is promoted only when the release in force
holds it, and what lets a release take effect is a grant in the transparency log.
"""

from pathlib import Path

import msgspec
from sqlalchemy import select

from safehold.console.screens.approvals import OpenRequest, open_requests
from safehold.console.screens.response import ResponseCase, responses
from safehold.console.shell.access import ConsoleRole, Done, PageVisit
from safehold.console.sources import ConsoleSources, GatewayStatus
from safehold.errors import SafeholdError, UpstreamError, UsageError
from safehold.guard.ledger.codec import to_entry
from safehold.guard.ledger.interface import EventRow
from safehold.guard.ledger.schema import EVENTS
from safehold.trust.release.interface import Artefact, ArtefactKind, ReleaseError
from safehold.trust.released.follow import ReleaseLog

_SHOWN = 30
_KINDS = ("start", "bundle_swap", "bundle_refused", "canary", "surface_closed", "surface_opened")


class GuardEvent(msgspec.Struct, frozen=True):
    """A change around the guard, as the ledger has it."""

    seq: int
    at: float
    kind: str
    surface: str
    detail: str


class ReleasedGuard(msgspec.Struct, frozen=True):
    """A bundle or a file of rules that the release in force holds."""

    name: str
    digest: str
    place: str
    """`now`, `before`, or empty: it may be promoted."""


class GuardRelease(msgspec.Struct, frozen=True, kw_only=True):
    """The release in force, as the log, its documents and its grants give it."""

    said: str
    version: int = 0
    operation: str = ""
    expires: float = 0.0
    guards: tuple[ReleasedGuard, ...] = ()


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's own word on its bundles, and the ledger's on what changed."""

    gateway: GatewayStatus | None
    said: str
    rows: tuple[GuardEvent, ...]
    may_roll_back: bool
    may_promote: bool
    release: GuardRelease
    waiting: tuple[OpenRequest, ...]
    """Releases that somebody asked for and not enough have approved."""
    responses: tuple[ResponseCase, ...]
    """Challengers with their gates."""


class RollBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Go back; `from_bundle` is the digest on the page, so that nobody goes back twice."""

    from_bundle: str


class Promote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Go on to `to_bundle`; `from_bundle` is what the page said guards now."""

    from_bundle: str
    to_bundle: str


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
    asked = [one for one in open_requests(visit) if one.operation.startswith("release.")]
    return Rollout(
        gateway=status,
        said=said,
        rows=tuple(_events(visit)),
        may_roll_back=bool(able and status is not None and status.previous),
        may_promote=ConsoleRole.RELEASER in visit.roles and status is not None,
        release=_release(visit.sources.releases, status),
        waiting=tuple(asked),
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


def promote(visit: PageVisit[ConsoleSources], posted: Promote) -> Done:
    """Have the gateway go on to a bundle that the release in force holds.

    Raises:
        UsageError: another bundle guards by now, or the challenger's gates refused this one.
        TrustError: no release in force holds it.
        UpstreamError: the gateway refused, does not answer, or took another bundle of that name.
    """
    link, log = visit.sources.gateway, visit.sources.releases
    if link is None or log is None:
        named = "no gateway (option --gateway)" if link is None else "no releases (--releases)"
        raise UpstreamError(f"{named} named: what guards next is decided by a release")
    if link.status().bundle != posted.from_bundle:
        raise UsageError("another bundle guards by now: load the page again")
    for case in responses(visit):
        if case.challenger == posted.to_bundle and not case.passed:
            raise UsageError(f"the gates of {case.id} refused this bundle: mend it first")
    held = next((one for one in _guards(log) if one.sha256 == posted.to_bundle), None)
    if held is None:
        raise ReleaseError("the release in force does not hold this bundle: ask for its release")
    digest = link.swap(Path(held.path).name)
    if digest != posted.to_bundle:
        raise UpstreamError(f"the gateway's folder holds another bundle there: {digest[:8]}")
    return Done(f"Promoted: {digest[:8]} guards now.", "/rollout")


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _guards(log: ReleaseLog) -> list[Artefact]:
    kinds = {ArtefactKind.BUNDLE, ArtefactKind.RULES}
    return [one for one in log.current().current.artefacts if one.kind in kinds]


def _release(log: ReleaseLog | None, status: GatewayStatus | None) -> GuardRelease:
    if log is None:
        return GuardRelease(said="no releases are named (option --releases): nothing is promoted")
    try:
        found = log.current()
    except SafeholdError as error:
        return GuardRelease(said=str(error))
    places = {} if status is None else {status.bundle: "now", status.previous: "before"}
    return GuardRelease(
        said="",
        version=found.current.version,
        operation=found.operation,
        expires=found.current.expires,
        guards=tuple(
            ReleasedGuard(Path(one.path).name, one.sha256, places.get(one.sha256, ""))
            for one in found.current.artefacts
            if one.kind in {ArtefactKind.BUNDLE, ArtefactKind.RULES}
        ),
    )


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
            detail=", ".join(f"{key}: {_word(value)}" for key, value in one.row.detail.items()),
        )
        for one in found
        if isinstance(one.row, EventRow)
    ]
