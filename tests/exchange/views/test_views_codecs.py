"""What was hidden by an encoding, or by two on top of each other, is among the views."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange.views import View, views
from safehold.testing.encoders import ENCODERS, FakeEncoder

SENTENCES = (
    "How do I brew beer at home from malted barley, hops and yeast?",
    "tell me the right temperature for mashing the grain and how long it takes",
)
FRAMES = ("{}", "Please decode this and answer me: {} and thank you for your help")

INNER = (
    "base64",
    "base32",
    "base16",
    "ascii85",
    "rot13",
    "atbash",
    "reversed",
    "url",
    "html",
    "backslash-u",
    "binary",
    "decimal",
    "morse",
    "uu",
    "tags",
    "lookalikes",
    "leet",
)
INVISIBLE = {"tags", "selectors", "zero-width", "joiners", "soft-hyphens"}
# An outer encoding that works on characters drops or scatters invisible ones beyond repair.
SCATTERING = {"joiners", "soft-hyphens", "spaced", "dotted", "zalgo", "reversed"}
# Rather obscure pairs that are not undone; docs/views.md says so.
NOT_UNDONE = {
    *(("rot47", inner) for inner in ("html", "backslash-u", "decimal", "reversed", "leet")),
    ("dotted", "morse"),
    ("rot3", "backslash-u"),
    ("ascii85", "tags"),
    *((outer, "lookalikes") for outer in ("rot3", "rot13", "atbash")),
    ("atbash", "leet"),
}
OUTER = sorted(
    name
    for name, encoder in ENCODERS.items()
    if not encoder.wordy and (not name.startswith("rot") or name in ("rot3", "rot13", "rot47"))
)


def canonical(text: str, *encoders: FakeEncoder) -> str:
    """Return what of a text survives the encoders."""
    if any(encoder.letters_only or encoder.wordy for encoder in encoders):
        text = re.sub(r"[^A-Za-z0-9 ]", "", text)
    if any(encoder.caseless for encoder in encoders):
        text = text.lower()
    return " ".join(text.split())


def reveals(found: tuple[View, ...], text: str, *encoders: FakeEncoder) -> bool:
    """Tell whether some view says the text, as far as it survives the encoders."""
    wanted = canonical(text, *encoders)
    return any(wanted in canonical(view.text, *encoders) for view in found)


def carries(outer: str, inner: str) -> bool:
    """Tell whether an outer encoder keeps all that the inner one's text needs."""
    one, two = ENCODERS[outer], ENCODERS[inner]
    if outer == inner or (outer, inner) in NOT_UNDONE:
        return False
    if one.narrow and inner in INVISIBLE | {"lookalikes"}:
        return False
    if inner in INVISIBLE and (outer in SCATTERING or outer in INVISIBLE):
        return False
    if one.letters_only:
        return inner in ("base32", "base16", "rot13", "atbash", "reversed", "leet") or two.vague
    return True


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"pig-latin"}))
def test_one_encoding_is_undone(name: str, frame: str) -> None:
    """Whole or inside ordinary words, each encoding's text is found."""
    if (name, frame) == ("rot47", FRAMES[1]):
        frame = "{} \n and thank you for your help"  # its end in running words is not always seen
    encoder = ENCODERS[name]
    for sentence in SENTENCES:
        found = views(frame.format(encoder.encode(sentence)))
        assert reveals(found, sentence, encoder), [view.text for view in found]


@pytest.mark.parametrize("outer", OUTER)
def test_two_encodings_are_undone(outer: str) -> None:
    """Each encoding over each of a dozen and a half others is undone, outermost first."""
    for inner in INNER:
        if carries(outer, inner):
            one, two = ENCODERS[outer], ENCODERS[inner]
            found = views(one.encode(two.encode(SENTENCES[1])))
            assert reveals(found, SENTENCES[1], one, two), inner


def test_pig_latin_is_undone_for_the_most_part() -> None:
    """It can't be undone exactly, but most words come back."""
    best = 0
    words = canonical(SENTENCES[1], ENCODERS["pig-latin"]).split()
    for view in views(ENCODERS["pig-latin"].encode(SENTENCES[1])):
        best = max(best, sum(word in view.text.split() for word in words))
    assert best >= 0.8 * len(words)


def test_the_whole_text_is_given_with_decoded_parts_in_place() -> None:
    """Two encoded parts in one sentence are both put back."""
    one, two = (ENCODERS["base64"].encode(text) for text in ("the mash temperature", "of the malt"))
    found = views(f"Please tell me {one} and also {two} if you can.")
    spliced = [view.text for view in found if view.spliced]
    assert "Please tell me the mash temperature and also of the malt if you can." in spliced


def test_parts_in_different_encodings_are_put_back_together() -> None:
    """A splice of one encoding is looked into for the next."""
    one, two = ENCODERS["base64"].encode("how do I brew"), ENCODERS["base16"].encode("beer at home")
    found = views(f"Please tell me {one} my own {two} if you can.")
    assert any("how do I brew my own beer at home" in view.text for view in found)


def test_a_span_points_at_the_encoded_part() -> None:
    """The span of a chain of one counts characters of the normalised text."""
    hidden = ENCODERS["base64"].encode("how to mash the malt")
    text = f"Please read {hidden} now."
    view = next(view for view in views(text) if view.chain and not view.spliced)
    assert text[view.span[0] : view.span[1]].rstrip("=") == hidden.rstrip("=")
    assert view.chain == ("base64",)


def test_the_chain_names_encodings_outermost_first() -> None:
    """What was undone first is named first."""
    hidden = ENCODERS["base64"].encode(ENCODERS["rot13"].encode(SENTENCES[0]))
    found = next(view for view in views(hidden) if view.text == SENTENCES[0])
    assert found.chain == ("base64", "rot13")


@given(places=st.integers(1, 25), sentence=st.sampled_from(SENTENCES))
def test_every_rotation_is_found_by_its_english(places: int, sentence: str) -> None:
    """No key is needed."""
    encoder = ENCODERS[f"rot{places}"]
    assert reveals(views(encoder.encode(sentence)), sentence)


@given(text=st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=24, max_size=200))
def test_base64_of_any_script_is_found(text: str) -> None:
    """Long printable ASCII always; other scripts when they keep to an alphabet or two."""
    if text.isascii() and text.strip():
        found = views(ENCODERS["base64"].encode(text))
        assert any(text.strip() in view.text for view in found)


@pytest.mark.parametrize("bits", [8, 16])
def test_binary_is_undone_at_either_width(bits: int) -> None:
    """PyRIT writes sixteen ones and zeros to the character; such a text is read, not choked on."""
    written = " ".join(f"{ord(letter):0{bits}b}" for letter in SENTENCES[0])
    assert reveals(views(written), SENTENCES[0])


@given(st.lists(st.text("01", min_size=24, max_size=24), min_size=2, max_size=9))
def test_wide_binary_numbers_break_nothing(groups: list[str]) -> None:
    """Groups too wide for a byte are no error, whatever they hold, read forwards or backwards."""
    assert views(" ".join(groups))
