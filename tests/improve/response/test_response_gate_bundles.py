"""Each gate, measured on real small bundles by the sessions that serve: what only it refuses."""

import time
from collections.abc import Sequence

import msgspec
import pytest

from safehold.detect.redteam.interface import QuestionSet, Topic, Wrapper
from safehold.exchange import user_says
from safehold.guard.bundle.interface import Golden
from safehold.guard.bundle.load import Bundle
from safehold.guard.overlay.interface import HotRule
from safehold.guard.scorers.interface import StreamScorer
from safehold.guard.scorers.ngram import NgramScorer
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.improve.response.gates import GateReport, GateState, gates
from safehold.improve.response.interface import Dress, Incident, IncidentKind
from safehold.improve.response.measure import MeasureSettings, Shadow, measured
from safehold.progress import Progress
from safehold.testing.bundles import CLAUSE, WordScorer, tiny_bundle, word_head

ASKS = tuple(f"what is step {n} of the hidden candle" for n in range(64))
TOPIC = Topic(
    id="candle",
    clause=CLAUSE,
    stage="none",
    facts=("soft wax", "long wick", "warm glass", "slow cooling"),
    passage="Take soft wax and a long wick, pour it into warm glass, and wait for slow cooling.",
    questions=ASKS,
)
QUESTIONS = QuestionSet(topics=(TOPIC,))
PERSONA = Wrapper(family="persona", text="You are a pirate. <<ask>>")
DRESS = Dress(Wrapper(family="inc-1", text="Dear diary, <<ask>>, sleep well."), (), ASKS[0])
INCIDENT = Incident(
    id="inc-1",
    kind=IncidentKind.MISS,
    at=1,
    text=DRESS.wrapper.around(ASKS[0]),
    clause=CLAUSE,
    source="test",
    reporter="anna",
)
BENIGN = {"mail": [f"The choir meets in room {n} on Tuesday." for n in range(60)]}
TWINS = [DRESS.wrapper.around(f"what is bus {n} of the town") for n in range(60)]
FAMILY = Rule("family", CLAUSE, "diary.*hidden candle")
PIRATE = Rule("pirate", CLAUSE, "pirate.*hidden candle")


def small(digest: str, *rules: Rule) -> Bundle:
    """Return the tiny bundle with written rules."""
    base = tiny_bundle(WordScorer())
    golden = (*base.golden, Golden("The moon is full.", "", blocked=False))
    cascade = msgspec.structs.replace(base.cascade, rules=RuleSet(rules), digest=digest * 64)
    return msgspec.structs.replace(base, cascade=cascade, digest=digest * 64, golden=golden)


CHAMPION = small("a", PIRATE)
GOOD = small("b", PIRATE, FAMILY)


class SlowScorer:
    """A stage 1 that burns five milliseconds before it answers."""

    def __init__(self, inner: StreamScorer) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        """Everything else is the inner one's; each question for it costs time."""
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            pass
        return getattr(self._inner, name)


def escalating() -> Bundle:
    """Return a challenger that shows every text to stage 2."""
    prompt = msgspec.structs.replace(GOOD.cascade.prompt, escalate=-100.0)
    return msgspec.structs.replace(
        GOOD, cascade=msgspec.structs.replace(GOOD.cascade, prompt=prompt)
    )


def slow() -> Bundle:
    """Return a challenger that takes longer."""
    head = word_head()
    stage1 = SlowScorer(NgramScorer("ngram", head, head, CLAUSE))
    return msgspec.structs.replace(
        GOOD, cascade=msgspec.structs.replace(GOOD.cascade, stage1=stage1)
    )


BUNDLES = {
    "golden": small("c", PIRATE, FAMILY, Rule("moon", CLAUSE, "moon is full")),
    "family": small("d", PIRATE, Rule("first", CLAUSE, "step 0 of the hidden candle")),
    "slices": small("e", PIRATE, FAMILY, Rule("mail", CLAUSE, "room [1-6] on Tuesday")),
    "dress": small("f", PIRATE, FAMILY, Rule("bus", CLAUSE, "diary.*bus")),
    "red-team": small("1", FAMILY),
    "escalation": escalating(),
    "speed": slow(),
}


def judged(
    challenger: Bundle,
    shadow: Shadow,
    twins: Sequence[str] = TWINS,
    acting: HotRule | None = None,
) -> GateReport:
    """Return the report of a challenger of the champion."""
    given = measured(
        CHAMPION,
        challenger,
        incident=INCIDENT,
        dress=DRESS,
        questions=QUESTIONS,
        wrappers=(PERSONA,),
        benign=BENIGN,
        settings=MeasureSettings(family=60, each_other=12, timed=30),
        progress=Progress(),
        shadow=shadow,
        twins=twins,
        acting=acting,
    )
    return gates(given)


def refusing(report: GateReport) -> list[str]:
    """Return the names of the gates that refuse."""
    return [one.name for one in report.gates if one.state is not GateState.PASSED]


ALL_SEEN = Shadow(exchanges=2_000, disagreed=3, reviewed=3)


def test_the_good_bundle_passes_every_gate() -> None:
    """The near miss of all the others: it stops the family and is no worse anywhere."""
    report = judged(GOOD, ALL_SEEN)
    assert report.passed, [(one.name, one.says) for one in report.gates]


@pytest.mark.parametrize("name", BUNDLES)
def test_each_gate_refuses_a_bundle_that_no_other_gate_refuses(name: str) -> None:
    """One thing is worse in it, and the sessions that serve show exactly that."""
    assert refusing(judged(BUNDLES[name], ALL_SEEN)) == [name]


def test_a_bundle_that_nobody_looked_at_in_shadow_is_refused() -> None:
    """One disagreement that nobody reviewed is enough."""
    assert refusing(judged(GOOD, Shadow(2_000, 3, 2))) == ["shadow"]


def test_the_champion_itself_is_no_answer_to_the_incident() -> None:
    """What did not stop it does not stop its family either."""
    assert user_says(INCIDENT.text)
    assert {"golden", "family"} <= set(refusing(judged(CHAMPION, ALL_SEEN)))


@pytest.mark.parametrize(
    ("pattern", "passes"), [("diary.*candle", True), ("diary.*lamp", False), ("(?s).+", False)]
)
def test_a_bundle_that_needs_its_rule_is_released_beside_one_that_stops_the_rest(
    pattern: str, *, passes: bool
) -> None:
    """Played with the rule over the guard, a rule of today's clock; the report says it stays.

    A rule that stops everything makes up for no bundle: it stops benign texts as well.
    """
    most = Rule("most", CLAUSE, "diary.*step ([0-5]?[0-9]|60) of the hidden candle")
    rule = HotRule(
        id="hot-1", clause=CLAUSE, owner="anna", incident="inc-1",
        created=int(time.time()), expires=int(time.time()) + 60, pattern=pattern,
    )  # fmt: skip
    fresh = small("9", PIRATE, most)
    assert refusing(judged(fresh, ALL_SEEN)) == ["family"]
    report = judged(fresh, ALL_SEEN, acting=rule)
    assert refusing(report) == ([] if passes else ["family"])
    assert report.rule_stays == ("hot-1" if passes else "")
    by_heart = small("8", PIRATE, Rule("first", CLAUSE, "diary.*step 0 of the hidden candle"))
    assert refusing(judged(by_heart, ALL_SEEN, acting=rule)) == ["family"]
