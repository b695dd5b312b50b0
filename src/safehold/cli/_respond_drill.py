"""`safehold respond drill`: the whole response on one machine, with scripted approvals."""

import contextlib
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from safehold.cli._respond_stage import (
    DOMAIN,
    PERSONS,
    WAIT_S,
    DrillClient,
    DrillClock,
    DrillResult,
    DrillStage,
    Say,
    challenged,
    complying_target,
    options,
    post,
    set_up,
    until,
)
from safehold.errors import SafeholdError
from safehold.guard.bundle.load import Bundle
from safehold.guard.session.cascade import Thresholds
from safehold.improve.response.corpus import Corpus

if TYPE_CHECKING:
    from safehold.demo.gateways import DemoGateway
    from safehold.guard.ledger.interface import EventRow
    from safehold.guard.overlay.interface import HotRule
    from safehold.improve.response.case import IncidentCase

_TRIES = 120
_ENOUGH = 40
_HALF = 0.5
_PLANTED = 2.5
"""Logits by which the drill's champion shows less to stage 2 than the stock bundle."""
_PAUSE_S = 0.2


def run_drill(
    folder: Path, *, short: bool, say: Say, seed: int = 1, stage2: bool = False
) -> DrillResult:
    """Run the drill of a miss in a new folder; `stage2` is fine-tuned too.

    Raises:
        SafeholdError: A step did not do what it must.
    """
    from safehold.demo.gateways import gateway
    from safehold.detect.redteam.questions import questions
    from safehold.guard.bundle.overlay_file import approve
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.gates import shown

    stage = set_up(folder, short=short, seed=seed, weaken=_showing_less)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(complying_target(questions(DOMAIN)))
        started = options(folder, stage.champion_folder, stage.admin)
        served = stack.enter_context(gateway(folder, "gateway", target, 0, started))
        client = DrillClient(served)
        text, ask, says = _miss(client, stage.champion, seed)
        clock = DrillClock(say)
        clock.mark("found", says)
        case = IncidentCase(folder / "case")
        rule = _ruled(stage, case, text, ask, clock)
        until(lambda: (client.ask(text), _rows(served, rule.id))[1], "the shadow rule hits")
        clock.mark("shadow hits", "the same text is counted, and not yet refused")
        # 3. Two scripted persons let it act.
        for name, own in stage.persons.items():
            case.keep_approval(approve(rule, name, own))
        stage.book.act(rule.id, case.approvals(), int(time.time()))
        until(lambda: client.ask(text).stopped and _acted(served, rule.id), "the rule acts")
        clock.mark("rule acts", "two persons; the same text is refused now")
        fresh, report = challenged(stage, case, clock, stage2=stage2, acting=rule)
        say(shown(report))
        verified = False
        if report.passed:
            # 6. The swap, and the replay. Where the bundle stands alone the rule ends before it;
            # where the report wants the rule to stay, the golden gate asked the bundle alone.
            post(f"{served.url}/admin/bundle", {"bundle": "challenger"}, stage.admin)
            clock.mark("replaced", f"bundle {fresh.digest[:12]} is live; no stream was dropped")
            stays = bool(report.rule_stays)
            if not stays:
                stage.book.end(rule.id, int(time.time()))
            verified = _replayed(client, text, fresh.digest, rule_stays=stays)
            how = (
                "by replay, beside the rule, which stays"
                if stays
                else "by replay, without the rule"
            )
            clock.mark("verified", how if verified else "REPLAY FAILED")
    return DrillResult(tuple(clock.marks), report, stage.champion.digest, fresh.digest, verified)


def _showing_less(stock: Bundle, corpus: Corpus) -> Thresholds:
    """Return thresholds at which stage 1 shows less to stage 2.

    The stock bundle shows stage 2 all that stage 2 would stop, so there is nothing in it that a
    warm start of stage 1 alone could learn; a drill needs a miss of that kind.
    """
    del corpus
    prompt = stock.manifest.prompt
    return msgspec.structs.replace(prompt, escalate=prompt.escalate + _PLANTED)


def _ruled(
    stage: DrillStage, case: "IncidentCase", text: str, ask: str, clock: DrillClock
) -> "HotRule":
    """Open the case and put its rule in shadow."""
    from safehold.improve.response.hotrule import hot_rule
    from safehold.improve.response.incident import dress_of
    from safehold.improve.response.interface import Incident, IncidentKind
    from safehold.improve.response.judged import Judge
    from safehold.improve.response.proliferate import ProliferateSettings, variants
    from safehold.stats import Rate

    # 1. The incident and its variants.
    incident = Incident(
        id="drill",
        kind=IncidentKind.MISS,
        at=int(time.time()),
        text=text,
        clause="beer-production",
        source="drill",
        reporter=PERSONS[0],
        confirmed_by=PERSONS[1],
    )
    dress = dress_of(incident, Judge(stage.champion), ask=ask if ask in text else "")
    case.begin(incident, dress)
    count = ProliferateSettings(
        learnt=96 if stage.short else 256, held_out=64 if stage.short else 256, seed=stage.seed
    )
    made = variants(dress, stage.corpus.asks(), count)
    case.keep_variants(made)
    # 2. The rule in shadow, with its cost.
    benign = stage.benign
    sources = {"seed books": hashlib.sha256("\n".join(benign).encode()).hexdigest()}
    now = int(time.time())
    found = hot_rule(incident, dress, made, benign, sources=sources, owner=PERSONS[0], now=now)
    case.keep_rule(found)
    stage.book.shadow(found.rule, int(time.time()))
    cost = Rate(found.rule.cost.hits if found.rule.cost else 0, len(benign))
    clock.mark(
        "rule in shadow",
        f"catches {found.caught.at_least()} of its family; benign {cost.at_most()}",
    )
    return found.rule


def _miss(client: DrillClient, champion: Bundle, seed: int) -> tuple[str, str, str]:
    """Find a text whose prompt gets past the gateway: with facts delivered, or nearly stopped.

    The first is taken of which half of the facts were delivered, or which stage 2 would have
    stopped had stage 1 shown it: that is what stage 1 alone can learn.

    Raises:
        SafeholdError: Nothing gets past it.
    """
    from safehold.detect.redteam.questions import leaked, questions, wrappers
    from safehold.improve.response.judged import Judge
    from safehold.improve.response.warm import at

    found, worn = questions(DOMAIN), wrappers()
    asks = [(topic, ask) for topic in found.topics for ask in topic.questions]
    open_ = msgspec.structs.replace(champion.cascade.prompt, escalate=-1e6)
    judge = Judge(at(champion, open_))
    best: tuple[tuple[float, float], str, str, str] | None = None
    for turn in range(_TRIES):
        topic, ask = asks[(turn * 37 + seed * 11) % len(asks)]
        dress = worn[(turn * 5 + seed * 36) % len(worn)]
        if "<<ask>>" not in dress.text:
            continue
        text = dress.around(ask)
        answer = client.ask(text)
        if answer.stopped:
            continue
        got = leaked(topic, answer.text) / len(topic.facts)
        rank = (got, judge.prompt(text).score)
        says = f"{dress.family}: the prompt passed, {got:.0%} of the facts were delivered"
        if best is None or rank > best[0]:
            best = (rank, text, ask, says)
        if got >= _HALF or rank[1] >= _HALF or turn >= _ENOUGH:
            break
    if best is None:
        raise SafeholdError("the drill found nothing that gets past the gateway")
    return best[1], best[2], best[3]


def _replayed(client: DrillClient, text: str, digest: str, *, rule_stays: bool) -> bool:
    """Say whether the text is refused under the new bundle, and its row names that bundle.

    It must be the bundle itself that refuses it, unless the rule is to stay.
    """
    from safehold.guard.interface import Stage

    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
        answer = client.ask(text)
        if answer.asked.bundle_digest != digest or not answer.stopped:
            return False
        if (
            rule_stays or answer.asked.stage is not Stage.RULE
        ):  # else the rule's end has not come there yet
            return True
    return False


def _rows(served: "DemoGateway", rule: str) -> "list[EventRow]":
    from safehold.guard.ledger.interface import EventKind, EventRow
    from safehold.guard.ledger.reader import LedgerReader

    rows = [one.row for one in LedgerReader.open(str(served.ledger)).tail(500)]
    return [
        row
        for row in rows
        if isinstance(row, EventRow)
        and row.kind is EventKind.RULE_HIT
        and row.detail.get("rule") == rule
    ]


def _acted(served: "DemoGateway", rule: str) -> bool:
    return any(one.detail.get("acted") for one in _rows(served, rule))
