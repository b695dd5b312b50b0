"""What nobody can read does not leave: the session's budget, over lanes, modes and deltas."""

import random
from collections.abc import Sequence

import pytest

from safehold.exchange import Channel, Exchange, Lane, user_says
from safehold.guard.interface import Block, DeliveryMode, Escalation, Failed, SessionPolicy, Stage
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import drive
from safehold.guard.session.session import Guard, GuardSession
from safehold.testing.guards import rule_guard

WORDS = (
    "the old harbour keeps its boats in rows and every evening the lamps along the quay are lit "
    "by a man who has done it for forty years and never once forgot the farthest of them "
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def coded(text: str, seed: int = 1) -> str:
    """Return a text in a private alphabet."""
    letters = list(LETTERS)
    random.Random(seed).shuffle(letters)
    return text.translate(str.maketrans(LETTERS, "".join(letters)))


def no_stage2(request: Escalation) -> Failed:
    """Answer for guards that have no stage 2."""
    del request
    return Failed(reason="NoStage2")


def opened(asked: Exchange | None = None, **policy: object) -> GuardSession:
    """Return a session whose rules never match."""
    guard = Guard(rule_guard("never said").cascade, ViewDecoder())
    return guard.session(asked or user_says("go on"), SessionPolicy(**policy))  # type: ignore[arg-type]


def played(
    session: GuardSession, texts: Sequence[tuple[Lane, str]], size: int = 16
) -> tuple[str, Block | None]:
    """Return what left and the block."""
    out = ""
    for lane, text in texts:
        for at in range(0, len(text), size):
            step = drive(session.feed(lane, text[at : at + size]), no_stage2)
            if isinstance(step, Block):
                return out, step
            out += step.text
    for _, end in drive(session.finish(), no_stage2):
        if isinstance(end, Block):
            return out, end
        out += end.text
    return out, None


@pytest.mark.parametrize("size", [1, 13, 5000])
@pytest.mark.parametrize("lane", [Lane(), Lane(channel=Channel.REASONING)], ids=str)
def test_a_code_is_stopped_before_the_budget_is_spent(size: int, lane: Lane) -> None:
    """Of a long cipher text at most the budget leaves, however it comes; the words before do."""
    text = WORDS * 2 + coded(WORDS * 6)
    out, block = played(opened(), [(lane, text)], size)
    assert block is not None
    assert block.stage is Stage.UNREADABLE
    assert len(out) <= len(WORDS * 2) + 200
    assert out == played(opened(), [(lane, text)], 7)[0]


def test_ordinary_words_leave() -> None:
    """The same words in clear leave whole (benign twin)."""
    assert played(opened(), [(Lane(), WORDS * 8)]) == (WORDS * 8, None)


def test_lanes_share_one_budget() -> None:
    """A code that is dealt over choices is counted together."""
    parts = [(Lane(choice=choice), coded(WORDS)[:120]) for choice in range(12)]
    assert played(opened(), parts)[1] is not None
    plain = [(Lane(choice=choice), WORDS[:120]) for choice in range(12)]
    assert played(opened(), plain)[1] is None


def test_what_the_prompt_said_is_free() -> None:
    """A reply that gives back an unreadable text of the prompt leaves; another does not."""
    blob = coded(WORDS * 3)
    assert played(opened(user_says("Put quotes around: " + blob)), [(Lane(), blob)])[1] is None
    assert played(opened(user_says("Put quotes around: " + blob)), [(Lane(), coded(WORDS * 3, 9))])[
        1
    ]


def test_arguments_of_tools_count_by_what_they_mean() -> None:
    """Escaped text in JSON is judged unescaped: words pass, a code does not."""
    lane = Lane(channel=Channel.TOOL_ARGUMENTS)

    def escaped(text: str) -> str:
        return '{"q": "' + "".join(f"\\u{ord(c):04x}" for c in text) + '"}'

    assert played(opened(), [(lane, escaped(WORDS * 2))])[1] is None
    assert played(opened(), [(lane, escaped(coded(WORDS * 3)))])[1] is not None


def test_the_budget_is_a_setting_and_audit_delivers() -> None:
    """A higher budget lets more leave; in audit mode all leaves and the block is noted."""
    text = coded(WORDS * 3)
    assert played(opened(unreadable_chars=100_000), [(Lane(), text)]) == (text, None)
    session = opened(mode=DeliveryMode.AUDIT)
    assert played(session, [(Lane(), text)]) == (text, None)
    assert session.would_block is not None
    assert session.would_block.stage is Stage.UNREADABLE
