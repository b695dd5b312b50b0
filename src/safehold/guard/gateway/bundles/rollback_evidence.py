"""When a challenger on trial is rolled back: a betting e-process on its own false alarms.

The hypothesis is that the challenger refuses at most `tolerated` of the exchanges that are benign
and that the champion lets pass. Each exchange multiplies the wealth of a few bets against it by a
likelihood ratio; under the hypothesis the wealth is a non-negative supermartingale of mean at most
1, so it ever reaches 1/`alpha` with chance at most `alpha`, whenever one looks (Ville; Waudby-Smith
and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024)).

A rollback also wants clearly more alarms of the challenger's own than of the champion's own, which
can only make it rarer: two bundles that merely differ have about as many of either.
"""

import math
from collections.abc import Iterable

import msgspec

_RATES = (4.0, 8.0, 16.0)
"""The bets: rates of so many times what is tolerated."""


class RollbackRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is tolerated: the rate of false alarms of the challenger's own, and false rollbacks.

    A rollback wants `clearly` times the champion's own alarms and two more.
    """

    tolerated: float = 0.0003
    alpha: float = 0.05
    clearly: float = 1.5


class RollbackEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wealth of each bet as a logarithm, and what it came from."""

    logs: tuple[float, ...] = (0.0,) * len(_RATES)
    exchanges: int = 0
    own_alarms: int = 0
    champions: int = 0
    """Exchanges that the champion alone refused."""
    rolled_back: bool = False
    """What was once enough stays enough."""

    def many(
        self, exchanges: int, own_alarms: int, rules: RollbackRules, *, champions: int = 0
    ) -> "RollbackEvidence":
        """Return the evidence after some more exchanges of which so many were one's own alarms."""
        logs = tuple(
            log
            + own_alarms * math.log(times)
            + (exchanges - own_alarms)
            * (math.log1p(-times * rules.tolerated) - math.log1p(-rules.tolerated))
            for log, times in zip(self.logs, _RATES, strict=True)
        )
        peak = max(logs)
        whole = peak + math.log(math.fsum(math.exp(one - peak) for one in logs) / len(logs))
        own, theirs = self.own_alarms + own_alarms, self.champions + champions
        enough = whole >= -math.log(rules.alpha) and own >= rules.clearly * theirs + 2
        return RollbackEvidence(
            logs=logs,
            exchanges=self.exchanges + exchanges,
            own_alarms=own,
            champions=theirs,
            rolled_back=self.rolled_back or enough,
        )


def until_rollback(alarms: Iterable[tuple[bool, bool]], rules: RollbackRules) -> int | None:
    """Return after how many exchanges a challenger is rolled back; None if it is not.

    Each exchange says whether the champion and the challenger refused it wrongly.
    """
    evidence = RollbackEvidence()
    for champion, challenger in alarms:
        evidence = evidence.many(
            1,
            int(challenger and not champion),
            rules,
            champions=int(champion and not challenger),
        )
        if evidence.rolled_back:
            return evidence.exchanges
    return None
