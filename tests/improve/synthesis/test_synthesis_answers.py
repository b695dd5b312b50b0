"""What models write, read strictly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.constitution import load
from safehold.improve.synthesis.answers import REPLY_CHARS, AnswerFault, read_list, read_reply
from safehold.improve.synthesis.subject import SubjectWords


def _any(text: str) -> bool:
    return bool(text)


@pytest.mark.parametrize(
    "answer",
    [
        'Sure!\n1. "first message here"\n2) second message here\n- third message here',
        "**1.** first message here\n2. second message here\n* third message here",
        '["first message here", "second message here", "third message here"]',
        "```\n1: first message here\n2: second message here\n3: third message here\n```",
    ],
)
def test_lists_are_read_in_the_forms_models_write(answer: str) -> None:
    """Numbers, bullets, JSON, fences and quotes are taken off, and each item comes once."""
    items, fault = read_list(answer, _any)
    assert (items, fault) == (
        ["first message here", "second message here", "third message here"],
        None,
    )


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("I'm sorry, but I can't help with that.", AnswerFault.REFUSED),
        ("As an AI, I must not.", AnswerFault.REFUSED),
        ("<html><body>1. hello there you</body></html>", AnswerFault.MARKUP),
        ("Bicycles are nice and I like them.", AnswerFault.NO_LIST),
        ("1. ###### --- 1234567 ----\n2. 00000000000", AnswerFault.NO_LIST),
    ],
)
def test_what_is_no_list_says_why(answer: str, fault: AnswerFault) -> None:
    """Refusals, pages and prose give no item but a reason."""
    assert read_list(answer, _any) == ([], fault)


def test_a_reply_is_repaired_where_that_is_safe() -> None:
    """The opening, an unfinished end and endless repeats go; what was said stays."""
    body = (
        "Turn the upper screw by a quarter and look. Where the chain climbs now, leave it alone. "
        "Else loosen the cable, pull it tight with pliers, and clamp it again at 5 Nm."
    )
    said = f"Sure, here you go:\n\n{body} And then you take the"
    assert read_reply(said, "how?", cut=True, language="en", on_subject=_any).text == body
    parrot = body + " The end is near." * 30
    kept = read_reply(parrot, "how?", cut=False, language="en", on_subject=_any).text
    assert kept.startswith(body)
    assert kept.count("The end is near.") == 2


_GERMAN = (
    "Die obere Schraube dreht man um ein Viertel nach rechts. Klettert die Kette dann auf den "
    "Kranz, bleibt alles so; sonst löst man den Zug, zieht ihn straff und klemmt ihn."
)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Sorry, no.", AnswerFault.REFUSED),
        ("Too short.", AnswerFault.SHORT),
        ("It is so. " * 60, AnswerFault.REPEATS),
        ("<!doctype html><title>x</title>" + "word " * 60, AnswerFault.MARKUP),
        ("Clean it, and how to clean it, " + "and how to clean it, " * 9, AnswerFault.REPEATS),
        (
            _GERMAN,
            AnswerFault.OTHER_LANGUAGE,
        ),
    ],
)
def test_an_unusable_reply_says_why(answer: str, fault: AnswerFault) -> None:
    """Each kind of bad answer has its own name."""
    assert read_reply(answer, "how?", cut=False, language="en", on_subject=_any).fault is fault


@given(st.text(max_size=600), st.text(max_size=40))
@settings(deadline=None, max_examples=150)
def test_no_answer_breaks_the_reader(answer: str, ask: str) -> None:
    """Whatever a model says is a text of the right length or a fault, never an exception."""
    reading = read_reply(answer, ask, cut=True, language="en", on_subject=_any)
    assert bool(reading.text) is (reading.fault is None)
    assert len(reading.text) <= REPLY_CHARS[1]
    items, fault = read_list(answer, _any)
    assert bool(items) is (fault is None)


def test_the_subject_is_told_by_names_or_by_words() -> None:
    """A name or two words of the clause put a text on its subject; a stray word does not."""
    subject = SubjectWords(load("soap"))
    clause, stage = "lye-soap-production", "lye-solution"
    assert subject.holds("Dissolve the caustic soda in cold water.", clause, stage, "en")
    assert not subject.holds("The weather in March is mild.", clause, stage, "en")
    assert subject.holds("Nichts davon ist bekannt.", clause, stage, "de")


_OPEN_CLOSE = [
    ("<think>", "</think>"),
    ("<THINKING >", "</THINKING>"),
    ("<reasoning>", "</reasoning>"),
    ('<thought kind="a">', "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<inner_thoughts>", "</inner_thoughts>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
]
_HM = "The user wants a list:\n1. I should recall the bicycle\n2. Keep all of it short\n"
_SAID = "1. first message here\n2. second message here"
_TOLD = (
    "Turn the upper screw by a quarter and look. Where the chain climbs now, leave it alone. "
    "Else loosen the cable, pull it tight with pliers, and clamp it again at 5 Nm."
)


@pytest.mark.parametrize(("opening", "closing"), _OPEN_CLOSE)
def test_reasoning_is_no_message_and_no_reply(opening: str, closing: str) -> None:
    """Blocks of all known marks go, also where the opening mark stood in the prompt."""
    for before in (f"{opening}{_HM}{closing}\n", f"\n{_HM}{closing}\n\n", f"{opening}{closing}"):
        assert read_list(before + _SAID, _any)[0] == [
            "first message here",
            "second message here",
        ]
        reading = read_reply(before + _TOLD, "how?", cut=False, language="en", on_subject=_any)
        assert reading.text == _TOLD
    fenced = read_list(f"{opening}{_HM}{closing}\n```\n{_SAID}\n```", _any)[0]
    assert fenced == ["first message here", "second message here"]


@pytest.mark.parametrize(("opening", "_closing"), _OPEN_CLOSE)
def test_reasoning_that_never_ends_is_a_fault(opening: str, _closing: str) -> None:
    """What follows an open mark is not known to be an answer, however good it looks."""
    assert read_list(f"{opening}\n{_SAID}", _any) == ([], AnswerFault.REASONING)
    for cut in (True, False):
        said = f"{opening}{_TOLD}"
        reading = read_reply(said, "how?", cut=cut, language="en", on_subject=_any)
        assert reading.fault is AnswerFault.REASONING


@pytest.mark.parametrize(
    "text",
    [
        "1. how do I think about a <b>bolt</b> of 5 mm?\n2. [thinking](x) about the analysis",
        "1. is a < think > b, and what of [analysis] then?\n2. the reasoning of a mechanic",
    ],
)
def test_words_that_are_no_marks_stay(text: str) -> None:
    """A near miss of a mark is text like any other."""
    assert len(read_list(text, _any)[0]) == 2


@given(st.text(max_size=80), st.sampled_from(_OPEN_CLOSE))
@settings(deadline=None, max_examples=100)
def test_no_reasoning_reaches_an_item(thought: str, marks: tuple[str, str]) -> None:
    """Whatever is thought, the items are those behind it."""
    items, _ = read_list(f"{marks[0]}\n1. {thought}\n{marks[1]}\n{_SAID}", _any)
    assert items == ["first message here", "second message here"]
