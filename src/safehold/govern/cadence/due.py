"""What falls due: reviews, evaluations, results, attestations, exceptions, evidence, clocks."""

from collections.abc import Iterable, Iterator

import msgspec

from safehold.govern.cadence.incidents import CadenceError, Moment, deadlines
from safehold.govern.controls.accepted import accepted
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import ControlResult
from safehold.govern.report.interface import Report
from safehold.trust.standing.interface import Determination, EvaluationRun, StandingRecord

_PARTIES = 2
"""Who must have looked at what broke: two parties."""


class DueItem(msgspec.Struct, frozen=True):
    """One thing and when it falls due (POSIX seconds)."""

    due: int
    what: str

    def overdue(self, at: int) -> bool:
        """Whether its time has come."""
        return at >= self.due


def of_records(records: Iterable[StandingRecord]) -> Iterator[DueItem]:
    """Yield the review of each determination that holds, and the expiry of its evaluations."""
    newest: dict[tuple[str, str], Determination] = {}
    many = list(records)
    for one in many:
        if isinstance(one, Determination):
            newest[one.model, one.threshold] = one
    used = {index for one in newest.values() for index in one.basis}
    for held in newest.values():
        yield DueItem(held.next_review, f"review of {held.threshold} for model {held.model[:8]}")
    for one in many:
        if isinstance(one, EvaluationRun) and one.index in used:
            yield DueItem(one.expires, f"evaluation {one.suite} of model {one.model[:8]}")


def of_results(results: Iterable[ControlResult]) -> Iterator[DueItem]:
    """Yield when each satisfied control must be judged again."""
    for one in results:
        if one.satisfied:
            yield DueItem(one.until, f"control {one.control}")


def of_acceptances(log: LogReading, at: int) -> Iterator[DueItem]:
    """Yield when attestations and exceptions end, and the reviews of broken glass."""
    kept = accepted(log, at)
    for one in kept.attested.values():
        yield DueItem(one.expires, f"attestation of {one.control} by {one.owner}")
    for one in kept.excepted.values():
        yield DueItem(one.expires, f"exception for {one.control} of {one.owner}")
    for case in log.cases:
        if case.broken_at is not None and len(set(case.reviewers)) < _PARTIES:
            yield DueItem(case.reviews_until, f"reviews of break-glass {case.request[:8]}")


def of_incidents(log: LogReading) -> Iterator[DueItem]:
    """Yield the clocks of every open incident: a leaf `incident` names its kinds and moments."""
    closed = {one.facts.get("id") for one in log.of_kind("case-close")}
    for leaf in log.of_kind("incident"):
        name = leaf.facts.get("id", "?")
        if name in closed:
            continue
        kinds = tuple(leaf.facts.get("kinds", "").replace(",", " ").split())
        moments = {Moment.AWARE: leaf.time}
        for moment in Moment:
            said = leaf.facts.get(moment.value, "")
            if said.isdigit():
                moments[moment] = int(said)
        try:
            found = deadlines(kinds, moments)
        except CadenceError as error:
            yield DueItem(leaf.time, f"incident {name}: {error}")
            continue
        done = set(leaf.facts.get("done", "").replace(",", " ").split())
        for one in found:
            if one.due is not None and one.clock.id not in done:
                yield DueItem(one.due, f"incident {name}: {one.clock.what} ({one.clock.id})")


def of_report(made: Report) -> Iterator[DueItem]:
    """Yield when each piece of evidence of a report ends."""
    for one in made.evidence:
        yield DueItem(one.until, f"evidence {one.id}")


def agenda(items: Iterable[DueItem], *, at: int, days: int) -> tuple[DueItem, ...]:
    """Return what is overdue or falls due within so many days, the earliest first."""
    soon = at + days * 86_400
    return tuple(
        sorted((one for one in items if one.due <= soon), key=lambda one: (one.due, one.what))
    )
