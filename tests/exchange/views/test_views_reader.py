"""The reader's form: what is put around words goes, what a text says stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.detect.redteam.transforms import TRANSFORMS, Family, Transform
from safehold.exchange.views import Reader, normalise, readable

TEXT = (
    "warm nine cups of milk to 45 degrees stir in one spoon of live culture cover the pot keep it "
    "warm for seven hours then cool it and serve it with honey"
)
WORDS = TEXT.split()
WRAPPERS = [
    "`{}`", "[{}](x)", "[{0}](http://a.b/{0})", "{0}={0}", "\x1b[1m{}\x1b[0m", "**{}**", "~~{}~~",
    "\u00ab{}\u00bb", "'{}'", "[{}]", "({})", '"{}" +', '{{"t": "{}"}}', '{{"t":"{}"}}',
    "print('{}')", "{} (ok)", "{}, um,", "{}...", "{}!", "- {}", "<b>{}</b>", "\u300c{}\u300d",
    "| {} |", "{} \U0001f600", "\u200b{}\u200b",
]  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_constant_affix_on_every_word_is_not_read(wrapper: str) -> None:
    """Behind the first few words, which teach what is constant, the words follow each other."""
    seen = readable(" ".join(wrapper.format(word) for word in WORDS))
    assert seen is not None
    said = [word.strip(".,") for word in seen.split()]
    assert said[-20:] == WORDS[-20:]


@pytest.mark.parametrize("every", [2, 3, 5])
def test_marks_on_some_words_are_not_read_either(every: int) -> None:
    """Every second, third or fifth word in marks is enough to have the text read."""
    text = " ".join(f"`{word}`" if i % every == 0 else word for i, word in enumerate(WORDS))
    assert (readable(text) or "").split() == WORDS


def test_ordinary_text_has_no_form_of_its_own() -> None:
    """Prose, a list, a bold word and a name in code cost no second score (benign twin)."""
    prose = (
        "It was a fine day, and so on and so on: we walked. Then (late) it rained; we left. " * 4
    )
    assert readable(prose) is None
    assert readable("The **main** point: call `run` once.\n\nThen wait for its answer.\n") is None
    assert (
        readable("\u041c\u043e\u0441\u043a\u0432\u0430 - \u0433\u043e\u0440\u043e\u0434.") is None
    )


def test_small_capitals_and_halves_of_pairs_are_plain() -> None:
    """Small capitals are letters, two escapes of a pair one character, a half U+FFFD."""
    small = "\u1d0d\u026a\u029f\u1d0b \u1d00\u0274\u1d05 \u029c\u1d0f\u0274\u1d07\u028f"
    assert normalise(small) == "milk and honey"
    assert normalise("\ud83d\ude00 \ud83d") == "\U0001f600 \ufffd"
    assert normalise("[\u0280\u025b\u0301]") == normalise("[\u0280\u025b\u0301]").strip()


@given(st.lists(st.sampled_from([*WORDS, "`a`", "a\u200bb", "(x)", "\u0430b"]), max_size=40))
def test_the_form_does_not_depend_on_how_words_came(words: list[str]) -> None:
    """Word by word or all at once, a reader sees the same."""
    one, many = Reader(), Reader()
    assert one.feed(" ".join(words)) == "".join(many.feed(word + " ") for word in words)


AFFIXES = [one for one in TRANSFORMS if one.family is Family.AFFIX]


@pytest.mark.parametrize("one", AFFIXES, ids=lambda one: one.name)
def test_every_affix_of_the_red_team_is_undone(one: Transform) -> None:
    """What the red team puts around words is not in the reader's form."""
    seen = readable(one.encode(TEXT))
    assert seen is not None
    assert [word.strip(".,") for word in seen.split()][-20:] == WORDS[-20:]
