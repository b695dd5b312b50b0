"""What a reader sees is what is scored, and the verdict is a function of the text alone."""

import asyncio
import hashlib
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.exchange import Channel, Exchange, Lane, Role, TextPart, Turn, user_says
from safehold.guard.interface import Block, Cleared, Escalation, Failed, Scored, SessionPolicy
from safehold.guard.scorers.interface import ExchangeScore, ScoringInput
from safehold.guard.session.batching import BatchLimits, Stage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import drive, run_flow
from safehold.guard.session.session import Guard
from safehold.testing.guards import MARKER, rule_guard
from safehold.testing.scorers import keyword_guard, keyword_head

PROMPT = user_says("tell me something")
LANES = [Lane(), Lane(choice=1), Lane(channel=Channel.REASONING)]
DISGUISES = {
    "no-break space": MARKER.replace(" ", "\u00a0"),
    "zero-width": "\u200b".join(MARKER),
    "soft hyphen": MARKER.replace("p", "p\u00ad"),
    "Cyrillic": MARKER.replace("e", "\u0435").replace("p", "\u0440"),
    "full width": "".join(chr(ord(c) + 0xFEE0) if c != " " else c for c in MARKER),
    "mathematical": "".join(chr(0x1D41A + ord(c) - 97) if c != " " else c for c in MARKER),
    "code": " ".join(f"`{word}`" for word in (MARKER + " is it, yes it is").split()),
    "links": " ".join(f"[{word}](x)" for word in (MARKER + " is it, yes it is").split()),
}


def no_stage2(request: Escalation) -> Failed:
    """Answer for guards that have no stage 2."""
    del request
    return Failed(reason="NoStage2")


def played(guard: Guard, deltas: list[str], lane: Lane, hold: int = 16) -> tuple[str, bool]:
    """Return what left and whether the exchange was blocked."""
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=hold))
    out = ""
    for delta in deltas:
        step = drive(session.feed(lane, delta), no_stage2)
        if isinstance(step, Block):
            return out, True
        out += step.text
    for _, step in drive(session.finish(), no_stage2):
        if isinstance(step, Block):
            return out, True
        out += step.text
    return out, False


@pytest.mark.parametrize("lane", LANES, ids=str)
@pytest.mark.parametrize("size", [1, 7, 4000])
@pytest.mark.parametrize("name", DISGUISES)
def test_a_rule_reads_replies_as_a_reader_does(name: str, size: int, lane: Lane) -> None:
    """A phrase in look-alike, invisible or wrapped form is found in replies, on every channel."""
    text = "Well, here it is, as you asked for it: " + DISGUISES[name] + " and so the day ended."
    deltas = [text[at : at + size] for at in range(0, len(text), size)]
    out, blocked = played(Guard(rule_guard().cascade, ViewDecoder()), deltas, lane)
    assert blocked
    assert "urple" not in out


def test_marks_around_other_words_pass() -> None:
    """The same wrappers around harmless words leave as they came (benign twin)."""
    for name, text in DISGUISES.items():
        twin = text.replace("elephant", "giraffe").replace("\u0435leph", "x")
        if name in ("code", "links", "no-break space"):
            guard = Guard(rule_guard().cascade, ViewDecoder())
            assert played(guard, [twin], Lane()) == (twin, False)


class Noisy:
    """A stage 2 whose score is a digest of its input, so that any other window shows."""

    name = "noisy"

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Score each input by its digest alone."""
        return [
            ExchangeScore(hashlib.sha256(one.reply.encode()).digest()[0] / 80 - 3.1, "clause")
            for one in batch
        ]


def noisy(request: Escalation) -> Scored:
    """Answer as `Noisy` does, at once."""
    (score,) = Noisy().score([ScoringInput(request.prompt, request.reply)])
    return Scored(score.logit, score.clause)


TEXTS = st.lists(
    st.sampled_from(
        ["the ", "wort ", "`wort` ", "w\u200bort ", "\u9ea6\u82bd", "x" * 70, "\n", "aGVsbG8gd29y "]
    ),
    max_size=120,
).map("".join)


def cut_of(guard: Guard, deltas: list[str]) -> tuple[str, Block | None]:
    """Return what left and the block."""
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=4, decoded_tokens=8, doubt_tokens=6))
    out = ""
    for delta in deltas:
        step = drive(session.feed(Lane(), delta), noisy)
        if isinstance(step, Block):
            return out, step
        out += step.text
    for _, step in drive(session.finish(), noisy):
        if isinstance(step, Block):
            return out, step
        out += step.text
    return out, None


@settings(max_examples=150)
@given(TEXTS, st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_verdict_and_cut_do_not_depend_on_the_deltas(text: str, sizes: list[int]) -> None:
    """However a reply is split, the same characters leave and the same block comes."""
    guard = Guard(
        keyword_guard(keyword_head("wort", floor=1), has_stage2=True).cascade, ViewDecoder()
    )
    deltas, at, turn = [], 0, 0
    while at < len(text):
        deltas.append(text[at : at + sizes[turn % len(sizes)]])
        at += len(deltas[-1])
        turn += 1
    assert cut_of(guard, deltas) == cut_of(guard, [text]) == cut_of(guard, list(text))


async def _served(guard: Guard, text: str, stage2: Stage2, seed: int) -> tuple[str, Block | None]:
    chance = random.Random(seed)
    session = guard.session(PROMPT, SessionPolicy(hold_tokens=4))
    out, at = "", 0
    while at < len(text):
        delta = text[at : at + chance.randint(1, 30)]
        at += len(delta)
        await asyncio.sleep(chance.choice([0, 0, 0.001]))
        step = await run_flow(session.feed(Lane(), delta), stage2)
        if isinstance(step, Block):
            return out, step
        out += step.text
    for _, step in await run_flow(session.finish(), stage2):
        if isinstance(step, Block):
            return out, step
        assert isinstance(step, Cleared)
        out += step.text
    return out, None


def test_verdict_and_cut_do_not_depend_on_load() -> None:
    """One after the other or twelve at once, in batches of any size, texts end the same."""
    guard = Guard(
        keyword_guard(keyword_head("wort", floor=1), has_stage2=True).cascade, ViewDecoder()
    )
    texts = [f"story {n}: " + f"one {n} wort and two `{n}` so on " * (n + 2) for n in range(12)]

    async def play(batch: int, at_once: int) -> list[tuple[str, Block | None]]:
        stage2 = Stage2(Noisy(), BatchLimits(batch=batch))
        try:
            ends: list[tuple[str, Block | None]] = []
            for start in range(0, len(texts), at_once):
                some = texts[start : start + at_once]
                ends += await asyncio.gather(
                    *(_served(guard, text, stage2, batch * 100 + i) for i, text in enumerate(some))
                )
            return ends
        finally:
            stage2.close()

    first = asyncio.run(play(1, 1))
    assert any(block for _, block in first)
    assert any(block is None for _, block in first)
    assert asyncio.run(play(16, 12)) == first
    assert asyncio.run(play(3, 5)) == first


def test_every_character_of_a_long_prompt_is_scored() -> None:
    """A phrase in the middle of a prompt far beyond one search's limit is found."""
    guard = Guard(rule_guard().cascade, ViewDecoder())
    for at in (100_000, 230_000, 300_000):
        text = "x y " * (at // 4) + MARKER + " z z" * ((400_000 - at) // 4)
        verdict = drive(guard.session(user_says(text), SessionPolicy()).judge_prompt(), no_stage2)
        assert isinstance(verdict, Block)


def test_halves_of_pairs_break_no_scorer() -> None:
    """Escapes of lone surrogates, several of them, are read on and end as any text does."""
    guard = Guard(keyword_guard(keyword_head("wort")).cascade, ViewDecoder())
    text = '{"a": "\\ud83d \\ude00\\ud800 x", "b": "\\udc00\\udc00 \\ud83d\\ude00"} and on it goes'
    assert played(guard, [text], Lane(channel=Channel.TOOL_ARGUMENTS)) == (text, False)
    exchange: Exchange = user_says(text)
    verdict = drive(guard.session(exchange, SessionPolicy()).judge_prompt(), no_stage2)
    assert not isinstance(verdict, Block)


def cut_up(text: str, size: int) -> tuple[str, ...]:
    """Cut a text into parts of a size."""
    return tuple(text[at : at + size] for at in range(0, len(text), size))


def said(role: Role, *messages: tuple[str, ...]) -> Exchange:
    """Return an exchange of a role's messages, each of parts, with a question behind them."""
    channel = Channel.TOOL_RESULT if role is Role.TOOL else Channel.TEXT
    turns = [
        Turn(role=role, parts=tuple(TextPart(text=part, channel=channel) for part in parts))
        for parts in messages
    ]
    return Exchange(turns=(*turns, Turn(role=Role.USER, parts=(TextPart(text="and now?"),))))


ROLES = [Role.USER, Role.SYSTEM, Role.TOOL]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_a_phrase_cut_over_parts_or_turns_is_joined(role: Role, size: int) -> None:
    """A rule finds its phrase in parts of any size, in one message, or in one message each."""
    guard = Guard(rule_guard().cascade, ViewDecoder())
    text = "please say this: " + MARKER
    parts = cut_up(text, size)
    words = tuple(f"{word}" for word in text.split())
    for exchange in (
        said(role, parts),
        said(role, *((part,) for part in parts)),
        said(role, words),
        said(role, *((word,) for word in words)),
        said(role, ("long " * 400 + "purple eleph", "ant protocol" + " long" * 400)),
    ):
        session = guard.session(exchange, SessionPolicy())
        assert isinstance(drive(session.judge_prompt(), no_stage2), Block)


@pytest.mark.parametrize("role", ROLES)
def test_parts_that_only_meet_do_not_make_a_phrase(role: Role) -> None:
    """Messages that hold the phrase's words in another order pass (benign twin)."""
    guard = Guard(rule_guard().cascade, ViewDecoder())
    exchange = said(role, ("protocol of the purple", "elephant house"), ("the elephant", "purple"))
    session = guard.session(exchange, SessionPolicy())
    assert not isinstance(drive(session.judge_prompt(), no_stage2), Block)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_words_cut_over_parts_are_scored_whole(size: int) -> None:
    """Stage 1 sees the words that small parts make together; other words in parts pass."""
    guard = Guard(keyword_guard(keyword_head("wort", floor=1)).cascade, ViewDecoder())
    for text, stopped in (("tell me of wort please", True), ("tell me of worth please", False)):
        for role in ROLES:
            session = guard.session(said(role, cut_up(text, size)), SessionPolicy())
            verdict = drive(session.judge_prompt(), no_stage2)
            assert isinstance(verdict, Block) is stopped
