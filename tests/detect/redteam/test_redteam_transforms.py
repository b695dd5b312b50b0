"""Transforms: pure, different from the text, undone by their inverse, composable to depth 3."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.detect.redteam.transforms import (
    TRANSFORMS,
    Family,
    Transform,
    apply,
    chains,
    instruction,
    survives,
    transform,
)
from safehold.errors import UsageError

_ASK = "How hot should my strike water be for 5 kg of grain?"
_INVERTIBLE = [one for one in TRANSFORMS if one.decode is not None]


def test_there_are_sixty_and_more_of_every_family() -> None:
    """The table holds the union that other suites ship, each name once."""
    assert len({one.name for one in TRANSFORMS}) == len(TRANSFORMS) >= 60
    assert {one.family for one in TRANSFORMS} == set(Family)


@pytest.mark.parametrize("one", TRANSFORMS, ids=lambda one: one.name)
@settings(max_examples=20)
@given(text=st.text(max_size=120))
def test_every_transform_takes_any_text_and_repeats(one: Transform, text: str) -> None:
    """No text breaks a transform, and the same text gives the same result."""
    assert one.encode(text) == one.encode(text)


@pytest.mark.parametrize("one", TRANSFORMS, ids=lambda one: one.name)
def test_every_transform_changes_a_question_and_keeps_information(one: Transform) -> None:
    """A transform that does nothing, or erases the question, would flatter a guard."""
    assert one.encode(_ASK) != _ASK
    assert survives(_ASK, [one.name])


@pytest.mark.parametrize("one", _INVERTIBLE, ids=lambda one: one.name)
def test_an_inverse_gives_the_question_back(one: Transform) -> None:
    """What has an inverse can be read again, letter by letter."""
    assert one.decode is not None
    assert one.decode(one.encode(_ASK)) == _ASK


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("base64", "Y2Fm"),
        ("hex", "63 61 66"),
        ("rot13", "pns"),
        ("atbash", "xzu"),
        ("morse", "-.-. .- ..-."),
        ("nato", "charlie alfa foxtrot"),
        ("braille", "⠉⠁⠋"),
        ("binary", "01100011 01100001 01100110"),
        ("polybius", "13 11 21"),
        ("bacon", "AAABA AAAAA AABAB"),
        ("letter-numbers", "3-1-6"),
        ("pig-latin", "afcay"),
        ("tag-smuggling", "\U000e0063\U000e0061\U000e0066"),
        ("fullwidth", "\uff43\uff41\uff46"),
        ("uuencode", "begin 644 message\n#8V%F\n`\nend"),
    ],
)
def test_known_answers(name: str, written: str) -> None:
    """Published encodings give what their definitions say."""
    assert transform(name).encode("caf") == written


def test_a_chain_is_applied_in_its_order() -> None:
    """The first name is the innermost transform."""
    assert apply("ab", ["reversed", "hex"]) == "62 61"
    assert apply("ab", ["hex", "reversed"]) == "26 16"


def test_the_instruction_names_the_outermost_first() -> None:
    """A reader undoes a chain from the outside."""
    assert instruction(["rot13", "base64"]).startswith("The message is written in Base64, and")
    assert instruction(["leet"]) == ""


@given(seed=st.integers(0, 500), depth=st.integers(1, 3))
def test_drawn_chains_have_their_depth_and_a_bounded_size(seed: int, depth: int) -> None:
    """No chain blows a question up beyond measure."""
    names = chains(random.Random(seed), depth=depth)
    assert len(names) in (0, depth)
    assert len(apply(_ASK, names)) < 40 * len(_ASK)


def test_a_chain_that_erases_the_question_is_seen() -> None:
    """Tag characters hold ASCII only: after bold letters nothing is left to read."""
    assert not survives("abc def", ["math-bold", "tag-smuggling"])


def test_an_unknown_transform_is_refused() -> None:
    """A chain in a record that this version does not know is an error, never skipped."""
    with pytest.raises(UsageError, match="no transform"):
        apply("x", ["rot14"])
