"""JSON escapes in tool arguments hide nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Channel, Exchange, Lane, Role, TextPart, Turn
from safehold.guard.interface import Allow, Block, Cleared, DeliveryMode, Escalation, Failed
from safehold.guard.session.drivers import drive
from safehold.guard.session.escapes import Unescaping, unescaped
from safehold.guard.session.session import SessionPolicy
from safehold.testing.guards import MARKER, rule_guard

ARGUMENTS = Lane(channel=Channel.TOOL_ARGUMENTS)


def escaped(text: str, every: int = 1) -> str:
    """Write every `every`-th character as an escape."""
    return "".join(
        f"\\u{ord(char):04x}" if number % every == 0 else char for number, char in enumerate(text)
    )


def no_stage2(request: Escalation) -> Failed:
    """Stand where nothing escalates."""
    return Failed(reason=str(type(request)))


@given(st.text(), st.booleans(), st.lists(st.integers(1, 9)))
def test_any_json_string_in_any_cut_is_read_as_json_reads_it(
    text: str,
    ascii_only: bool,  # noqa: FBT001 - a parameter of the test
    sizes: list[int],
) -> None:
    """Pieces of a JSON string unescape to the string, and every wire character is counted once."""
    wire = json.dumps(text, ensure_ascii=ascii_only)
    growing, out, at = Unescaping(), "", 0
    for size in sizes:
        out += growing.feed(wire[at : at + size])
        at += size
    out += growing.feed(wire[at:]) + growing.finish()
    assert out == f'"{text}"' or "\ufffd" in out
    assert growing.spent(len(out)) == len(wire)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (r"\u0070urple", "purple"),
        (r"\\u0070urple", r"\u0070urple"),
        (r"\ud83d\ude00", "\N{GRINNING FACE}"),
        (r"\ud83dx", "\ufffdx"),
        (r"\ude00", "\ufffd"),
        (r"\u00", r"\u00"),
        (r"\u00zz", r"\u00zz"),
        (r"\q\n", "\\q\n"),
        ("\\", "\\"),
        (r"\ud83d\u", "\ufffd\\u"),
    ],
)
def test_near_misses_of_an_escape(wire: str, text: str) -> None:
    """Whole escapes are read; what only looks like one stays as it stands."""
    assert unescaped(wire) == text


@pytest.mark.parametrize("mode", [DeliveryMode.HOLD, DeliveryMode.FULL])
@pytest.mark.parametrize("every", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 3, 50, 4000])
def test_escaped_marker_in_arguments_never_leaves(
    mode: DeliveryMode, every: int, size: int
) -> None:
    """A marker written in escapes blocks, and no part of it was released before."""
    session = rule_guard().session(Exchange(turns=()), SessionPolicy(mode=mode, hold_tokens=16))
    safe = "many harmless words come first, " * 3
    wire = '{"q":"' + safe + escaped(MARKER, every) + '"}'
    out, blocked = "", False
    for at in range(0, len(wire), size):
        step = drive(session.feed(ARGUMENTS, wire[at : at + size]), no_stage2)
        if isinstance(step, Block):
            blocked = True
            break
        out += step.text
    blocked = blocked or any(
        isinstance(step, Block) for _, step in drive(session.finish(), no_stage2)
    )
    assert blocked
    assert wire.startswith(out)
    assert len(out) <= len('{"q":"' + safe)


@given(st.text(max_size=300), st.integers(1, 40), st.sampled_from(list(DeliveryMode)))
def test_arguments_arrive_whole_and_unchanged(text: str, size: int, mode: DeliveryMode) -> None:
    """What clears is the wire's own text, never the unescaped one."""
    wire = json.dumps({"q": text.replace("purple", "")})
    session = rule_guard().session(Exchange(turns=()), SessionPolicy(mode=mode))
    out = ""
    for at in range(0, len(wire), size):
        step = drive(session.feed(ARGUMENTS, wire[at : at + size]), no_stage2)
        assert isinstance(step, Cleared)
        out += step.text
    step = drive(session.close(ARGUMENTS), no_stage2)
    assert isinstance(step, Cleared)
    out += step.text
    for _, last in drive(session.finish(), no_stage2):
        assert isinstance(last, Cleared)
        out += last.text
    assert out == wire
    assert session.coverage.released == session.coverage.scored == len(wire)


def test_escaped_arguments_in_a_prompt_are_scored() -> None:
    """An assistant's earlier tool call can't carry an escaped text past the guard."""

    def verdict(text: str) -> Allow | Block:
        part = TextPart(text=text, channel=Channel.TOOL_ARGUMENTS)
        exchange = Exchange(turns=(Turn(role=Role.ASSISTANT, parts=(part,)),))
        return drive(rule_guard().session(exchange, SessionPolicy()).judge_prompt(), no_stage2)

    assert isinstance(verdict('{"q":"' + escaped(MARKER, 3) + '"}'), Block)
    assert isinstance(verdict('{"q":"' + escaped("harmless", 3) + '"}'), Allow)
