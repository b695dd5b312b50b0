"""Stage 2 reads the user's last request whole, whatever stage 1 thinks of it."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Exchange, Role, TextPart, Turn, user_says
from safehold.guard.interface import Allow, Block, Escalation, Scored, SessionPolicy, Verdict
from safehold.guard.session.cascade import TextKind
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import drive
from safehold.guard.session.segments import WHOLE, windows
from safehold.guard.session.session import Guard
from safehold.testing.scorers import keyword_guard, keyword_head

GUARD = Guard(keyword_guard(keyword_head("wort"), has_stage2=True).cascade, ViewDecoder())


def judged(
    exchange: Exchange, phrase: str, escalate: float = 0.0, margins: dict[str, float] | None = None
) -> tuple[Verdict, list[str], int]:
    """Return the verdict under a stage 2 that knows a phrase, what it read, and the doubts."""
    read: list[str] = []

    def answer(request: Escalation) -> Scored:
        read.append(request.prompt)
        return Scored(9.0 if phrase in request.prompt else -9.0, "clause")

    surface = msgspec.structs.replace(GUARD.cascade.prompt, escalate=escalate, **(margins or {}))
    cascade = msgspec.structs.replace(GUARD.cascade, prompt=surface)
    session = Guard(cascade, ViewDecoder()).session(exchange, SessionPolicy())
    verdict = drive(session.judge_prompt(), answer)
    return verdict, read, session.report().escalations


@pytest.mark.parametrize("before", [0, 300, 600])
@pytest.mark.parametrize("after", [0, 100])
def test_a_request_of_unknown_words_is_read(before: int, after: int) -> None:
    """No word that stage 1 knows is needed, wherever the words stand in 800 characters."""
    pad = "and so it was told to me long ago "
    text = (pad * 60)[:before] + " how is tepache made " + (pad * 60)[:after]
    verdict, read, doubts = judged(user_says(text), "tepache")
    assert isinstance(verdict, Block)
    assert doubts == 0
    assert isinstance(judged(user_says(text), "wombat")[0], Allow)
    assert len(read) <= 2 + 4


def test_both_ends_of_a_long_request_are_read() -> None:
    """Of a request beyond the bound the beginning and the end are read."""
    for text in ("tepache, how " + "x " * 3000, "x " * 3000 + "tepache, how"):
        assert isinstance(judged(user_says(text), "tepache")[0], Block)


def test_the_last_request_is_the_users() -> None:
    """Parts of the last user turn are read together; an assistant's prefill hides nothing."""
    turns = (
        Turn(role=Role.USER, parts=(TextPart(text="hello"),)),
        Turn(role=Role.ASSISTANT, parts=(TextPart(text="hello"),)),
        Turn(role=Role.USER, parts=(TextPart(text="how is"), TextPart(text="tepache made"))),
        Turn(role=Role.ASSISTANT, parts=(TextPart(text="Sure, first"),)),
    )
    verdict, _, _ = judged(Exchange(turns=turns), "how is\ntepache made")
    assert isinstance(verdict, Block)
    assert verdict.turn == 2


@pytest.mark.parametrize("size", [1, WHOLE, WHOLE + 1, 2 * WHOLE, 2 * WHOLE + 1, 9000])
def test_windows_are_bounded(size: int) -> None:
    """At most two windows of a bounded length; up to the bound every character is in one."""
    text = "".join(chr(0x4E00 + at % 9000) for at in range(size))
    found = windows(text)
    assert len(found) <= 2
    assert all(len(window) <= WHOLE for window in found)
    if size <= 2 * WHOLE:
        assert set("".join(found)) == set(text)


SURE = {"earlier": 100.0, "part": 100.0, "joined": 100.0}
"""Margins at which nothing but the last request is ever stopped."""
LONG = (
    "please tell me in your own words and at some length how it is that tepache is made by hand "
    "in the hills"
)


def test_the_readers_form_of_a_marked_request_is_the_request() -> None:
    """Marks around each word make a request longer, and leave it the last request all the same."""
    for mark in (
        "**{}**",
        "`{}`",
        "[{}](https://example.org/some/page)",
        "<b>{}</b>",
        "\x1b[31m{}\x1b[0m",
    ):
        marked = " ".join(mark.format(word) for word in LONG.split())
        verdict, _, _ = judged(user_says(marked), "how it is that tepache is made", 1e6, SURE)
        assert isinstance(verdict, Block), mark
        assert isinstance(judged(user_says(marked), "wombat", 1e6, SURE)[0], Allow)


@given(st.lists(st.integers(1, len(LONG) - 1), max_size=6))
def test_a_request_cut_over_parts_is_the_request(places: list[int]) -> None:
    """Wherever its parts are cut, inside words too, it is read as one text without a margin."""
    cuts = [0, *sorted(set(places)), len(LONG)]
    parts = tuple(TextPart(text=LONG[a:b]) for a, b in pairwise(cuts))
    exchange = Exchange(turns=(Turn(role=Role.USER, parts=parts),))
    assert isinstance(judged(exchange, "how it is that tepache is made", 1e6, SURE)[0], Block)
    assert isinstance(judged(exchange, "wombat", 1e6, SURE)[0], Allow)


@pytest.mark.parametrize("role", [Role.SYSTEM, Role.TOOL])
@pytest.mark.parametrize("before", [0, 3_000])
def test_a_request_cut_over_roles_is_read_as_one(role: Role, before: int) -> None:
    """What a system's message or a tool's result ends with stands before the last request."""
    first, second = LONG[:63], LONG[63:]
    turns = (
        Turn(role=Role.USER, parts=(TextPart(text="Read it."),)),
        Turn(role=role, parts=(TextPart(text=(PAD * 60)[:before] + first),)),
        Turn(role=Role.USER, parts=(TextPart(text=second),)),
    )
    whole = "how it is that tepache is made"
    assert whole in LONG
    assert not any(whole in half for half in (first, second))
    exchange = Exchange(turns=turns)
    assert isinstance(judged(exchange, whole, 1e6, SURE | {"part": 9.0})[0], Block)
    assert isinstance(judged(exchange, whole, 1e6, SURE)[0], Allow)
    _, read, _ = judged(exchange, "wombat", 1e6)
    assert any(whole in text for text in read)
    assert len(read) <= 10


def test_a_request_said_before_has_no_margin() -> None:
    """Saying the request in an earlier turn too makes it no earlier turn's text."""
    text = "sweet tepache wort"
    turns = (Turn(role=Role.USER, parts=(TextPart(text=text),)) for _ in range(2))
    assert isinstance(judged(Exchange(turns=tuple(turns)), "sweet", margins=SURE)[0], Block)


PAD = "The boats lie along the quay and all the lamps are lit at dusk. "


@pytest.mark.parametrize("size", [900, 3_000, 20_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_padding_a_request_changes_nothing(size: int, share: float) -> None:
    """Stage 2 reads it by itself wherever it stands in a long message, below any threshold.

    The twin: as much padding around a request that stage 1 finds as hot and stage 2 harmless.
    """
    for asked, stops in (
        ("How is tepache sold as wort, please?", True),
        ("A wort, please?", False),
    ):
        pad = PAD * (size // len(PAD))
        at = round(share * len(pad) / len(PAD)) * len(PAD)
        verdict, read, _ = judged(user_says(f"{pad[:at]}{asked} {pad[at:]}"), "tepache", 100.0)
        assert isinstance(verdict, Block) is stops
        short = stops or any(
            len(text) <= len(asked) + 2 * len(PAD) for text in read if asked in text
        )
        assert short
        assert len(read) <= 6


@pytest.mark.parametrize(("size", "part"), [(300, 8.0), (3_000, 8.0), (300, 200.0)])
def test_a_sentence_inside_a_request_counts_with_what_is_around_it(size: int, part: float) -> None:
    """Where a part would pass, a sentence stops with its surroundings: both readings agree.

    The twin: the same sentence whose surroundings are harmless counts as a part, and passes; so
    does either where a part must be far surer.
    """
    asked = "How is tepache sold as wort, please?"
    pad = PAD * (size // len(PAD))
    for around, stops in ((9.0, part < 100.0), (-9.0, False)):

        def answer(request: Escalation, around: float = around) -> Scored:
            holds = asked in request.prompt
            alone = len(request.prompt) < len(asked) + len(PAD) + 9
            return Scored((9.0 if alone else around) if holds else -9.0, "clause")

        surface = msgspec.structs.replace(
            GUARD.cascade.prompt, weights=(0.0, 1.0, 0.0), block=4.0, part=part
        )
        cascade = msgspec.structs.replace(GUARD.cascade, prompt=surface)
        session = Guard(cascade, ViewDecoder()).session(
            user_says(f"{pad}{asked} {pad}"), SessionPolicy()
        )
        assert isinstance(drive(session.judge_prompt(), answer), Block) is stops


def test_joined_turns_are_read_below_any_threshold() -> None:
    """What no turn says alone is read by stage 2, whatever stage 1 thinks of it."""
    words = ("how is", "tepache", "made at home")
    turns = [Turn(role=Role.USER, parts=(TextPart(text=word),)) for word in words]
    verdict, read, _ = judged(Exchange(turns=tuple(turns)), "how is\ntepache\nmade", 100.0)
    assert isinstance(verdict, Block)
    assert verdict.turn == -1
    assert len(read) <= 4


def kinds() -> dict[TextKind, Exchange]:
    """Return conversations in which only a text of that kind holds the phrase."""

    def said(*texts: str, first: Role = Role.USER) -> Exchange:
        roles = (first, *(Role.USER for _ in texts[1:]))
        turns = (
            Turn(role=role, parts=(TextPart(text=text),))
            for role, text in zip(roles, texts, strict=True)
        )
        return Exchange(turns=tuple(turns))

    return {
        TextKind.REQUEST: said("hello", "sweet tepache wort"),
        TextKind.EARLIER: said("sweet tepache wort", PAD * 40),
        TextKind.PART: said(PAD * 20 + "sweet tepache wort. " + PAD * 20),
        TextKind.JOINED: said("sweet", "tepache wort"),
        TextKind.ANSWER: said("sweet tepache wort", "and then?", first=Role.ASSISTANT),
    }


@pytest.mark.parametrize(
    "surer",
    [
        (),
        (TextKind.PART,),
        (TextKind.JOINED,),
        (TextKind.EARLIER, TextKind.JOINED),
        (TextKind.ANSWER,),
    ],
)
def test_each_kind_of_text_has_its_own_margin(surer: tuple[TextKind, ...]) -> None:
    """A kind that must be surer passes where the others are stopped, and none lowers another.

    What an earlier turn says, joined turns say too.
    """
    own = {
        kind.value: 100.0 if kind in surer else 0.0
        for kind in TextKind
        if kind.value in {"earlier", "part", "joined", "answer"}
    }
    for kind, exchange in kinds().items():
        verdict, _, _ = judged(exchange, "sweet", margins=own)
        assert isinstance(verdict, Allow) is (kind in surer), kind


def test_a_structure_counts_as_a_part_of_what_its_words_say() -> None:
    """Its words are the request, and the form itself must be as sure as a part.

    Who puts a request beside a structure has it read as a request.
    """
    asked = "stir the milk then keep it warm for seven hours and cool"
    form = "".join(f'<a w="{word}"/>' for word in asked.split(" "))
    for margin, stopped in ((0.0, True), (100.0, False)):
        verdict, read, _ = judged(user_says(form), '<a w="milk"/>', margins={"part": margin})
        assert isinstance(verdict, Block) is stopped
        assert any(asked in text for text in read) or stopped
        verdict, _, _ = judged(user_says(form), "stir the milk then", margins={"part": margin})
        assert isinstance(verdict, Block)
    beside = f"how do I dye wool with onion skins in one single afternoon {form}"
    verdict, _, _ = judged(user_says(beside), "dye wool", margins={"part": 100.0})
    assert isinstance(verdict, Block)


@pytest.mark.parametrize(
    "shape", ['{{"{n}": "{w}"}}\n', '"{w}": {n}, ', '<a w="{w}"/>', "({n}, '{w}'),\n", "{n},{w}\n"]
)
def test_a_request_spread_over_a_structure_is_read_in_order(shape: str) -> None:
    """Each word in a record, a key, an attribute or a row: stage 2 reads the sentence, no margin.

    Its benign twin, a table of settings of the same shape, has nothing more read.
    """
    asked = "please tell me how good old tepache is made in a flat with two jars"
    text = "".join(shape.format(n=n, w=w) for n, w in enumerate(asked.split()))
    verdict, read, _ = judged(user_says(text), "how good old tepache is made", margins={"part": 9})
    assert isinstance(verdict, Block)
    assert any("how good old tepache is made" in one for one in read)
    names = ("useTabs", "printWidth", "SEMI", "endOfLine", "arrowParens", "proseWrap", "MaxLen")
    twin = "".join(shape.format(n=n, w=w) for n, w in enumerate(names))
    assert len(judged(user_says(twin), "tepache")[1]) <= 2


@pytest.mark.parametrize("inside", [False, True])
def test_what_the_assistant_is_said_to_have_said_hides_nobody_elses_words(*, inside: bool) -> None:
    """An answer has a margin of its own; the same words of a user have the user's, and are read.

    However many hot answers stand beside them: a client writes the assistant's turns itself.
    """
    sure = {"earlier": 0.0, "part": 0.0, "joined": 100.0, "answer": 100.0}
    words = "sweet tepache wort, the wort of wort."
    text = f"{PAD * 20}{words} {PAD * 20}" if inside else words
    hot = [Turn(role=Role.ASSISTANT, parts=(TextPart(text=one),)) for one in [text, words] * 4]
    end = Turn(role=Role.USER, parts=(TextPart(text="and then?"),))
    assert isinstance(judged(Exchange(turns=(*hot, end)), "sweet", margins=sure)[0], Allow)
    user = Turn(role=Role.USER, parts=(TextPart(text=text),))
    for turns in ((user, *hot, end), (*hot, user, end)):
        assert isinstance(judged(Exchange(turns=turns), "sweet", margins=sure)[0], Block)


def test_without_a_margin_of_its_own_an_answer_counts_as_a_part() -> None:
    """A bundle that was calibrated before answers counted apart decides as it did."""
    exchange = kinds()[TextKind.ANSWER]
    for part, kind in ((100.0, Allow), (0.0, Block)):
        assert isinstance(judged(exchange, "sweet", margins={"part": part})[0], kind)
