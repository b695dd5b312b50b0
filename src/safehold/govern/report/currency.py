"""Whether a report still says what is known: evidence that ended since, and evidence that is newer.

A report is true of its moment. A page that verifies can still be a page of last year.
"""

from collections.abc import Iterable

import msgspec

from safehold.govern.report.interface import CaseEvidence, Report


class OutdatedEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence of a report that should be made again; times in POSIX seconds."""

    id: str
    made: int
    until: int
    newer: int | None
    """When the newest evidence of this id was made that the report does not have; None: none."""

    def words(self) -> str:
        """Return it in one line."""
        if self.newer is not None:
            return f"{self.id}: made {self.made}; newer evidence of {self.newer} is not in it"
        return f"{self.id}: held until {self.until}"


def outdated(
    report: Report, at: int, found: Iterable[CaseEvidence] = ()
) -> tuple[OutdatedEvidence, ...]:
    """Return the evidence of a report that holds no longer, or that newer evidence replaces.

    Args:
        report: The report.
        at: Now, POSIX seconds.
        found: The evidence that there is now; of an id that the report lacks nothing is said, for
            a level may withhold it.
    """
    newest: dict[str, int] = {}
    for there in found:
        newest[there.id] = max(there.made, newest.get(there.id, there.made))
    rows = []
    for one in report.evidence:
        later = newest.get(one.id, one.made)
        newer = later if later > one.made else None
        if newer is not None or not one.made <= at < one.until:
            rows.append(OutdatedEvidence(id=one.id, made=one.made, until=one.until, newer=newer))
    return tuple(rows)
