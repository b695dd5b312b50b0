"""What is dealt over answers adds up: stage 2 reads a doubted reply behind those before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Exchange, Lane, Role, TextPart, Turn
from safehold.guard.interface import Block
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.drivers import drive
from safehold.guard.session.segments import READ, answered, joined_answer
from safehold.guard.session.session import SessionPolicy
from safehold.testing.scorers import PhraseStage2, keyword_guard, keyword_head

_PHRASE = "crush the malt\nand steep it"


def talk(*answers: str) -> Exchange:
    """Return a conversation with these answers, and a last word of the user's."""
    turns = [Turn(role=Role.USER, parts=(TextPart(text="hello"),))]
    for answer in answers:
        turns.append(Turn(role=Role.ASSISTANT, parts=(TextPart(text=answer),)))
        turns.append(Turn(role=Role.USER, parts=(TextPart(text="and then?"),)))
    return Exchange(turns=tuple(turns))


def stopped(exchange: Exchange, reply: str, sizes: int = 7) -> bool:
    """Return whether a reply, in pieces of some length, is stopped."""
    session = keyword_guard(keyword_head("steep"), has_stage2=True).session(
        exchange, SessionPolicy()
    )
    ask = InlineStage2(PhraseStage2(_PHRASE))
    drive(session.judge_prompt(), ask)
    for at in range(0, len(reply), sizes):
        if isinstance(drive(session.feed(Lane(), reply[at : at + sizes]), ask), Block):
            return True
    return any(isinstance(end, Block) for _, end in drive(session.finish(), ask))


@pytest.mark.parametrize("between", [(), ("Fine weather today.",)], ids=["next", "with chatter"])
def test_a_reply_is_read_behind_the_answers_before_it(between: tuple[str, ...]) -> None:
    """Neither part is stopped alone, nor behind something else; together they are."""
    first, second = "First crush the malt", "and steep it for an hour"
    assert not stopped(talk(), second)
    assert not stopped(talk(*between), second)
    assert not stopped(talk("Water the beans"), second)
    assert stopped(talk(*between, first), second)


@given(st.integers(1, 40))
def test_the_cut_of_the_stream_changes_nothing(size: int) -> None:
    """However the second part arrives, it is stopped behind the first and passes without it."""
    assert stopped(talk("First crush the malt"), "and steep it for an hour", size)
    assert not stopped(talk("First grind the beans"), "and steep it for an hour", size)


@given(st.lists(st.text(min_size=1, max_size=400), max_size=6), st.text(max_size=2 * READ))
def test_what_is_joined_is_bounded_and_ends_with_the_reply(said: list[str], reply: str) -> None:
    """The end of all answers, at most half of what stage 2 reads, stands before the reply."""
    before = answered(talk(*said))
    assert len(before) <= READ // 2
    assert "\n".join(one for one in said if one.strip()).endswith(before.lstrip("\n"))
    together = joined_answer(before, reply)
    assert len(together) <= READ
    if together:
        assert together.endswith(reply)
        assert len(reply) < READ
    else:
        assert not before or len(reply) >= READ
