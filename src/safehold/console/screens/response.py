"""The response clock: how far each incident's response has come, and its challenger's gates."""

import msgspec

from safehold.console.shell.access import PageVisit
from safehold.console.sources import ConsoleSources
from safehold.errors import SafeholdError
from safehold.improve.response.case import STEPS, IncidentCase
from safehold.improve.response.gates import GateVerdict

_MOST = 20


class ResponseStep(msgspec.Struct, frozen=True):
    """One step; `at` is when it was done, None while it is not."""

    name: str
    at: float | None
    after_s: float | None
    """Seconds since the incident was found."""


class ResponseCase(msgspec.Struct, frozen=True, kw_only=True):
    """One incident's response; never its text."""

    id: str
    kind: str
    clause: str
    source: str
    found_at: float
    steps: tuple[ResponseStep, ...]
    approved_by: tuple[str, ...]
    champion: str
    challenger: str
    gates: tuple[GateVerdict, ...]
    passed: bool
    trouble: str = ""


def responses(visit: PageVisit[ConsoleSources]) -> tuple[ResponseCase, ...]:
    """Return the responses in the named folder, newest incident first."""
    folder = visit.sources.response
    if folder is None or not folder.is_dir():
        return ()
    found = [
        _read(IncidentCase(one)) for one in folder.iterdir() if (one / "incident.json").is_file()
    ]
    return tuple(sorted(found, key=lambda one: -one.found_at)[:_MOST])


def _read(case: IncidentCase) -> ResponseCase:
    done = case.done()
    try:
        incident = case.incident()
        report = case.report() if "report" in done else None
        approvals = tuple(one.person for one in case.approvals())
    except SafeholdError as error:
        return ResponseCase(
            id=case.folder.name, kind="", clause="", source="", found_at=0.0, steps=(),
            approved_by=(), champion="", challenger="", gates=(), passed=False,
            trouble=str(error),
        )  # fmt: skip
    steps = [
        ResponseStep(
            name, done.get(name), max(0.0, done[name] - incident.at) if name in done else None
        )
        for name in STEPS
    ]
    return ResponseCase(
        id=incident.id,
        kind=incident.kind.value,
        clause=incident.clause,
        source=incident.source,
        found_at=float(incident.at),
        steps=tuple(steps),
        approved_by=approvals,
        champion="" if report is None else report.champion,
        challenger="" if report is None else report.challenger,
        gates=() if report is None else report.gates,
        passed=report is not None and report.passed,
    )
