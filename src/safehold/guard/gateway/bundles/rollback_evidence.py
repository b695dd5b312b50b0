"""When a challenger on trial is rolled back: odds on the false alarms of its own.

Two worlds are compared by their likelihoods. In one the challenger refuses as many benign exchanges
wrongly as the champion, whose rate is known from before the trial; in the other it refuses `rise`
more. What the two bundles have in common is not known, so the second world is an equal mixture over
shares of the champion's alarms that are not the challenger's. Only exchanges on which they differ
are evidence: both refuse an attack as well.

1. At any time the odds of `at_once` to one roll it back. The odds are a betting e-process: where
   the first world is true and nothing is in common, they are a supermartingale that begins at 1, so
   they ever reach 50 with chance at most 2 % (Ville; Ramdas et al., "Game-theoretic statistics and
   safe anytime-valid inference", Statistical Science 38 (2023)).
2. At the planned number of exchanges, once, the likelier world decides. Rare alarms are too few for
   an e-process of 20 to 1 to find a rise in 2,000 exchanges and be right 95 times of 100 either
   way; how often this test errs is computed exactly by `rollback_chance`.

A rollback always wants more alarms of the challenger's own than of the champion's own.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated

import msgspec

_APART = (0.0, 0.5, 1.0)
"""Shares of the champion's false alarms that the challenger does not have too."""
_MOST = 40
"""Alarms of either that are followed exactly; a chance beyond it is below 1e-12 at usual rates."""
_LEAST_CHANCE = 1e-10
"""A history less likely than this is not followed on; all of them together are below 1e-4."""
_Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class RollbackRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is compared: the champion's rate of false alarms, the rise, and the plan.

    `champion` is the share of benign exchanges that the champion is known to refuse wrongly; a
    figure below the truth makes it likelier that a bundle that merely differs is rolled back.
    After `exchanges` the likelier world decides; before and later it takes odds of `at_once`.
    """

    champion: _Share = 0.001
    rise: _Share = 0.004
    exchanges: Annotated[int, msgspec.Meta(ge=1)] = 2_000
    at_once: Annotated[float, msgspec.Meta(ge=1)] = 50.0


class RollbackEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many exchanges were judged, and which of the two alone refused how many."""

    exchanges: int = 0
    own_alarms: int = 0
    """Exchanges that the challenger alone refused."""
    champions: int = 0
    """Exchanges that the champion alone refused."""
    rolled_back: bool = False
    """What was once enough stays enough."""

    def many(
        self, exchanges: int, own_alarms: int, rules: RollbackRules, *, champions: int = 0
    ) -> "RollbackEvidence":
        """Return the evidence after some more exchanges of which so many were one's own alarms."""
        seen = self.exchanges + exchanges
        own, theirs = self.own_alarms + own_alarms, self.champions + champions
        planned = self.exchanges < rules.exchanges <= seen
        return RollbackEvidence(
            exchanges=seen,
            own_alarms=own,
            champions=theirs,
            rolled_back=self.rolled_back or _enough(seen, own, theirs, rules, planned=planned),
        )


def log_odds(exchanges: int, own: int, theirs: int, rules: RollbackRules) -> float:
    """Return the logarithm of the odds that the challenger refuses `rise` more."""
    found: list[float] = []
    for apart in _APART:
        common = rules.champion * apart
        if theirs and not common:
            continue
        refused = common + rules.rise
        found.append(
            own * math.log(refused / rules.champion)
            + (theirs * math.log(apart) if theirs else 0.0)
            - exchanges * (refused + common - 2 * rules.champion)
        )
    peak = max(found)
    return peak + math.log(math.fsum(math.exp(one - peak) for one in found) / len(_APART))


def _enough(exchanges: int, own: int, theirs: int, rules: RollbackRules, *, planned: bool) -> bool:
    needed = 0.0 if planned else math.log(rules.at_once)
    return own > theirs and log_odds(exchanges, own, theirs, rules) >= needed


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


def rollback_chance(own: float, theirs: float, most: int, rules: RollbackRules) -> float:
    """Return the chance of a rollback within `most` exchanges, by recursion over all histories.

    `own` and `theirs` are the rates at which the challenger alone and the champion alone refuse.
    """
    held = {(0, 0): 1.0}
    back = 0.0
    least = lru_cache(maxsize=None)(lambda at, count: _least(at, count, rules))
    for at in range(1, most + 1):
        fresh: dict[tuple[int, int], float] = {}
        for (mine, other), chance in held.items():
            moves = (
                (mine, other, chance * (1 - own - theirs)),
                (min(mine + 1, _MOST), other, chance * own),
                (mine, min(other + 1, _MOST), chance * theirs),
            )
            for a, b, part in moves:
                if part:
                    fresh[a, b] = fresh.get((a, b), 0.0) + part
        held = {}
        for (mine, other), chance in fresh.items():
            if mine >= least(at, other):
                back += chance
            elif chance > _LEAST_CHANCE:
                held[mine, other] = chance
    return back


def _least(exchanges: int, theirs: int, rules: RollbackRules) -> int:
    """Return the fewest own alarms that are enough."""
    planned = exchanges == rules.exchanges
    for own in range(theirs + 1, _MOST + 1):
        if _enough(exchanges, own, theirs, rules, planned=planned):
            return own
    return _MOST + 1
