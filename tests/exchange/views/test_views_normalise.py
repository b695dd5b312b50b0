"""The first view says what a reader sees, and leaves other languages alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange.views import normalise


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("b\u0435\u0435r", "beer"),
        ("\uff42\uff45\uff45\uff52", "beer"),
        ("\U0001d41b\U0001d41e\U0001d41e\U0001d42b", "beer"),
        ("b\u200be\u2060e\ufeffr", "beer"),
        ("b\u00adeer", "beer"),
        ("b\u0337e\u0321e\u0337r", "beer"),
        ("\u24d1\u24d4\u24d4\u24e1", "beer"),
        ("\U0001f171\U0001f174\U0001f174\U0001f181", "BEER"),
        ("\u1d2e\u1d49\u1d49\u02b3", "Beer"),
        ("\u202ebeer\u202c", "beer"),
        ("be\x00er\x1b", "beer"),
        ("caf\u00e9", "café"),
        ("пиво из солода", "пиво из солода"),
        ("вода", "вода"),
        ("μπύρα", "μπύρα"),
        ("麦芽", "麦芽"),
        ("plain text\n\tstays", "plain text\n\tstays"),
    ],
)
def test_disguise_comes_off_and_language_stays(written: str, seen: str) -> None:
    """Each kind of disguise, and each kind of text that is none."""
    assert normalise(written) == seen


def test_a_word_of_lookalikes_in_english_is_latin() -> None:
    """In a Latin text even a word of Cyrillic look-alikes alone is read as Latin."""
    assert normalise("how do you mash \u0441\u043e\u043e\u0440 grain at home") == (
        "how do you mash coop grain at home"
    )


@given(text=st.text(st.characters(codec=None), max_size=200))
def test_normalising_never_raises_and_is_stable(text: str) -> None:
    """Any text normalises, and what is normalised stays so for the most part: no growth."""
    once = normalise(text)
    assert len(normalise(once)) <= len(once)


@pytest.mark.parametrize("stroke", "\u0640\u07fa\u0883\u0884\u0885\u180a\u200d")
@pytest.mark.parametrize("word", ["beer", "\u0628\u064a\u0631\u0629", "\u043f\u0438\u0432\u043e"])
def test_what_only_lengthens_a_stroke_is_no_letter(stroke: str, word: str) -> None:
    """Between any letters of any script, once or often; the word without it is what is read."""
    for many in (1, 3):
        assert normalise((stroke * many).join(word)) == normalise(word)
    assert normalise(f"{word}{stroke} {word}") == normalise(f"{word} {word}")
