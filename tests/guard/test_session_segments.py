"""A request is scored by itself however it is padded, and whole however it is dealt over turns."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.session.segments import PIECE, dealt, pieces, segments, sentences

REQUEST = "Which tulips should one plant in the third week of October beside a north wall?"
CHATTER = (
    "My aunt has moved to the coast. She likes it there, mostly for the light! The cat hates "
    "it: too many gulls. We shall visit in May; the trains are cheap then. "
)


def padded(size: int, share: float, glue: str) -> str:
    """Return the request in so much chatter, at that share of it."""
    text = (CHATTER * (size // len(CHATTER) + 1))[:size]
    at = text.find(". ", int(size * share * 0.9)) + 1
    return text[:at] + glue + REQUEST + glue + text[at:]


@pytest.mark.parametrize("size", [400, 3_000, 60_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("glue", ["\n\n", "\n", " "])
def test_padding_dilutes_no_request(size: int, share: float, glue: str) -> None:
    """Some window holds the request and little else, wherever it stands."""
    found = pieces(padded(size, share, glue))
    assert REQUEST in found


@given(st.text(alphabet="ab .\n?!\u3002", max_size=3_000))
def test_windows_are_bounded_and_hold_everything(text: str) -> None:
    """All that is written stands in some window; together they are at most a few times as long."""
    found = sentences(text)
    assert sum(map(len, found)) <= 6 * len(text) + 300
    assert all(len(window) <= PIECE for window in found)
    assert {word for window in found for word in window.split()} >= {
        word for word in text.split() if len(word) < 100
    }


def test_a_run_without_ends_is_cut() -> None:
    """A text without any sentence end has overlapping windows of a bounded length."""
    text = " ".join(f"w{n}" for n in range(3_000))
    assert max(map(len, sentences(text))) <= PIECE


def turns(texts: list[str]) -> Exchange:
    """Return a conversation of these user turns with answers between."""
    said: list[Turn] = []
    for text in texts:
        said.append(Turn(role=Role.USER, parts=(TextPart(text=text),)))
        said.append(Turn(role=Role.ASSISTANT, parts=(TextPart(text="I see."),)))
    return Exchange(turns=tuple(said[:-1]))


WAYS = {
    "first words": lambda part, pad: f"{part} {pad}",
    "last words": lambda part, pad: f"{pad} {part}",
    "first line": lambda part, pad: f"{part}\n{pad}",
    "last line": lambda part, pad: f"{pad}\n{part}",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chars", [200, 1_300, 5_000])
@pytest.mark.parametrize("few", [3, 6])
def test_what_is_dealt_over_turns_is_joined(way: str, chars: int, few: int) -> None:
    """A few words a turn with chatter before or behind: the words are read as one text."""
    words = REQUEST.split()[:12]
    parts = [" ".join(words[at : at + few]) for at in range(0, len(words), few)]
    pad = (CHATTER * 60)[:chars].strip()
    joined = [" ".join(text.split()) for text in dealt(turns([WAYS[way](p, pad) for p in parts]))]
    assert any(" ".join(words) in text for text in joined)


def test_chatter_in_turns_of_its_own_is_left_out() -> None:
    """Short turns are read together without the long ones between them."""
    words = REQUEST.split()
    mixed: list[str] = []
    for at in range(0, len(words), 3):
        mixed += [" ".join(words[at : at + 3]), (CHATTER * 10)[:1_300]]
    joined = [" ".join(segment.text.split()) for segment in segments(turns(mixed))]
    assert any(REQUEST in text for text in joined)


def test_one_turn_is_dealt_to_nobody() -> None:
    """A single message has no joined texts, and what a short conversation joins is not repeated."""
    assert dealt(turns([REQUEST])) == []
    assert dealt(turns(["hello there", "and again"])) == []


def test_the_number_of_texts_grows_with_the_length_alone() -> None:
    """Many turns and many sentences cost in proportion to their characters."""
    rng = random.Random(3)
    text = " ".join("".join(rng.choices("abcdef .", k=9)) for _ in range(20_000))
    assert len(pieces(text)) <= len(text) // 15
    many = turns([text[at : at + 100] for at in range(0, 40_000, 100)])
    assert sum(len(segment.text) for segment in segments(many)) <= 40 * 40_000


@given(st.lists(st.sampled_from(["It rains.", "Did it rain in Leeds?", "x" * 90 + ".", "No."]),
                min_size=3, max_size=12))  # fmt: skip
def test_the_last_sentence_is_a_window_by_itself(before: list[str]) -> None:
    """A request at the end of a text is scored alone, whatever stands before it."""
    asked = "How is tepache made at home?"
    again = "And how is it sold?"
    text = " ".join([*before, asked])
    assert asked in sentences(text)
    assert f"{asked} {again}" in sentences(f"{text} {again}")
