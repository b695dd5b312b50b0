"""Grants and holds as the review desk uses them: the transparency log's, and the ledger's."""

import time
from collections.abc import Callable, Sequence

from safehold.detect.review.interface import CaseAction
from safehold.errors import TrustError
from safehold.guard.ledger.holds import LONGEST_HOLD_S, hold, let_go
from safehold.trust.grants.details import AccountStep
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.interface import Granted


class GrantAuthority:
    """Spends a grant for a case's action: operation `account.ACTION`, resource `case-N`."""

    def __init__(self, desk: Desk) -> None:
        """Take the desk of the log that holds the grants."""
        self._desk = desk

    def spend(
        self,
        action: CaseAction,
        *,
        case: int,
        account: str | None,
        grant_id: str,
        judges: frozenset[str],
    ) -> None:
        """Spend one use.

        Raises:
            TrustError: the grant is for something else or for another account than the one that was
                judged, does not hold, a judge is nobody of the
                roster, or a person who judged the case approved it: then fewer people stand behind
                the action than it needs.
        """
        with self._desk.store.exclusive():
            # A name that the roster does not know may be anybody's second name.
            roster = self._desk.state.roster
            unknown = sorted(name for name in judges if roster.person(name) is None)
            if unknown:
                raise TrustError(
                    f"{', '.join(unknown)}: expected judges by their ids in the roster (p-...)"
                )
            asked = self._desk.state.case(grant_id).signed.request
            wanted = f"account.{action.value.replace('_', '-')}"
            if asked.operation != wanted or asked.resource.name != f"case-{case}":
                raise TrustError(f"expected a grant of {wanted} for case-{case}, got another")
            named = asked.details.account if isinstance(asked.details, AccountStep) else None
            if account is None or named != account:
                raise TrustError(
                    f"expected a grant about the account of case {case} ({account or 'none'}), "
                    f"got one about {named or 'none'}"
                )
            decision = self._desk.state.decide(asked.sha256, self._desk.now())
            both = judges & set(decision.approvers) if isinstance(decision, Granted) else ()
            if both:
                raise TrustError(
                    f"{', '.join(sorted(both))} judged case {case} and approved the grant: "
                    "expected other approvers"
                )
            self._desk.use(asked.sha256, host=asked.host, workload_sha256=asked.workload_sha256)


class LedgerHolds:
    """Holds decisions in a ledger under the case's name."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Take the ledger's path or URL."""
        self._url, self._clock = url, clock

    def hold(self, decision_ids: Sequence[str], *, case: int) -> None:
        """Keep these decisions from pruning, for the longest time that a hold may last.

        Raises:
            LedgerError: the ledger can't be written.
        """
        now = self._clock()
        hold(self._url, decision_ids, holder=f"case-{case}", until=now + LONGEST_HOLD_S, now=now)

    def let_go(self, *, case: int) -> None:
        """End the case's holds.

        Raises:
            LedgerError: the ledger can't be written.
        """
        let_go(self._url, holder=f"case-{case}")
