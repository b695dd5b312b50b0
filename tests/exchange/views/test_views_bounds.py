"""Whatever comes, the search ends, within its bounds, with equal results each time."""

import base64
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.exchange.views import ViewLimits, views

ANY_TEXT = st.text(st.characters(codec=None), max_size=400)
FRAGMENTS = st.lists(
    st.sampled_from(
        [
            "aGVsbG8gd29ybGQ=",
            "%41",
            "&#65;",
            "&#99999999;",
            "\\u0041",
            "\\ud800",
            "\\x",
            "=41=\n",
            "01000001",
            "65 66 67 68 69",
            ".- -... ",
            "alpha bravo ",
            "h e l l o ",
            "<~87cURD]~>",
            "<~",
            "\U000e0041",
            "\ufe00\ufe01\ufe02",
            "\u202e",
            "\u200b\u200c",
            "\U0001f1e6",
            "⠓⠑⠇⠇",
            "M=",
            "begin 644 x\n",
            "ellohay ",
            "h3ll0 ",
            "ɐǝɥɹ",
            "olleh ",
            "uryyb ",
            "\0",
            "\ud800",
            "é",
            " ",
        ]
    ),
    max_size=60,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT | FRAGMENTS)
def test_no_text_raises_and_every_result_is_bounded(text: str) -> None:
    """Views are few, short, distinct, at most two deep, and the same the second time."""
    limits = ViewLimits(max_views=12, max_view_chars=300)
    found = views(text, limits)
    assert found == views(text, limits)
    assert 1 <= len(found) <= 12
    assert len({view.text for view in found}) == len(found)
    assert found[0].chain == ()
    for view in found[1:]:
        assert 1 <= len(view.chain) <= 2
        assert len(view.text) <= 300 * 20
        assert 0 <= view.span[0] <= view.span[1]


def test_a_huge_text_is_cut_and_says_so() -> None:
    """Of twenty megabytes the head and the tail are looked at, in little time."""
    text = "malt " * 4_000_000 + base64.b64encode(b"how to mash the malt").decode()
    start = time.process_time()
    found = views(text)
    assert time.process_time() - start < 5
    assert found[0].cut
    assert len(found[0].text) <= ViewLimits().max_chars + 1
    assert any(view.text == "how to mash the malt" for view in found)


def test_a_search_that_ran_out_of_work_says_so() -> None:
    """The caller can tell 'nothing hidden' from 'not looked at to the end'."""
    text = "br3w b33r " * 2000
    assert views(text, ViewLimits(max_work=50_000))[0].cut
    assert not views("brew beer " * 100)[0].cut


def test_padding_for_one_decoder_does_not_blind_the_others() -> None:
    """Each decoder has a share of the work that no other can use up."""
    hidden = base64.b64encode(b"how to mash the malt at home").decode()
    found = views("br3w b33r " * 5000 + hidden)
    assert any("how to mash the malt at home" in view.text for view in found)


def test_doubling_a_hostile_text_does_not_square_the_work() -> None:
    """Patterns that could backtrack are given eight times the text and take less than 40 times."""
    shapes = (
        "a ",
        "ab:",
        "aa bb ",
        "1, 2",
        "br3w ",
        "A2 ",
        "<~a",
        ". ",
        "=\n",
        "&#",
        "\\u",
        "ellohay ",
        "\u202e",
        "\U0001f1e6 ",
        "\U000e0041\u200b",
        "M  ",
        "11 22 3",
        "0x",
        "x\n",
        "M=1 \n",
    )
    for shape in shapes:
        times = []
        for count in (4_000, 32_000):
            text = shape * (count // len(shape)) + "!"
            start = time.process_time()
            views(text, ViewLimits(max_work=1 << 40))
            times.append(time.process_time() - start)
        assert times[1] < 40 * max(times[0], 0.01), shape
