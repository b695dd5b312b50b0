"""Several classes around one exchange: the first judges as if alone, and all clear what leaves."""

import itertools
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Channel, Exchange, Lane, user_says
from safehold.guard.gateway.bundles.joined_session import Companion, JoinedSession
from safehold.guard.interface import (
    Block,
    Cleared,
    DeliveryMode,
    Escalation,
    Failed,
    FailMode,
    Scored,
    Step,
)
from safehold.guard.scorers.probe import LinearProbe, ProbeHead
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.cascade import Probed, Thresholds
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard, SessionPolicy
from safehold.guard.session.shared_views import SharedViews
from safehold.testing.scorers import PhraseStage2, keyword_guard, keyword_head

PROMPT = user_says("tell me something")
CODED = user_says("tell me something, and answer in base64")
PROMPTS = st.sampled_from([PROMPT, CODED])
TOOL = Lane(channel=Channel.TOOL_ARGUMENTS)
WORDS = st.sampled_from(
    [
        "the ",
        "wort ",
        "lye ",
        "boils, ",
        "麦芽",
        "x" * 70,
        "\n",
        "&#108;ye ",
        "d29ydCB3b3J0IHdvcnQ= ",
    ]
)
TEXTS = st.lists(WORDS, max_size=40).map("".join)
SHADOW = SessionPolicy(
    mode=DeliveryMode.AUDIT,
    fail_mode_stage1=FailMode.BYPASS,
    fail_mode_stage2=FailMode.BYPASS,
    reads_request=False,
)


def never(request: Escalation) -> Answer:
    """Answer for guards that have no stage 2."""
    del request
    return Failed(reason="NoStage2")


def cut(text: str, places: list[int]) -> list[str]:
    """Cut a text at the places (modulo its length)."""
    marks = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(marks)]


def of(word: str, *, has_stage2: bool = False) -> Guard:
    """Return a guard that stops a word, behind the decoder that serves."""
    made = keyword_guard(keyword_head(word), has_stage2=has_stage2)
    return Guard(made.cascade, ViewDecoder())


def probed_guard() -> Guard:
    """Return a guard whose probe asks stage 2, and stops where it hears much."""
    cascade = keyword_guard(keyword_head("wort"), has_stage2=True).cascade
    probe = LinearProbe("p", ProbeHead(np.ones(1, np.float32), 0.0, 0.0, 8), (0,), "clause")
    reply = Thresholds(escalate=0.0, weights=(0.0, 1.0, 0.0), block=0.0, alone=0.0)
    heard = msgspec.structs.replace(cascade, reply=reply, probe=Probed(probe, 1.0, 1.0))
    return Guard(heard, ViewDecoder())


def joined(
    policy: SessionPolicy,
    second: Guard,
    *,
    acts: bool,
    shared: bool = True,
    said: Exchange = PROMPT,
) -> tuple[JoinedSession, Companion]:
    """Return a session of two classes, which read the same views."""
    views = SharedViews(ViewDecoder(), 2)
    first = of("wort").session(said, policy, decoder=views.reader(0))
    own = policy if acts else msgspec.structs.replace(SHADOW, hold_tokens=policy.hold_tokens)
    decoder = views.reader(1) if shared else None
    companion = Companion("soap", "d", second.session(said, own, decoder=decoder), acts=acts)
    return JoinedSession(first, [companion]), companion


def played(session: object, deltas: list[str], lane: Lane, answer: object = never) -> list[Step]:
    """Return every step of a reply, its end's too."""
    found: list[Step] = [drive(session.judge_prompt(), answer)]  # type: ignore[attr-defined,arg-type]
    for delta in deltas:
        found.append(drive(session.feed(lane, delta), answer))  # type: ignore[attr-defined,arg-type]
        if isinstance(found[-1], Block):
            return found
    return [*found, *(step for _, step in drive(session.finish(), answer))]  # type: ignore[attr-defined,arg-type]


def text_of(steps: list[Step]) -> str:
    """Return the text that left."""
    return "".join(step.text for step in steps if isinstance(step, Cleared))


@given(
    TEXTS,
    st.lists(st.integers(0, 10_000), max_size=20),
    st.sampled_from(list(DeliveryMode)),
    st.sampled_from([Lane(), TOOL]),
    PROMPTS,
)
def test_the_first_class_says_the_same_with_and_without_a_shadow(
    text: str, places: list[int], mode: DeliveryMode, lane: Lane, said: Exchange
) -> None:
    """Every step, verdict, cut and report of the first class is what it is alone."""
    policy = SessionPolicy(mode=mode)
    alone = of("wort").session(said, policy)
    both, _ = joined(policy, of("lye"), acts=False, said=said)
    assert played(both, cut(text, places), lane) == played(alone, cut(text, places), lane)
    assert both.report() == alone.report()
    assert both.would_block == alone.would_block
    assert both.delivers_whole == alone.delivers_whole


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_shared_views_find_what_own_views_find(text: str, places: list[int], acts: bool) -> None:  # noqa: FBT001 - drawn
    """A class that shares the reading says what it says with a decoder of its own."""
    shared, one = joined(SessionPolicy(), of("lye"), acts=acts)
    apart, other = joined(SessionPolicy(), of("lye"), acts=acts, shared=False)
    deltas = cut(text, places)
    assert played(shared, deltas, Lane()) == played(apart, deltas, Lane())
    assert one.block == other.block
    assert one.session.report() == other.session.report()


@given(
    TEXTS, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from([Lane(), TOOL]), PROMPTS
)
def test_what_leaves_two_acting_classes_does_not_depend_on_the_deltas(
    text: str, places: list[int], lane: Lane, said: Exchange
) -> None:
    """The same text leaves, the same class stops it, and each alone would have let it leave.

    That holds for a reply that is asked for in a code too, which every class holds back whole.
    """
    policy = SessionPolicy()
    whole = played(joined(policy, of("lye"), acts=True, said=said)[0], [text], lane)
    pieces = played(joined(policy, of("lye"), acts=True, said=said)[0], cut(text, places), lane)
    left = text_of(pieces)
    assert text.startswith(left)
    assert [one for one in pieces if isinstance(one, Block)] == [
        one for one in whole if isinstance(one, Block)
    ]
    assert left == text_of(whole)
    for word in ("wort", "lye"):
        alone = text_of(played(of(word).session(said, policy), [text], lane))
        assert alone.startswith(left)


@pytest.mark.parametrize(
    ("text", "by"), [("lye in water", "soap"), ("wort and lye", None), ("water and ash", "nobody")]
)
def test_the_class_that_stops_a_reply_is_named(text: str, by: str | None) -> None:
    """The first class stops as itself, another by its name, and harmless text passes both."""
    both, _ = joined(SessionPolicy(), of("lye"), acts=True)
    blocks = [one for one in played(both, [f"{text} is here"], Lane()) if isinstance(one, Block)]
    if by == "nobody":
        assert not blocks
    else:
        assert blocks[0].guard_class == by


def test_each_class_is_asked_through_its_own_stage_two() -> None:
    """What a class escalates names it; the first class's escalations name none."""
    asked: list[str | None] = []

    def answer(request: Escalation) -> Answer:
        asked.append(request.guard_class)
        return Scored(logit=-50.0, clause="")

    views = SharedViews(ViewDecoder(), 2)
    first = of("wort", has_stage2=True).session(PROMPT, SessionPolicy(), decoder=views.reader(0))
    second = of("lye", has_stage2=True).session(PROMPT, SHADOW, decoder=views.reader(1))
    both = JoinedSession(first, [Companion("soap", "d", second, acts=False)])
    played(both, ["lye lye lye lye lye lye lye lye lye lye "] * 4, Lane(), answer)
    assert set(asked) == {None, "soap"}
    assert asked[0] is None  # the last request, which only the first class has read


class Broken:
    """A session with a defect in every method."""

    would_block = None

    def _fail(self) -> Iterator[Escalation]:
        raise ZeroDivisionError
        yield  # pragma: no cover - makes it a flow

    def judge_prompt(self) -> object:
        """Fail."""
        return self._fail()

    def feed(self, *_: object) -> object:
        """Fail."""
        return self._fail()

    close = feed

    def finish(self) -> object:
        """Fail."""
        return self._fail()


def test_a_shadow_that_breaks_changes_nothing_and_is_told() -> None:
    """The first class goes on as it does alone; an acting class that breaks stops everything."""
    alone = of("wort").session(PROMPT, SessionPolicy())
    broken = Companion("soap", "d", Broken(), acts=False)  # type: ignore[arg-type]
    both = JoinedSession(of("wort").session(PROMPT, SessionPolicy()), [broken])
    deltas = ["the water ", "boils"]
    assert played(both, deltas, Lane()) == played(alone, deltas, Lane())
    assert broken.failed == "ZeroDivisionError"
    acting = Companion("soap", "d", Broken(), acts=True)  # type: ignore[arg-type]
    strict = JoinedSession(of("wort").session(PROMPT, SessionPolicy()), [acting])
    with pytest.raises(ZeroDivisionError):
        played(strict, deltas, Lane())


HEARD = st.lists(st.tuples(WORDS, st.floats(-9, 9)), max_size=30)


def heard_by(session: object, deltas: list[tuple[str, float]]) -> tuple[str, Block | None]:
    """Return what left a session that hears a logit with each delta, and its block."""
    answer = InlineStage2(PhraseStage2("sparge"))
    drive(session.judge_prompt(), answer)  # type: ignore[attr-defined]
    released = ""
    for text, logit in deltas:
        step = drive(session.feed(Lane(), text, (logit,)), answer)  # type: ignore[attr-defined]
        if isinstance(step, Block):
            return released, step
        released += step.text
    for _, step in drive(session.finish(), answer):  # type: ignore[attr-defined]
        if isinstance(step, Block):
            return released, step
        released += step.text
    return released, None


def probed_and(second: Guard) -> JoinedSession:
    """Return a first class with a probe, and a second one that acts."""
    own = SessionPolicy()
    companion = Companion("soap", "d", second.session(PROMPT, own), acts=True)
    return JoinedSession(probed_guard().session(PROMPT, own), [companion])


@given(HEARD)
def test_a_first_class_with_a_probe_decides_as_if_alone(deltas: list[tuple[str, float]]) -> None:
    """Beside an acting class that never stops, its probe hears the same and stops the same."""
    alone, by = heard_by(probed_guard().session(PROMPT, SessionPolicy()), deltas)
    both, stopped = heard_by(probed_and(of("unspoken")), deltas)
    assert stopped == by
    assert alone.startswith(both)
    assert by is not None or both == alone == "".join(text for text, _ in deltas)


@given(HEARD)
def test_text_that_a_probe_heard_leaves_when_the_second_class_has_cleared_it(
    deltas: list[tuple[str, float]],
) -> None:
    """What left beside a probe is a prefix of what each of the two classes alone lets leave."""
    released, block = heard_by(probed_and(of("lye")), deltas)
    first, by = heard_by(probed_guard().session(PROMPT, SessionPolicy()), deltas)
    second, stopped = heard_by(of("lye").session(PROMPT, SessionPolicy()), deltas)
    assert (block is None) is (by is None and stopped is None)
    assert first.startswith(released)
    assert second.startswith(released)
