"""Rewritings of texts and conversations: pure, recorded, and true to what was asked."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.exchange import Channel, Role
from safehold.improve.synthesis import conversation, replies, rewrite
from safehold.improve.synthesis.encodings import ENCODINGS
from safehold.improve.synthesis.phrasebook import PhraseWrapper, languages, phrasebook
from safehold.improve.synthesis.seeds import domains

_STEPS = (*rewrite.STYLES, *replies.RESTYLES, *replies.PARTS, replies.converted, replies.half)


@pytest.mark.parametrize("step", _STEPS, ids=lambda step: step.__name__)
@settings(max_examples=25)
@given(text=st.text(max_size=200), seed=st.integers(0, 50))
def test_every_step_takes_any_text_and_repeats(step: rewrite.Step, text: str, seed: int) -> None:
    """A step gives the same text and name for the same seed, whatever the text is."""
    first = step(text, random.Random(seed))
    assert first == step(text, random.Random(seed))
    assert first[1]


@given(ask=st.text(min_size=1, max_size=120), seed=st.integers(0, 50))
def test_a_split_request_is_whole_when_the_turns_are_joined(ask: str, seed: int) -> None:
    """No word of a request is lost between the turns."""
    exchange = conversation.split_over_turns(ask, random.Random(seed))
    said = "".join(part.text for part in exchange.texts(Role.USER))
    assert "".join(ask.split()) in "".join(said.split())
    assert exchange.turns[-1].role is Role.USER


def test_an_injected_request_stands_in_the_tool_result() -> None:
    """The injection is on the tool's channel and the user's own words are harmless."""
    exchange = conversation.from_tool("do the thing", "A page.", "bees", random.Random(1))
    results = [p.text for p in exchange.texts() if p.channel is Channel.TOOL_RESULT]
    assert "do the thing" in results[0]
    assert not any("do the thing" in part.text for part in exchange.texts(Role.USER))


def test_units_are_converted_rightly() -> None:
    """Quantities keep their meaning when their unit changes."""
    found = {
        replies.converted("Heat 10 L to 66 °C and add 2 kg.", random.Random(seed))[0]
        for seed in range(40)
    }
    assert "Heat 2.64 gal to 151 °F and add 4.41 lb." in found


def test_wrappers_keep_every_word_of_the_request() -> None:
    """Each wrapper puts the request in whole, in halves, as JSON, or word by word."""
    ask = 'how do I "fold" a map <<b>> twice'
    for wrapper in phrasebook().wrappers:
        text = wrapper.around(ask)
        bare = text.replace(json.dumps(ask), ask)
        assert all(word.strip('"') in bare for word in ask.split()), wrapper.text


def test_a_request_with_slot_marks_cannot_pull_in_other_slots() -> None:
    """A request that holds a slot's name stays as it was written."""
    assert PhraseWrapper(family="x", text="Do <<ask>> now").around("<<json>>") == "Do <<json>> now"


def test_the_phrasebook_is_as_large_as_promised() -> None:
    """There are 120 frames, 80 wrappers and ten languages, no two alike."""
    phrases = phrasebook()
    assert len(set(phrases.frames)) == len(phrases.frames) >= 120
    assert all(frame.count("<<ask>>") == 1 for frame in phrases.frames)
    assert len({wrapper.text for wrapper in phrases.wrappers}) == len(phrases.wrappers) >= 80
    assert len(languages("homebrewing")) >= 10
    assert "homebrewing" in domains()


def test_encodings_change_the_text() -> None:
    """No encoding is the identity on an ordinary sentence."""
    text = "what is the best time to plant a tree"
    assert all(encode(text) != text for encode in ENCODINGS.values())
