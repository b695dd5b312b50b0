"""The session's invariants on arbitrary texts, splits, lanes and failures."""

import base64
import itertools
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Channel, Exchange, Lane, Role, TextPart, Turn, user_says
from safehold.guard.interface import (
    Allow,
    Block,
    Cleared,
    DeliveryMode,
    Escalation,
    Failed,
    FailMode,
    Scored,
    Stage,
    Verdict,
)
from safehold.guard.scorers.tokens import tokens
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.cascade import Cascade
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard, GuardSession, SessionPolicy
from safehold.testing.guards import MARKER, PlainDecoder, rule_guard
from safehold.testing.scorers import PhraseStage2, keyword_guard, keyword_head

PROMPT = user_says("tell me something")
WORDS = st.sampled_from(["the ", "wort ", "boils, ", "é\u0301 ", "麦芽", "x" * 70, "\n", "", "🍺 "])
TEXTS = st.lists(WORDS, max_size=60).map("".join)


def never(request: Escalation) -> Answer:
    """Answer for guards that have no stage 2: being asked at all would block."""
    del request
    return Failed(reason="NoStage2")


def cut(text: str, places: list[int]) -> list[str]:
    """Cut a text at the places (modulo its length)."""
    marks = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(marks)]


def play(session: GuardSession, deltas: list[str], lane: Lane, answer: object) -> tuple[str, bool]:
    """Feed deltas and finish; return what was released and whether it was blocked."""
    released = ""
    for delta in deltas:
        step = drive(session.feed(lane, delta), answer)  # type: ignore[arg-type]
        coverage = session.coverage
        assert coverage.released <= coverage.scored <= coverage.received
        if isinstance(step, Block):
            return released, True
        released += step.text
    for _, step in drive(session.finish(), answer):  # type: ignore[arg-type]
        if isinstance(step, Block):
            return released, True
        released += step.text
    assert session.coverage.released == session.coverage.scored == session.coverage.received
    return released, False


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from(list(DeliveryMode)))
def test_any_split_releases_the_same_text_in_order(
    text: str, places: list[int], mode: DeliveryMode
) -> None:
    """What is released is a prefix of the text, all of it unless blocked, whatever the deltas."""
    guard = keyword_guard(keyword_head("wort"))
    policy = SessionPolicy(mode=mode)
    whole = play(guard.session(PROMPT, policy), [text], Lane(), never)
    pieces = play(guard.session(PROMPT, policy), cut(text, places), Lane(), never)
    assert text.startswith(pieces[0])
    assert pieces[1] == whole[1]
    assert pieces[1] or pieces[0] == text


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=12), st.integers(1, 32))
def test_the_word_that_blocks_is_never_released(text: str, places: list[int], hold: int) -> None:
    """With a scorer that fires at one word, nothing of the run that held it ever leaves."""
    guard = keyword_guard(keyword_head("wort", floor=1))
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=hold))
    released, blocked = play(session, cut(text, places), Lane(), never)
    assert blocked == ("wort" in tokens(text))
    assert "wort" not in tokens(released)


def test_text_that_waits_for_stage2_is_withheld() -> None:
    """A stretch that stage 1 escalated leaves only after stage 2 cleared it."""
    stage2 = PhraseStage2("sparge")
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    text = "one two three wort " + "and so on " * 12 + "sparge it now " + "and more " * 30
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=4))
    released, blocked = play(session, [w + " " for w in text.split()], Lane(), InlineStage2(stage2))
    assert not blocked
    assert released.startswith("one two three wort")
    blocker = keyword_guard(keyword_head("wort", "sparge", floor=1), has_stage2=True)
    session = blocker.session(PROMPT, SessionPolicy(hold_tokens=4))
    released, blocked = play(session, [w + " " for w in text.split()], Lane(), InlineStage2(stage2))
    assert blocked
    assert "sparge" not in released


@pytest.mark.parametrize(("prompt", "held"), [("what is this", 4), ("wort", 9)])
def test_a_doubted_prompt_holds_more_of_its_reply(prompt: str, held: int) -> None:
    """Once stage 1 escalated the prompt, `doubt_tokens` of the reply stay back."""
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    session = guard.session(user_says(prompt), SessionPolicy(hold_tokens=4, doubt_tokens=9))
    stage2 = InlineStage2(PhraseStage2("sparge"))
    drive(session.judge_prompt(), stage2)
    steps = [drive(session.feed(Lane(), "so "), stage2) for _ in range(40)]
    released = "".join(step.text for step in steps if isinstance(step, Cleared))
    assert released == "so " * (40 - held)


def test_a_doubted_lane_holds_more_of_itself() -> None:
    """Once stage 1 escalated a stretch that stage 2 cleared, more of that lane stays back."""
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=4, doubt_tokens=20))
    stage2 = InlineStage2(PhraseStage2("sparge"))
    drive(session.feed(Lane(), "wort "), stage2)
    for _ in range(18):
        assert drive(session.feed(Lane(), "so "), stage2) == Cleared(text="")


def test_a_decoded_lane_holds_still_more_of_itself() -> None:
    """Once something in a lane had to be decoded, `decoded_tokens` of it stay back."""
    cascade = keyword_guard(keyword_head("wort", floor=1), has_stage2=True).cascade
    policy = SessionPolicy(hold_tokens=4, decoded_tokens=90)
    session = Guard(cascade, ViewDecoder()).session(PROMPT, policy)
    stage2 = InlineStage2(PhraseStage2("sparge"))
    hidden = base64.b64encode(b"a harmless sentence about the weather in the hills today").decode()
    steps = [drive(session.feed(Lane(), text), stage2) for text in (hidden, *[" so"] * 400)]
    left = [len(step.text) for step in steps[:60] if isinstance(step, Cleared)]
    assert sum(left) == 0
    released = "".join(step.text for step in steps if isinstance(step, Cleared))
    assert released.startswith(hidden)


@pytest.fixture
def stage1_guard() -> Guard:
    """A guard with a stage 1 alone that knows the word wort."""
    return keyword_guard(keyword_head("wort"))


@pytest.fixture
def cascade_guard() -> Guard:
    """A guard whose stage 1 escalates on wort."""
    return keyword_guard(keyword_head("wort"), has_stage2=True)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_stage2_nonsense_blocks(cascade_guard: Guard, nonsense: float) -> None:
    """A stage-2 score that is not finite ends in the fail mode."""
    session = cascade_guard.session(user_says("wort wort"), SessionPolicy())
    verdict = drive(session.judge_prompt(), lambda _: Scored(nonsense, "clause"))
    assert isinstance(verdict, Block)
    assert verdict.stage is Stage.FAIL_MODE


def test_broken_stage2_blocks(cascade_guard: Guard) -> None:
    """A stage 2 that raises blocks the exchange, and its words are not repeated."""

    def broken(request: Escalation) -> Answer:
        raise RuntimeError(request.prompt)

    verdict = drive(
        cascade_guard.session(user_says("wort wort"), SessionPolicy()).judge_prompt(), broken
    )
    assert isinstance(verdict, Block)
    assert verdict.stage is Stage.FAIL_MODE


def test_bypass_is_counted(cascade_guard: Guard) -> None:
    """In bypass mode a broken stage 2 lets pass and is reported by name."""
    session = cascade_guard.session(
        user_says("wort wort"), SessionPolicy(fail_mode_stage2=FailMode.BYPASS)
    )
    assert isinstance(drive(session.judge_prompt(), lambda _: Failed("Overloaded")), Allow)
    assert session.report().bypasses == ("stage2: Overloaded",)


def test_bypass_of_one_stage_is_not_the_other_stages(cascade_guard: Guard) -> None:
    """A stage 2 that breaks still blocks where only stage 1 may be bypassed."""
    session = cascade_guard.session(
        user_says("wort wort"), SessionPolicy(fail_mode_stage1=FailMode.BYPASS)
    )
    verdict = drive(session.judge_prompt(), lambda _: Failed("Overloaded"))
    assert isinstance(verdict, Block)
    assert verdict.stage is Stage.FAIL_MODE


def test_broken_stage1_blocks(stage1_guard: Guard) -> None:
    """A stage 1 that raises blocks, on the prompt and on the reply."""

    class Broken:
        name = "broken"

        def open_prompt(self) -> "Broken":
            return self

        open_reply = open_prompt

        def feed(self, tokens: object) -> float:
            raise ValueError(tokens)

        def attribution(self) -> str:
            return ""

    cascade = stage1_guard.cascade
    broken = Guard(
        Cascade(
            digest=cascade.digest,
            stage1=Broken(),
            has_stage2=False,
            prompt=cascade.prompt,
            reply=cascade.reply,
        ),
        PlainDecoder(),
    )
    session = broken.session(PROMPT, SessionPolicy())
    assert isinstance(drive(session.judge_prompt(), never), Block)
    assert isinstance(drive(session.feed(Lane(), "some words "), never), Block)


def test_audit_delivers_and_marks(stage1_guard: Guard) -> None:
    """Audit mode delivers everything and notes what would have blocked."""
    session = stage1_guard.session(PROMPT, SessionPolicy(mode=DeliveryMode.AUDIT))
    released, blocked = play(session, ["wort "] * 20, Lane(), never)
    assert not blocked
    assert released == "wort " * 20
    assert session.would_block is not None


def test_full_mode_releases_nothing_before_the_end(stage1_guard: Guard) -> None:
    """Full mode withholds the whole reply until it is scored."""
    session = stage1_guard.session(PROMPT, SessionPolicy(mode=DeliveryMode.FULL))
    for _ in range(50):
        step = drive(session.feed(Lane(), "plain words "), never)
        assert step == Cleared(text="")
    ((_, end),) = drive(session.finish(), never)
    assert end == Cleared(text="plain words " * 50)


def test_a_block_is_final_on_every_lane(stage1_guard: Guard) -> None:
    """After a block no lane releases anything more, finish included."""
    session = stage1_guard.session(PROMPT, SessionPolicy())
    assert isinstance(drive(session.feed(Lane(), "wort " * 30), never), Block)
    assert isinstance(drive(session.feed(Lane(choice=1), "harmless "), never), Block)
    assert drive(session.finish(), never) == ()


@given(st.lists(st.tuples(st.integers(0, 2), TEXTS), max_size=12))
def test_lanes_never_mix(events: list[tuple[int, str]]) -> None:
    """Interleaved lanes each release exactly their own text."""
    guard = rule_guard()
    session = guard.session(PROMPT, SessionPolicy())
    lanes = [Lane(), Lane(choice=1), Lane(channel=Channel.REASONING)]
    sent = dict.fromkeys(lanes, "")
    got = dict.fromkeys(lanes, "")
    for index, text in events:
        lane = lanes[index]
        step = drive(session.feed(lane, text), never)
        assert isinstance(step, Cleared)
        sent[lane] += text
        got[lane] += step.text
    for lane, step in drive(session.finish(), never):
        assert isinstance(step, Cleared)
        got[lane] += step.text
    assert got == sent


def test_a_request_split_over_turns_is_scored_together() -> None:
    """The user's words of several turns count together, though each alone is under the bar."""
    guard = keyword_guard(keyword_head("wort", "sparge", weight=5.0, floor=8))
    turns = [
        Turn(role=Role.USER, parts=(TextPart(text=text),))
        for text in ("about wort please", "now sparge please")
    ]

    def judge(*said: Turn) -> Verdict:
        return drive(guard.session(Exchange(turns=said), SessionPolicy()).judge_prompt(), never)

    assert [type(judge(turn)) for turn in turns] == [Allow, Allow]
    assert isinstance(judge(*turns), Block)


def test_an_answer_split_over_turns_adds_up() -> None:
    """What the assistant said before is context for what it says now."""
    guard = keyword_guard(keyword_head("wort", weight=6.0))
    before = Exchange(
        turns=(
            Turn(role=Role.USER, parts=(TextPart(text="begin"),)),
            Turn(role=Role.ASSISTANT, parts=(TextPart(text="the wort is a wort"),)),
            Turn(role=Role.USER, parts=(TextPart(text="go on"),)),
        )
    )
    new = ["and wort then "]
    assert not play(guard.session(PROMPT, SessionPolicy()), new, Lane(), never)[1]
    assert play(guard.session(before, SessionPolicy()), new, Lane(), never)[1]


@pytest.mark.parametrize("hover", [0.02, -0.02])
def test_a_score_that_hovers_gives_one_verdict(hover: float) -> None:
    """Stage 2 that wavers around the bar blocks at its first crossing and never takes it back."""
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    answers = itertools.cycle([-0.01, hover, -0.01])
    verdicts: list[bool] = []
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=4))
    for _ in range(60):
        step = drive(session.feed(Lane(), "wort "), lambda _: Scored(next(answers), "clause"))
        verdicts.append(isinstance(step, Block))
    assert sum(a != b for a, b in itertools.pairwise(verdicts)) == int(hover > 0)
    assert verdicts[-1] is (hover > 0)


def test_audit_notes_the_first_of_many_crossings() -> None:
    """Where nothing is stopped a wavering score is one finding, not one for each crossing."""
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    answers = itertools.cycle([1.0, -1.0])
    session = guard.session(PROMPT, SessionPolicy(mode=DeliveryMode.AUDIT, hold_tokens=4))
    found = set()
    for _ in range(60):
        drive(session.feed(Lane(), "wort "), lambda _: Scored(next(answers), "clause"))
        found.add(session.would_block)
    assert len(found - {None}) == 1


def test_a_score_above_the_bar_asks_stage2_once_every_k_tokens() -> None:
    """A stretch that stays escalated costs a call for each K tokens, not for each token."""
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=True)
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=10))
    for _ in range(200):
        drive(session.feed(Lane(), "wort "), lambda _: Scored(-5.0, ""))
    assert 15 <= session.report().escalations <= 21


@pytest.mark.parametrize(("has_stage2", "stage"), [(False, Stage.STAGE1), (True, Stage.STAGE2)])
def test_an_injection_is_attributed_to_its_turn(has_stage2: bool, stage: Stage) -> None:  # noqa: FBT001 - a parameter
    """What a tool brought in is blocked as the tool's turn, not as the user's."""
    guard = keyword_guard(keyword_head("wort", floor=1), has_stage2=has_stage2)
    exchange = Exchange(
        turns=(
            Turn(role=Role.USER, parts=(TextPart(text="summarise the page please"),)),
            Turn(role=Role.TOOL, parts=(TextPart(text="wort wort", channel=Channel.TOOL_RESULT),)),
            Turn(role=Role.USER, parts=(TextPart(text="and be brief"),)),
        )
    )
    session = guard.session(exchange, SessionPolicy())
    verdict = drive(session.judge_prompt(), lambda _: Scored(5.0, "clause"))
    assert isinstance(verdict, Block)
    assert (verdict.stage, verdict.turn) == (stage, 1)


def test_a_rule_in_a_tool_result_is_attributed_too() -> None:
    """A written rule's hit names the turn as a score's does."""
    exchange = Exchange(
        turns=(
            Turn(role=Role.USER, parts=(TextPart(text="read it"),)),
            Turn(role=Role.TOOL, parts=(TextPart(text=MARKER, channel=Channel.TOOL_RESULT),)),
        )
    )
    verdict = drive(rule_guard().session(exchange, SessionPolicy()).judge_prompt(), never)
    assert isinstance(verdict, Block)
    assert (verdict.stage, verdict.turn) == (Stage.RULE, 1)


def test_what_only_the_turns_together_say_belongs_to_no_single_turn() -> None:
    """A request that is split over turns is attributed to all of the user's."""
    guard = keyword_guard(keyword_head("wort", "sparge", weight=5.0, floor=8))
    turns = tuple(
        Turn(role=Role.USER, parts=(TextPart(text=text),))
        for text in ("about wort please", "now sparge please")
    )
    verdict = drive(guard.session(Exchange(turns=turns), SessionPolicy()).judge_prompt(), never)
    assert isinstance(verdict, Block)
    assert verdict.turn == -1


def test_a_long_reply_costs_linear_time() -> None:
    """Eight times the text is far from sixty-four times the work: what is old is not read again."""
    guard = Guard(keyword_guard(keyword_head("wort")).cascade, ViewDecoder())

    def cost(times: int) -> float:
        session = guard.session(PROMPT, SessionPolicy())
        began = time.process_time()
        for _ in range(times):
            drive(session.feed(Lane(), "plain words and no more of that kind at all "), never)
        drive(session.finish(), never)
        return time.process_time() - began

    short = min(cost(285) for _ in range(3))
    assert cost(2280) < 24 * short  # 100,000 characters; quadratic work would be 64 times


def test_a_long_reply_costs_bounded_memory(stage1_guard: Guard) -> None:
    """A reply of 100,000 characters keeps no more than the withheld end in memory."""
    session = stage1_guard.session(PROMPT, SessionPolicy())
    released = 0
    for _ in range(2_000):
        step = drive(session.feed(Lane(), "plain words and no more of that kind at all "), never)
        assert isinstance(step, Cleared)
        released += len(step.text)
        state = session._lanes[Lane()]
        assert len(state.waiting) < 400
        assert len(state.tail) <= 1200
    assert released > 80_000
