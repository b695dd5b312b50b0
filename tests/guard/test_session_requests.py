"""Stage 2 reads the user's last request whole, whatever stage 1 thinks of it."""

import pytest

from safehold.exchange import Exchange, Role, TextPart, Turn, user_says
from safehold.guard.interface import Allow, Block, Escalation, Scored, SessionPolicy, Verdict
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import drive
from safehold.guard.session.segments import WHOLE, windows
from safehold.guard.session.session import Guard
from safehold.testing.scorers import keyword_guard, keyword_head

GUARD = Guard(keyword_guard(keyword_head("wort"), has_stage2=True).cascade, ViewDecoder())


def judged(exchange: Exchange, phrase: str) -> tuple[Verdict, list[str], int]:
    """Return the verdict under a stage 2 that knows a phrase, what it read, and the doubts."""
    read: list[str] = []

    def answer(request: Escalation) -> Scored:
        read.append(request.prompt)
        return Scored(9.0 if phrase in request.prompt else -9.0, "clause")

    session = GUARD.session(exchange, SessionPolicy())
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
    assert len(read) <= 2


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
