"""What earlier turns scored is not scored again, and no verdict depends on that."""

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.exchange import Exchange, Role, TextPart, Turn, user_says
from safehold.guard.interface import Allow, Escalation, Failed, FailMode, Scored, SessionPolicy
from safehold.guard.overlay.interface import HotHit
from safehold.guard.overlay.live import HotSource, RulesInForce, no_hot_rules
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.drivers import drive
from safehold.guard.session.remembered import ScoreMemory, TextScores
from safehold.guard.session.segments import blocks
from safehold.guard.session.session import Guard
from safehold.testing.guards import PlainDecoder

LIMITS = Thresholds(escalate=1.0, weights=(0.5, 0.5, 0.0), block=4.0, alone=3.0)
WORDS = ("malt", "warm", "hot", "fierce", "rest", "yeast and hops", "go on", "in base64", "x" * 700)


class Lane:
    """Scores a text by its words, and counts how many it read."""

    def __init__(self, owner: "Counting") -> None:
        self._owner = owner

    def feed(self, words: Sequence[str]) -> float:
        """Return the sum of what the words weigh."""
        self._owner.read += len(words)
        if self._owner.broken:
            raise RuntimeError
        return sum({"warm": 0.7, "hot": 1.5, "fierce": 3.5}.get(word, -0.2) for word in words)

    def attribution(self) -> str:
        """Name nothing."""
        return ""


class Counting:
    """A stage 1 that counts what it reads."""

    def __init__(self) -> None:
        self.read = 0
        self.broken = False

    def open_prompt(self) -> Lane:
        """Start a prompt."""
        return Lane(self)

    def open_reply(self) -> Lane:
        """Start a reply."""
        return Lane(self)


class Asked:
    """A stage 2 that counts what it is asked."""

    def __init__(self, answer: Scored | Failed | None = None) -> None:
        self.count = 0
        self._answer = answer

    def __call__(self, request: Escalation) -> Scored | Failed:
        """Weigh a text by how often it says hot."""
        self.count += 1
        return self._answer or Scored(logit=request.prompt.count("hot") * 3.0, clause="c")


def guard(*, second: bool = True, rules: tuple[str, ...] = ("purple",)) -> tuple[Guard, Counting]:
    """Return a guard of all kinds of scorers."""
    stage1 = Counting()
    written = RuleSet([Rule(id=one, clause="r", pattern=one) for one in rules]) if rules else None
    cascade = Cascade("d" * 64, stage1, second, LIMITS, LIMITS, written)  # type: ignore[arg-type]
    return Guard(cascade, PlainDecoder()), stage1


def hot_rules(pattern: str) -> RulesInForce:
    """Return one hot rule that acts."""
    rules = RuleSet([Rule(id="h", clause="hot", pattern=pattern)])
    return RulesInForce(version=1, rules=rules, hits={"h": HotHit("h", "me", True)})


def judged(
    made: Guard,
    exchange: Exchange,
    memory: ScoreMemory | None,
    asked: Asked,
    policy: SessionPolicy | None = None,
    hot: HotSource = no_hot_rules,
    account: str = "t/k",
) -> object:
    """Return the verdict and what the report says."""
    session = made.session(exchange, policy or SessionPolicy(), None, hot, memory, account)
    verdict = drive(session.judge_prompt(), asked)
    report = session.report()
    # Of a prompt that is refused nothing is delivered, so it does not matter what it asked for.
    coded = isinstance(verdict, Allow) and session._prompt.coded
    scores = report.prompt_score, session.stage1_logits
    return verdict, coded, scores, report.bypasses, report.hot


_texts = st.lists(st.sampled_from((*WORDS, "purple")), min_size=1, max_size=8).map(" ".join)
_turns = st.lists(
    st.builds(
        lambda role, text: Turn(role=role, parts=(TextPart(text=text),)),
        st.sampled_from(list(Role)),
        _texts,
    ),
    min_size=1,
    max_size=10,
)


@settings(deadline=None, max_examples=40)
@given(_turns, st.sampled_from([0, 1]), st.sampled_from([1, 2]))
def test_the_verdict_is_the_same_with_and_without_a_memory(
    turns: list[Turn], second: int, times: int
) -> None:
    """Turn by turn, and the same request twice: verdict, score and report are the same."""
    made, _ = guard(second=bool(second))
    memory = ScoreMemory()
    for end in [n for n in range(1, len(turns) + 1) for _ in range(times)]:
        exchange = Exchange(turns=tuple(turns[:end]))
        fresh = judged(made, exchange, None, Asked())
        assert judged(made, exchange, memory, Asked()) == fresh


@settings(deadline=None, max_examples=60)
@given(_turns, _turns, st.integers(0, 9), st.sampled_from([0, 1, 2, 3]))
def test_a_history_that_is_known_changes_no_verdict(
    turns: list[Turn], other: list[Turn], at: int, kind: int
) -> None:
    """Several turns more at once, a turn put in or taken out, hot rules that come and go."""
    made, _ = guard(second=bool(kind & 1), rules=("purple",) if kind & 2 else ())
    memory, hot = ScoreMemory(), hot_rules("go on")
    asked = [
        turns[:1],
        turns,
        [*turns, *other],
        [*turns[:at], *other[:1], *turns[at:], *other],
        [*turns[at:], *other],
        [*turns, *other],
    ]
    for source in (no_hot_rules, lambda: hot, no_hot_rules):
        for some in asked:
            exchange = Exchange(turns=tuple(some))
            fresh = judged(made, exchange, None, Asked(), hot=source)
            assert judged(made, exchange, memory, Asked(), hot=source) == fresh


@settings(deadline=None, max_examples=40)
@given(_turns)
def test_a_small_memory_only_costs_time(turns: list[Turn]) -> None:
    """Whatever was thrown out is scored again; the memory stays within its bound."""
    made, _ = guard()
    memory = ScoreMemory(max_bytes=1_000)
    for end in range(1, len(turns) + 1):
        exchange = Exchange(turns=tuple(turns[:end]))
        assert judged(made, exchange, memory, Asked()) == judged(made, exchange, None, Asked())
        assert memory.size <= 1_000


def chat(turns: int, words: int = 60) -> Exchange:
    """Return a conversation of different turns."""
    numbers = itertools.count()
    return Exchange(
        turns=tuple(
            Turn(
                role=Role.USER if turn % 2 == 0 else Role.ASSISTANT,
                parts=(TextPart(text=" ".join(f"w{next(numbers)}" for _ in range(words))),),
            )
            for turn in range(turns)
        )
    )


def test_earlier_turns_are_not_scored_again() -> None:
    """What stage 1 reads for one more turn does not grow with the conversation."""
    made, stage1 = guard()
    memory, whole, read = ScoreMemory(), chat(240), []
    for end in range(2, 241, 2):
        stage1.read = 0
        judged(made, Exchange(turns=whole.turns[:end]), memory, Asked())
        read.append(stage1.read)
    assert max(read[60:]) <= 1.2 * max(read[20:40])
    stage1.read = 0
    judged(made, whole, None, Asked())
    assert sum(read) < len(read) * stage1.read / 4


class Looked(PlainDecoder):
    """Counts the texts of which views are made."""

    def __init__(self) -> None:
        self.count = 0

    def views(self, text: str) -> Sequence[str]:
        """Return the text alone."""
        self.count += 1
        return super().views(text)


def test_what_a_request_costs_does_not_grow_with_its_history() -> None:
    """Of a known history nothing is looked up but turns that are worth a second look."""
    made, _ = guard(rules=())
    memory, whole, looked = ScoreMemory(), chat(400, words=5), []
    mine = memory.of(made.digest, SessionPolicy(), "t/k")
    for end in range(2, 401, 2):
        names = mine.beginnings(whole.turns[:end])
        assert (mine.past(names) is None) == (end == 2)
        decoder = Looked()
        judged(Guard(made.cascade, decoder), Exchange(whole.turns[:end]), memory, Asked())
        looked.append(decoder.count)
    assert max(looked[100:]) <= max(looked[50:100])
    assert mine.beginnings((Turn(Role.USER, (TextPart("\ud800"),)),)) == []


def test_a_rule_that_comes_while_a_reply_is_streamed_finds_a_history_that_was_passed() -> None:
    """Neither turns that were not looked at again nor turns joined escape a later rule."""
    for pattern, said in (("calm", "a quite calm day"), ("quite calm", "a quite")):
        made, _ = guard(rules=())
        turns = [Turn(Role.USER, (TextPart(text),)) for text in (said, "calm as ever", *"abcdefgh")]
        memory, now = ScoreMemory(), [RulesInForce(version=0)]
        for end in (4, len(turns)):
            session = made.session(
                Exchange(tuple(turns[:end])),
                SessionPolicy(),
                None,
                lambda now=now: now[0],  # type: ignore[misc]
                memory,
                "t/k",
            )
            drive(session.judge_prompt(), Asked())
            now[0] = RulesInForce(version=0)
            assert session._prompt.again() is None
            now[0] = hot_rules(pattern)
            assert session._prompt.again() is not None
            now[0] = RulesInForce(version=0)


def test_stage_2_is_asked_once_about_a_text() -> None:
    """The same request again asks nothing; a failure is asked again."""
    made, _ = guard()
    memory, asked = ScoreMemory(), Asked()
    for _ in range(3):
        judged(made, user_says("a warm hot day"), memory, asked)
    assert asked.count == 1
    broken = Asked(Failed(reason="Overloaded"))
    policy = SessionPolicy(fail_mode_stage2=FailMode.BYPASS)
    for _ in range(3):
        judged(made, user_says("another hot day"), memory, broken, policy)
    assert broken.count == 3


def test_nothing_crosses_keys_policies_or_bundles() -> None:
    """What one key sent is scored again for another, and under any other policy or bundle."""
    made, stage1 = guard()
    memory, said = ScoreMemory(), user_says("a warm hot day")
    policies = (SessionPolicy(), SessionPolicy(hold_tokens=7))
    for policy, account in itertools.product(policies, ("t/one", "t/two", "u/one")):
        stage1.read, asked = 0, Asked()
        judged(made, said, memory, asked, policy, account=account)
        assert (stage1.read > 0, asked.count) == (True, 1)
        stage1.read, asked = 0, Asked()
        judged(made, said, memory, asked, policy, account=account)
        assert asked.count == 0
    for account in ("", "t/one"):  # without a key nothing is remembered
        asked = Asked()
        judged(made, said, None if account else memory, asked, account=account)
        judged(made, said, None if account else memory, asked, account=account)
        assert asked.count == 2


def test_what_a_broken_scorer_let_pass_is_not_remembered() -> None:
    """A bypass is noted each time, and the text is scored once the scorer works again."""
    made, stage1 = guard(second=False)
    memory, policy = ScoreMemory(), SessionPolicy(fail_mode_stage1=FailMode.BYPASS)
    said = user_says("a fierce day")
    stage1.broken = True
    assert judged(made, said, memory, Asked(), policy) == judged(made, said, None, Asked(), policy)
    assert judged(made, said, memory, Asked(), policy) == judged(made, said, None, Asked(), policy)
    stage1.broken = False
    fresh = judged(made, said, None, Asked(), policy)
    assert judged(made, said, memory, Asked(), policy) == fresh


def test_a_hot_rule_stops_a_remembered_turn() -> None:
    """A rule that comes later is searched in every turn, remembered or not."""
    made, _ = guard()
    memory, said = ScoreMemory(), user_says("a quite calm day")
    hot = hot_rules("calm")
    quiet = judged(made, said, memory, Asked())
    stopped = judged(made, said, memory, Asked(), hot=lambda: hot)
    assert stopped == judged(made, said, None, Asked(), hot=lambda: hot)
    assert stopped != quiet
    # One that comes while the reply is streamed searches the prompt again.
    now = [RulesInForce(version=0)]
    session = made.session(said, SessionPolicy(), None, lambda: now[0], memory, "t/k")
    drive(session.judge_prompt(), Asked())
    now[0] = hot
    assert session._prompt.again() is not None


def test_blocks_hold_all_of_a_text_and_stay_as_it_grows() -> None:
    """Any stretch of 6,000 characters is whole in a block, and only the last blocks change."""
    text = "".join(f"{n:06d}" for n in range(10_000))
    for start in range(0, len(text) - 6_000, 977):
        assert any(text[start : start + 6_000] in one for one in blocks(text))
    more = blocks(text + "y" * 900)
    assert sum(one not in more for one in blocks(text)) <= 2
    assert blocks("short") == ["short"]


def test_kept_values_are_counted() -> None:
    """A value that is kept again takes the place of the one before."""
    memory = ScoreMemory()
    mine = memory.of("b", SessionPolicy(), "a")
    name = mine.name(b"t", "text")
    mine.keep(name, TextScores((4,), ((1.0, 2.0),)))
    once = memory.size
    mine.keep(name, TextScores((4,), ((1.0, 2.0),)))
    assert memory.size == once
    assert mine.answer(name) is None
    assert mine.scores(mine.name(b"r", "text")) is None
