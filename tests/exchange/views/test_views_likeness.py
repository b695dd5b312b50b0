"""The letter model tells English from what ciphers make of it."""

import pytest

from safehold.exchange.views.english_likeness import Letters, likeness, rotations

ENGLISH = "the grain is dried before it is milled"


def test_english_scores_above_its_ciphers() -> None:
    """Rotated and shuffled letters score far lower."""
    assert likeness(ENGLISH) > 1
    assert likeness("gur tenva vf qevrq orsber vg vf zvyyrq") < 0
    assert likeness("xq zvw kjq pfg wzx") < -1


def test_the_best_rotation_of_a_rotation_is_its_inverse() -> None:
    """Entry n of `rotations` is for letters moved n places up."""
    codes = Letters("gur tenva vf qevrq orsber vg vf zvyyrq").codes
    assert rotations(codes).argmax() == 13


@pytest.mark.parametrize("text", ["", " ", "1234", "é", "\ud800", "...", "a"])
def test_texts_of_few_letters_have_a_score(text: str) -> None:
    """No letters at all score the least, and nothing divides by zero."""
    assert -9 <= likeness(text) <= 3
    assert len(rotations(Letters(text).codes)) == 26


def test_positions_point_into_the_text() -> None:
    """Each code knows the character it came from."""
    text = "a, bc"
    letters = Letters(text)
    assert [text[at] for code, at in zip(letters.codes, letters.at, strict=True) if code] == [
        *"abc"
    ]
