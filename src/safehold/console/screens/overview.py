"""Overview: is everything well, and what needs you?"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from safehold.console.index import AuditedCoverage, Hour
from safehold.console.screens.approvals import open_requests
from safehold.console.screens.enclave import newest_row
from safehold.console.screens.incidents import open_incidents
from safehold.console.screens.review import SEVERITIES
from safehold.console.shell.access import PageVisit
from safehold.console.sources import ConsoleSources, GatewayStatus
from safehold.detect.review.interface import ReviewVerdict
from safehold.errors import SafeholdError
from safehold.stats import Rate
from safehold.trust.exemptions.exemption_book import WARN_DAYS

_HIGH = 3

_DAY_S = 86_400
Level = Literal["ok", "warn", "bad"]


class Todo(msgspec.Struct, frozen=True):
    """Something that waits for a person: how pressing, what, since when, and where to act."""

    level: Level
    label: str
    text: str
    detail: str
    act: str
    where: str


class Check(msgspec.Struct, frozen=True):
    """One check and how it stands, in words."""

    name: str
    level: Level
    said: str


class Expiry(msgspec.Struct, frozen=True):
    """Something that ends by itself."""

    what: str
    at: float
    where: str


class EgressStand(msgspec.Struct, frozen=True):
    """What left unexplained since the last review, and the line that blocks everything."""

    said: str
    residual: float = 0.0
    line: int = 0
    at: float = 0.0


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the first page shows."""

    ledger_row: int
    behind: int
    gateway: GatewayStatus | None
    gateway_said: str
    blocked: Rate
    would_block: Rate
    false_alarms: Rate
    queue: int
    oldest_s: float | None
    incidents: int
    incident_since_s: float | None
    egress: EgressStand
    hours: tuple[Hour, ...]
    todo: tuple[Todo, ...]
    checks: tuple[Check, ...]
    expiries: tuple[Expiry, ...]


def overview(visit: PageVisit[ConsoleSources]) -> Overview:
    """Return how everything stands."""
    sources = visit.sources
    hours = sources.index.hours(visit.now - _DAY_S)
    total = sum(one.exchanges for one in hours)
    gateway, said = _gateway(sources)
    newest = sources.reader.tail(1)
    row = newest[-1].seq if newest else 0
    cases = sources.cases.cases()
    waiting = [one for one in cases if one.waiting]
    incidents = open_incidents(visit)
    coverage = sources.index.coverage()
    return Overview(
        ledger_row=row,
        behind=max(0, row - sources.index.cursor()),
        gateway=gateway,
        gateway_said=said,
        blocked=Rate(sum(one.blocked for one in hours), total),
        would_block=Rate(sum(one.would_block for one in hours), total),
        false_alarms=_false_alarms(sources),
        queue=sum(one.waiting for one in cases),
        oldest_s=max((visit.now - one.opened_at for one in waiting), default=None),
        incidents=len(incidents),
        incident_since_s=max((visit.now - one.at for one in incidents), default=None),
        egress=_egress(visit),
        hours=tuple(hours),
        todo=tuple(_todo(visit)),
        checks=tuple(_checks(coverage, gateway, said, visit.now)),
        expiries=tuple(_expiries(visit)),
    )


def _egress(visit: PageVisit[ConsoleSources]) -> EgressStand:
    path = visit.sources.timeline
    if path is None:
        return EgressStand("no timeline is named (option --timeline)")
    try:
        row = newest_row(path)
    except SafeholdError as error:
        return EgressStand(str(error))
    if row is None:
        return EgressStand("the timeline is empty")
    return EgressStand("", sum(row.residual.values()), row.line, row.time)


def _gateway(sources: ConsoleSources) -> tuple[GatewayStatus | None, str]:
    if sources.gateway is None:
        return None, "no gateway is named (option --gateway)"
    try:
        return sources.gateway.status(), ""
    except SafeholdError as error:
        return None, str(error)


def _false_alarms(sources: ConsoleSources) -> Rate:
    """Return, of blocked exchanges that a person judged, how many were permitted."""
    verdicts = sources.cases.verdicts()
    outcomes = sources.index.outcomes([one.decision_id for one in verdicts])
    judged = [
        one.verdict
        for one in verdicts
        if outcomes.get(one.decision_id) == "blocked_by_guard"
        and one.verdict != ReviewVerdict.CANT_TELL.value
    ]
    return Rate(sum(one == ReviewVerdict.PERMITTED.value for one in judged), len(judged))


def _todo(visit: PageVisit[ConsoleSources]) -> Sequence[Todo]:
    found: list[Todo] = []
    found += [
        Todo("bad", "incident", one.title, one.detail, "Look", "/incidents")
        for one in open_incidents(visit)[:3]
    ]
    for case in visit.sources.cases.cases()[:4]:
        if case.waiting:
            level: Level = "bad" if case.severity >= _HIGH else "warn"
            about = f"Case {case.case}: {case.kind.replace('_', ' ')}"
            detail = f"{case.waiting} of {case.items} wait"
            if case.account:
                detail += f" · {case.account}"
            found.append(
                Todo(
                    level,
                    SEVERITIES[case.severity],
                    about,
                    detail,
                    "Open case",
                    f"/review/cases/{case.case}",
                )
            )
    for asked in open_requests(visit)[:3]:
        text = f"{asked.operation}: {asked.purpose}"
        detail = f"{asked.approvals} approved so far"
        where = f"/approvals/{asked.sha256}"
        found.append(Todo("ok", "approval", text, detail, "Read it", where))
    return found


def _checks(
    coverage: AuditedCoverage | None, gateway: GatewayStatus | None, said: str, now: float
) -> Sequence[Check]:
    checks: list[Check] = []
    if gateway is None:
        checks.append(Check("gateway", "warn", said))
    else:
        closed = [name for name, state in gateway.surfaces.items() if state != "open"]
        checks.append(
            Check(
                "gateway is ready",
                "ok" if gateway.ready else "bad",
                "ready" if gateway.ready else gateway.why,
            )
        )
        checks.append(
            Check("surfaces", "warn" if closed else "ok", ", ".join(closed) + " closed")
            if closed
            else Check("surfaces", "ok", f"{len(gateway.surfaces)} open")
        )
    if coverage is None:
        checks.append(Check("coverage audit", "warn", "not run yet"))
        return checks
    found = coverage.found
    surplus = sum(one.unscored_bytes for one in found.surfaces.values())
    lost = sum(one.crashed + one.stalled for one in found.surfaces.values())
    ago = f"audited {max(0, now - coverage.at):.0f} s ago"
    checks += [
        Check(
            "bytes delivered = bytes scored",
            "bad" if surplus else "ok",
            f"{surplus:,} surplus",
        ),
        Check(
            "rows without a hole",
            "bad" if found.missing_rows else "ok",
            f"{found.missing_rows:,} missing",
        ),
        Check("exchanges that ended", "warn" if lost else "ok", f"{lost:,} did not"),
        Check("whole audit", "bad" if found.gaps else "ok", ago),
    ]
    return checks


def _expiries(visit: PageVisit[ConsoleSources]) -> Sequence[Expiry]:
    soon = visit.now + WARN_DAYS[0] * _DAY_S
    found = [
        Expiry(f"exemption of {one.terms.subject.id}", float(one.expires), "/exemptions")
        for one in visit.sources.desk.state.exemptions()
        if not one.ended and visit.now < one.expires <= soon
    ]
    found += [
        Expiry(f"request {one.operation}", float(one.expires), f"/approvals/{one.sha256}")
        for one in open_requests(visit)
    ]
    return sorted(found, key=lambda one: one.at)[:6]
