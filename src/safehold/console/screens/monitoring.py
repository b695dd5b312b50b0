"""The monitor: open cases with their playbooks, and what the scans covered."""

import msgspec

from safehold.console.shell.access import PageVisit
from safehold.console.sources import ConsoleSources
from safehold.detect.monitoring.cases.book import CaseBook
from safehold.detect.monitoring.scan.coverage import ScannerCoverage, scan_coverage

_SHOWN = 100
_LEVELS = {1: "plain", 2: "warn", 3: "warn", 4: "bad"}


class OpenCase(msgspec.Struct, frozen=True, kw_only=True):
    """One open case, with what to do about it."""

    key: str
    kind: str
    level: str
    title: str
    severity: int
    opened_at: float
    facts: dict[str, str]
    evidence: tuple[str, ...]
    playbook: tuple[str, ...]


class Monitored(msgspec.Struct, frozen=True, kw_only=True):
    """The open cases, worst first, and every scanner's coverage."""

    cases: tuple[OpenCase, ...]
    more: int
    scanners: tuple[ScannerCoverage, ...]


def monitored(visit: PageVisit[ConsoleSources]) -> Monitored:
    """Return what the monitor's database holds; nothing where there is none."""
    store = visit.sources.monitor
    if store is None:
        return Monitored(cases=(), more=0, scanners=())
    found = CaseBook(store).all()
    shown = tuple(
        OpenCase(
            key=one.key,
            kind=one.kind.value,
            level=_LEVELS.get(one.severity, "plain"),
            title=one.title,
            severity=one.severity,
            opened_at=one.opened_at,
            facts=one.facts,
            evidence=one.evidence,
            playbook=one.playbook,
        )
        for one in found[:_SHOWN]
    )
    return Monitored(
        cases=shown, more=len(found) - len(shown), scanners=tuple(scan_coverage(store))
    )
