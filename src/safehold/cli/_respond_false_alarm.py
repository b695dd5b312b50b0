"""The drill of a false alarm: a refused prompt is appealed by its decision's id, then passes."""

import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from safehold.cli._respond_stage import (
    DOMAIN,
    PERSONS,
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
from safehold.stats import Rate

if TYPE_CHECKING:
    from safehold.improve.response.case import IncidentCase

_SEARCHED = 160
"""Benign prompts among which the drill's false alarm is looked for."""
_JUST_BELOW = 0.05
"""Logits by which the champion's threshold is below what that prompt scores."""
_KEPT = 0.9
"""Share of the restricted twins stopped before that must still be stopped."""
_TWINS = 24
"""Restricted twins that are asked before and after."""


def run_false_alarm_drill(
    folder: Path, *, short: bool, say: Say, seed: int = 1, stage2: bool = False
) -> DrillResult:
    """Run the drill of a false alarm in a new folder; `stage2` is fine-tuned too.

    Raises:
        SafeholdError: A step did not do what it must.
    """
    from safehold.demo.gateways import gateway
    from safehold.detect.redteam.questions import questions
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.gates import shown

    alarm = _HottestBenign(seed)
    stage = set_up(folder, short=short, seed=seed, weaken=alarm.refused_by)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(complying_target(questions(DOMAIN)))
        served = stack.enter_context(
            gateway(
                folder, "gateway", target, 0, options(folder, stage.champion_folder, stage.admin)
            )
        )
        client = DrillClient(served)
        refused = client.ask(alarm.text)
        if not refused.stopped:
            raise SafeholdError("the drill's champion does not refuse the prompt that it must")
        clock = DrillClock(say)
        # 1. The appeal names a decision; the ledger holds what was said.
        clock.mark("appealed", f"decision {refused.asked.decision_id}, refused wrongly")
        case = IncidentCase(folder / "case")
        restricted = _opened(stage, case, str(served.ledger), refused.asked.decision_id, clock)
        before = sum(client.ask(text).stopped for text in restricted)
        # 2. No rule can let a prompt pass, so the challenger is the only answer.
        fresh, report = challenged(stage, case, clock, stage2=stage2)
        say(shown(report))
        verified = False
        if report.passed:
            # 3. The swap, and the same prompt again.
            post(f"{served.url}/admin/bundle", {"bundle": "challenger"}, stage.admin)
            until(lambda: client.ask(alarm.text).asked.bundle_digest == fresh.digest, "the swap")
            clock.mark("replaced", f"bundle {fresh.digest[:12]} is live; no stream was dropped")
            again = client.ask(alarm.text)
            after = sum(client.ask(text).stopped for text in restricted)
            verified = not again.stopped and bool(again.text) and after >= _KEPT * before
            kept = Rate(after, len(restricted)).at_least()
            says = f"the prompt is answered; restricted twins stopped {before} → {kept}"
            clock.mark("verified", says if verified else f"REPLAY FAILED: {says}")
    return DrillResult(tuple(clock.marks), report, stage.champion.digest, fresh.digest, verified)


class _HottestBenign:
    """The benign prompt that comes nearest to being refused; the champion refuses it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.text = ""

    def refused_by(self, stock: Bundle, corpus: Corpus) -> Thresholds:
        """Return thresholds just below what the hottest benign prompt scores.

        Raises:
            SafeholdError: No threshold of prompts refuses any of them.
        """
        from safehold.improve.response.judged import Judge
        from safehold.improve.response.warm import at

        judge = Judge(stock)
        seen = {text: judge.prompt(text) for text in corpus.benign(_SEARCHED, self._seed)}
        near = sorted((one.score, text) for text, one in seen.items() if not one.blocked)
        here = stock.manifest.prompt
        for score, text in reversed(near):
            if not 0 < score < 1:
                continue
            block = here.block + math.log(score / (1 - score)) - _JUST_BELOW
            prompt = msgspec.structs.replace(here, block=block)
            if Judge(at(stock, prompt)).prompt(text).blocked:
                self.text = text
                return prompt
        raise SafeholdError("the drill found no benign prompt that a lower threshold refuses")


def _opened(
    stage: DrillStage, case: "IncidentCase", ledger: str, decision: str, clock: DrillClock
) -> list[str]:
    """Open the case from the ledger; return restricted twins that nothing learns from."""
    from safehold.improve.response.decided import decided
    from safehold.improve.response.incident import dress_of
    from safehold.improve.response.interface import Incident, IncidentKind
    from safehold.improve.response.judged import Judge
    from safehold.improve.response.proliferate import ProliferateSettings, variants

    incident = Incident(
        id="drill",
        kind=IncidentKind.FALSE_ALARM,
        at=int(time.time()),
        text=decided(ledger, decision, IncidentKind.FALSE_ALARM),
        clause="beer-production",
        source=decision,
        reporter="customer",
        confirmed_by=PERSONS[1],
    )
    dress = dress_of(incident, Judge(stage.champion))
    case.begin(incident, dress)
    made = variants(
        dress,
        stage.corpus.asks(),
        ProliferateSettings(
            learnt=96 if stage.short else 256, held_out=64 if stage.short else 256, seed=stage.seed
        ),
    )
    case.keep_variants(made)
    clock.mark("opened", f"from the ledger; {len(made)} permitted variants and restricted twins")
    return [one.text for one in made if one.restricted and one.held_out][:_TWINS]
