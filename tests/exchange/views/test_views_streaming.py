"""A reply's encodings are found while it streams, however it is cut."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.exchange.views import StreamingSettings, StreamingViews
from safehold.testing.encoders import ENCODERS

SENTENCE = "tell me the right temperature for mashing the grain and how long it takes "
PLAIN = "How is malt made, and why is the grain dried before it is milled? I read about it. "


def streamed(text: str, sizes: list[int], stream: StreamingViews | None = None) -> list[str]:
    """Return the texts of all views of a text that is fed in pieces of these sizes, in turn."""
    stream = stream or StreamingViews()
    found, at = [], 0
    for size in itertools.cycle(sizes):
        found += stream.feed(text[at : at + size])
        at += size
        if at >= len(text):
            return [view.text for view in (*found, *stream.finish())]
    raise AssertionError


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    name=st.sampled_from(
        ["base64", "base16", "rot13", "url", "morse", "reversed", "tags", "spaced"]
    ),
)
def test_any_split_into_deltas_finds_the_text(sizes: list[int], name: str) -> None:
    """An encoding in the middle of a reply is seen whole, wherever deltas end."""
    encoder = ENCODERS[name]
    hidden = encoder.encode(SENTENCE)
    found = streamed(PLAIN * 3 + "\n" + hidden + "\n" + PLAIN * 3, sizes)
    wanted = SENTENCE.strip().lower()
    assert any(wanted in " ".join(text.lower().split()) for text in found)


def test_a_growing_encoding_is_read_before_it_ends() -> None:
    """After each delta, what is not yet looked at is at most a third of the window and a step."""
    stream = StreamingViews()
    hidden = ENCODERS["base64"].encode(SENTENCE * 20)
    longest = 0
    for at in range(0, len(hidden), 7):
        for view in stream.feed(hidden[at : at + 7]):
            longest = max(longest, len(view.text))
        assert stream.pending <= max(64, (at + 7) * 0.51) + 7
        if at > 400:
            assert longest > 0.3 * min(at, 4096) * 3 / 4


def test_an_encoding_longer_than_the_window_is_read_to_its_end() -> None:
    """The window moves on, and each part of the text is in some view."""
    words = [f"step {number} of the mash" for number in range(900)]
    found = streamed(ENCODERS["base64"].encode("; ".join(words)), [50])
    assert all(any(word in text for text in found) for word in words)


def test_plain_text_yields_nothing_and_holds_little() -> None:
    """A long ordinary reply costs a bounded window."""
    stream = StreamingViews()
    assert streamed(PLAIN * 200, [4], stream) == []
    assert len(stream._window) + sum(map(len, stream._pieces)) <= 4096


def test_one_huge_delta_is_taken_in_windows() -> None:
    """A delta of a megabyte does not make the window grow."""
    stream = StreamingViews()
    stream.feed(PLAIN * 12_000)
    assert len(stream._window) <= 4096


def test_a_view_is_given_once() -> None:
    """Looking again at the same encoding does not score it twice."""
    found = streamed(ENCODERS["base64"].encode(SENTENCE) + "\n" + PLAIN * 20, [11])
    assert len(found) == len(set(found))


def test_spans_count_from_the_start_of_the_stream() -> None:
    """A find far into the stream says where it sat."""
    stream = StreamingViews()
    hidden = ENCODERS["base64"].encode(SENTENCE)
    before = PLAIN * 50
    views = [*stream.feed(before + hidden + " "), *stream.finish()]
    view = next(view for view in views if not view.spliced)
    assert (before + hidden)[view.span[0] : view.span[1]].rstrip("=") == hidden.rstrip("=")


@pytest.mark.parametrize("text", ["", "a", "\ud800", "\0" * 500, "\u202e" * 500])
def test_odd_streams_end_quietly(text: str) -> None:
    """Empty, tiny and hostile streams raise nothing."""
    assert isinstance(streamed(text, [3]), list)


def test_settings_are_bounded_by_their_own_values() -> None:
    """A smaller step looks more often."""
    stream = StreamingViews(StreamingSettings(step_chars=16))
    stream.feed("a" * 20)
    assert stream.pending == 0
