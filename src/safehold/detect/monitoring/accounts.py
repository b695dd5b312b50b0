"""Accounts: statistics that hold at any time, so that looking every day costs no false alarm.

Three rates and two counts for each account, each a few numbers that one exchange updates:

1. *Block rate*: how often the guard stops the account.
2. *Search walk*: how often a stopped text resembles one of the account's last stopped texts, which
   is what an optimising search does and a clumsy user seldom.
3. *Workflow*: how often what the account asked or got within a day would be stopped if it were one
   text, although the exchange itself was not: a workflow in pieces. Harmless questions in one text
   are hot too, so a day counts only above a line that honest accounts' days hardly ever reach.
4. *Lineage*: the longest chain of resembling stopped texts; a count, so that harmless traffic in
   between does not dilute it.
5. *Stages*: how many distinct stages of one clause's workflow the account was given within a day; a
   count too, and one stage asked ten times is one.

A rate's evidence is a mixture of likelihood ratios against "the rate is at most the cap". Its
expectation under that is at most one at every moment, so by Ville's inequality it ever exceeds
1/alpha with a probability of at most alpha (Ville 1939; Howard et al., "Time-uniform Chernoff
bounds", 2020). Over all accounts e-BH controls false discoveries under any dependence (Wang and
Ramdas, 2022).
"""

import math
from collections.abc import Collection, Iterator, Sequence

import msgspec
import numpy as np

from safehold.detect.monitoring.workflow import (
    StageSeen,
    Workflows,
    WorkflowScore,
    seen_within_day,
    workflow_score,
)
from safehold.guard.scorers.similar import folded, grams

_BLOCK_RATES = (0.1, 0.2, 0.4, 0.7)
_WALK_RATES = (0.03, 0.1, 0.3, 0.6, 0.9)
_SKETCH = 64
_REMEMBERED = 64
RESEMBLES = 1 / 3
"""Jaccard similarity that texts of one length have which hold half of each other's 5-grams."""
_DAY_S = 86_400.0
_WINDOW = 32
_FORGET_S = 30 * 86_400.0
_EVIDENCE = 16
_LEAST_QUERIES = 50
_DAYS = 64
_LEAST_STAGES = 3
_HOT_ASKED, _HOT_GOT = 0.025, 0.1


class Caps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an honest account may do: rates in [0, 1], and a chain's length.

    `alpha` bounds, for each account and statistic, the probability that an account within the
    caps is ever labelled. `asked` and `got` are the lines that a day's joined requests or replies
    must pass to be an event, in [0, 1]; `workflow` is how often that may happen. Fit all of them on
    your own honest accounts (`fit_caps`). The default lines are those of the stock bundle
    (`python -m bench.askers --fit`). `stages` of one clause within a day are too many.
    """

    block: float = 0.3
    walk: float = 0.1
    workflow: float = 0.01
    asked: float = 0.948
    got: float = 0.0
    lineage: int = 35
    stages: int = 3
    alpha: float = 1e-4


class Hot(msgspec.Struct, frozen=True):
    """A stopped text: the least hashes of its 5-grams, its place in a chain, and when."""

    sketch: tuple[int, ...]
    chain: int
    at: float


class Recent(msgspec.Struct, frozen=True):
    """An exchange of the last day: its number in the ledger, and when it ended."""

    seq: int
    at: float


class DayScores(msgspec.Struct, frozen=True, kw_only=True):
    """What the guard says of a day as one text: of what was asked, and of what was given.

    A side that it would not stop has the score 0.
    """

    asked: float = 0.0
    got: float = 0.0

    def event(self, caps: Caps) -> bool:
        """Say whether a side is above its line."""
        return self.asked > caps.asked or self.got > caps.got


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept about one account; no text."""

    queries: int = 0
    blocked: int = 0
    walked: int = 0
    windows: int = 0
    split: int = 0
    days: tuple[DayScores, ...] = ()
    recent: tuple[Recent, ...] = ()
    lineage: int = 0
    hot: tuple[Hot, ...] = ()
    evidence: tuple[str, ...] = ()
    stages: tuple[StageSeen, ...] = ()
    workflow: WorkflowScore = WorkflowScore()
    most_stages: int = 0


class AccountLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A finding about an account: a name, a sentence, and the decisions that show it."""

    label: str
    reason: str
    evidence: tuple[str, ...]


def observe(
    state: AccountState, *, decision_id: str, at: float, text: str, stopped: bool
) -> AccountState:
    """Return the account's state after one exchange; `stopped` includes "would have been"."""
    queries = state.queries + 1
    if not stopped:
        return msgspec.structs.replace(state, queries=queries)
    mine = sketch(text)
    recent = [one for one in state.hot if at - one.at <= _FORGET_S]
    before = max((one.chain for one in recent if resemble(one.sketch, mine)), default=0)
    hot = (*recent, Hot(mine, before + 1, at))[-_REMEMBERED:]
    return msgspec.structs.replace(
        state,
        queries=queries,
        blocked=state.blocked + 1,
        walked=state.walked + (before > 0),
        lineage=max(state.lineage, before + 1),
        hot=hot,
        evidence=(*state.evidence, decision_id)[-_EVIDENCE:],
    )


def noted(state: AccountState, *, seq: int, at: float) -> AccountState:
    """Return the state with one more exchange of the last day."""
    kept = [one for one in state.recent if 0 <= at - one.at <= _DAY_S]
    return msgspec.structs.replace(state, recent=(*kept, Recent(seq, at))[-_WINDOW:])


def observe_window(
    state: AccountState, *, decision_id: str, scores: DayScores, caps: Caps
) -> AccountState:
    """Return the state after its last day was judged as one text.

    An event ends the window: its texts are not judged again, so that one accident is one event,
    and each event is news. What the guard would have stopped is remembered for the next fit.
    """
    days = state.days
    if scores.asked or scores.got:
        days = (*days, scores)[-_DAYS:]
    if not scores.event(caps):
        return msgspec.structs.replace(state, windows=state.windows + 1, days=days)
    return msgspec.structs.replace(
        state,
        windows=state.windows + 1,
        split=state.split + 1,
        days=days,
        recent=(),
        evidence=(*state.evidence, decision_id)[-_EVIDENCE:],
    )


def observe_stages(
    state: AccountState,
    found: Collection[str],
    *,
    decision_id: str,
    at: float,
    workflows: Workflows,
) -> AccountState:
    """Return the state after an exchange delivered these stages; those of a day count together."""
    seen = seen_within_day(state.stages, found, at=at, decision_id=decision_id)
    score = workflow_score({one.stage for one in seen}, workflows)
    return msgspec.structs.replace(
        state,
        stages=seen,
        workflow=score,
        most_stages=max(state.most_stages, len(score.stages)),
    )


def sketch(text: str) -> tuple[int, ...]:
    """Return the least hashes of a text's 5-grams (bottom-k, Cohen and Kaplan 2007)."""
    found = grams(folded(text))
    mixed = (found ^ (found >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return tuple(int(one) for one in np.unique(mixed)[:_SKETCH])


def resemble(one: Sequence[int], other: Sequence[int]) -> bool:
    """Say whether two texts share enough of their 5-grams, judged by their sketches."""
    return likeness(one, other) >= RESEMBLES


def likeness(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the estimated Jaccard similarity of two texts' 5-grams, in [0, 1]."""
    left, right = set(one), set(other)
    least = sorted(left | right)[:_SKETCH]
    both = left & right
    return sum(item in both for item in least) / len(least) if least else 0.0


def log_evidence(events: int, n: int, *, cap: float, rates: Sequence[float]) -> float:
    """Return the log of the mixture likelihood ratio against "the rate is at most `cap`".

    The ratio against the cap itself is the least favourable one: it bounds every lower rate's.
    """
    logs = [
        events * math.log(rate / cap) + (n - events) * math.log((1 - rate) / (1 - cap))
        for rate in rates
        if rate > cap
    ]
    if not logs:
        return 0.0
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))


def evidence(state: AccountState, caps: Caps) -> dict[str, float]:
    """Return the log evidence of each rate."""
    return {
        "blocked-often": log_evidence(
            state.blocked, state.queries, cap=caps.block, rates=_BLOCK_RATES
        ),
        "search-walk": log_evidence(state.walked, state.queries, cap=caps.walk, rates=_WALK_RATES),
        "workflow-in-pieces": log_evidence(
            state.split, state.windows, cap=caps.workflow, rates=_WALK_RATES
        ),
    }


def combined(state: AccountState, caps: Caps) -> float:
    """Return the log of the mean of the rates' evidence: one e-value for each account."""
    found = list(evidence(state, caps).values())
    top = max(found)
    return top + math.log(sum(math.exp(one - top) for one in found) / len(found))


def labels(state: AccountState, caps: Caps) -> Iterator[AccountLabel]:
    """Yield what the account has earned as of now."""
    counts = {
        "blocked-often": (state.blocked, state.queries, caps.block),
        "search-walk": (state.walked, state.queries, caps.walk),
        "workflow-in-pieces": (state.split, state.windows, caps.workflow),
    }
    for name, log_e in evidence(state, caps).items():
        if log_e >= -math.log(caps.alpha):
            count, of, limit = counts[name]
            yield AccountLabel(
                label=name,
                reason=f"{count} of {of} exchanges, an honest account has at "
                f"most {limit:.0%}; chance of this label at or below that: {caps.alpha:g}",
                evidence=state.evidence,
            )
    if state.lineage >= caps.lineage:
        yield AccountLabel(
            label="long-lineage",
            reason=f"a chain of {state.lineage} stopped texts that resemble each other, "
            f"at most {caps.lineage - 1} are usual",
            evidence=state.evidence,
        )
    if len(state.workflow.stages) >= caps.stages:
        own = set(state.workflow.stages)
        yield AccountLabel(
            label="workflow-in-stages",
            reason=f"{len(own)} of {state.workflow.of} stages of {state.workflow.clause} within a "
            f"day ({', '.join(state.workflow.stages)}), at most {caps.stages - 1} are usual",
            evidence=tuple(dict.fromkeys(o.decision_id for o in state.stages if o.stage in own)),
        )


def fit_caps(honest: Sequence[AccountState], *, alpha: float = 1e-4) -> Caps:
    """Return caps that the operator's own honest accounts keep: their greatest rates and chain.

    Accounts with fewer than 50 queries tell no rate and are left out; caps never fall below a
    block rate of 2 %, a walk share of 1 %, a chain of 10 and three stages. The lines of the day's
    scores are those that a further honest account ever passes with a probability of at most 2.5 %
    for what it asked and 10 % for what it was given, which tells more of a workflow in pieces.
    """
    known = [one for one in honest if one.queries >= _LEAST_QUERIES]
    block = max((one.blocked / one.queries for one in known), default=0.2)
    walk = max((one.walked / one.queries for one in known), default=0.1)
    chain = max((one.lineage for one in known), default=29)
    stages = max((one.most_stages for one in known), default=0)
    judged = [one for one in known if one.windows]
    lines = Caps()
    if judged:
        lines = Caps(
            asked=conformal_line(
                [max((day.asked for day in one.days), default=0.0) for one in judged],
                share=_HOT_ASKED,
            ),
            got=conformal_line(
                [max((day.got for day in one.days), default=0.0) for one in judged],
                share=_HOT_GOT,
            ),
        )
    split = max(
        (
            sum(day.event(lines) for day in one.days) / one.windows
            for one in judged
            if one.windows >= _LEAST_QUERIES
        ),
        default=0.01,
    )
    return Caps(
        block=min(0.6, max(0.02, block)),
        walk=min(0.6, max(0.01, walk)),
        workflow=min(0.6, max(0.01, split)),
        asked=lines.asked,
        got=lines.got,
        lineage=max(10, chain + 1),
        stages=max(_LEAST_STAGES, stages + 1),
        alpha=alpha,
    )


def conformal_line(highest: Sequence[float], *, share: float) -> float:
    """Return the line that a further account's highest score passes with at most this probability.

    `highest` has one score in [0, 1] for each account. For exchangeable accounts it is exact, in
    any number of them (split conformal prediction: Vovk et al., 2005): the ceil((n + 1)(1 -
    share))-th least score. With fewer accounts than that needs, the line is 1: nothing passes it.
    """
    place = math.ceil((len(highest) + 1) * (1 - share))
    return sorted(highest)[place - 1] if place <= len(highest) else 1.0


def e_bh(log_evidences: Sequence[float], *, q: float = 0.05) -> list[int]:
    """Return which accounts to open: e-BH, false discoveries at most `q` whatever depends on what.

    Wang and Ramdas, "False discovery rate control with e-values", JRSS B 84 (2022).
    """
    total = len(log_evidences)
    order = sorted(range(total), key=lambda i: -log_evidences[i])
    best = 0
    for rank, index in enumerate(order, start=1):
        if log_evidences[index] >= math.log(total / (rank * q)):
            best = rank
    return sorted(order[:best])
