"""Assembling a report of a level out of states and lowered values."""

from collections.abc import Mapping

from safehold.canonical import canonical, sha256_hex
from safehold.govern.report.case import case_sha256
from safehold.govern.report.interface import (
    Audience,
    CaseSources,
    ClaimView,
    EvidenceView,
    NodeState,
    Report,
    SafetyCase,
)
from safehold.govern.report.judge import judge_case
from safehold.govern.report.level import Lowered, lowered


def build_report(case: SafetyCase, sources: CaseSources, level: Audience) -> Report:
    """Judge on everything, then lower, then assemble from what the level may show."""
    return _assemble(
        lowered(case, sources, level),
        judge_case(case, sources),
        title=case.title,
        at=sources.at,
        bundle=sources.bundle,
        digest=case_sha256(case) if level is Audience.INTERNAL else "",
    )


def report_sha256(report: Report) -> str:
    """Return the digest that is signed."""
    return sha256_hex(canonical(report))


def _assemble(
    view: Lowered,
    states: Mapping[str, NodeState],
    *,
    title: str,
    at: int,
    bundle: str,
    digest: str,
) -> Report:
    claims = []
    for name, one in view.nodes.items():
        below = one.node.supported_by
        shown = tuple(two for two in below if two in view.nodes)
        held = one.node.evidence or ""
        claims.append(
            ClaimView(
                id=name,
                kind=one.node.kind,
                section=one.node.section,
                text=one.text,
                state=states[name].state,
                why=tuple(reason.value for reason in states[name].why),
                supported_by=shown,
                evidence=held if held in view.evidence else "",
                demand=one.demand,
                withheld=len(below) - len(shown),
            )
        )
    evidence = tuple(
        EvidenceView(
            id=name,
            kind=one.kind,
            made=one.made,
            until=one.until,
            bundle=one.bundle,
            fields=view.words[name],
        )
        for name, one in sorted(view.evidence.items())
    )
    return Report(
        title=title,
        level=view.level,
        at=at,
        bundle=bundle,
        case_sha256=digest,
        claims=tuple(claims),
        evidence=evidence,
        doubts=view.doubts,
    )
