"""What the trainers read of a prompt carries its label."""

import random

import msgspec

from safehold.exchange import Exchange, Role, TextPart, Turn, user_says
from safehold.guard.session.segments import WHOLE
from safehold.improve.synthesis.interface import GENERAL, Example, Lineage, Side, Split
from safehold.improve.training.examples import pairs, passes, prompt_texts, shown_again

ASK = "how long does the purple porridge stand before it is strained"
PAGE = "The harbour keeps its boats in rows along the quay and the lamps are lit at dusk. " * 30


def example(text: str | Exchange, side: Side, name: str, parent: str | None = None) -> Example:
    """Return a prompt of one side; with a parent it was made from that."""
    chain = ("pasted",) if parent else ()
    return Example(
        id=name,
        family=name,
        split=Split.TRAIN,
        side=side,
        clause="porridge" if side is Side.RESTRICTED else "general",
        exchange=user_says(text) if isinstance(text, str) else text,
        reply="",
        ask=side is Side.RESTRICTED,
        lineage=Lineage(constitution="", generator="", seed=1, parent=parent, chain=chain),
    )


def test_a_long_restricted_prompt_is_shown_where_its_request_stands() -> None:
    """Wherever in a page the request stands, it is in what is learnt, and little else is."""
    base = example(ASK, Side.RESTRICTED, "base")
    for number in range(20):
        at = number * len(PAGE) // 20
        child = example(f"{PAGE[:at]}\n{ASK}\n{PAGE[at:]}", Side.RESTRICTED, "child", "base")
        shown = [one.prompt for one in pairs([base, child], ["porridge"], seed=number)]
        texts = [one.text for one in prompt_texts([base, child], seed=number)]
        for text in (*shown, *texts):
            assert ASK in " ".join(text.split())
            assert len(text) <= WHOLE


def test_a_written_wrapper_is_shown_where_its_request_stands() -> None:
    """A request that was written into a long prompt is shown, and so are those made from it."""
    for number in range(20):
        at = number * len(PAGE) // 20
        whole = example(f"{PAGE[:at]}\n{ASK}\n{PAGE[at:]}", Side.RESTRICTED, "whole")
        whole = msgspec.structs.replace(whole, request=ASK)
        child = example(f"Note: {PAGE[:at]}\n{ASK}\n{PAGE[at:]}", Side.RESTRICTED, "of", "whole")
        shown = [one.prompt for one in pairs([whole, child], ["porridge"], seed=number)]
        for text in shown:
            assert ASK in " ".join(text.split())
            assert len(text) <= WHOLE


def test_a_permitted_page_is_shown_from_everywhere() -> None:
    """The twin: a harmless page is learnt in any of the pieces that a session scores."""
    page = example(PAGE, Side.PERMITTED, "page")
    base = example(ASK, Side.RESTRICTED, "base")
    shown = {
        one.prompt
        for seed in range(30)
        for one in pairs([base, page], ["porridge"], seed=seed)
        if one.clause < 0
    }
    assert len(shown) > 3
    assert all(text in PAGE for text in shown)


def test_a_permitted_conversation_is_shown_as_the_session_joins_it() -> None:
    """None of the joined texts of a harmless conversation may look restricted, so all are shown."""
    turns = [
        Turn(role=role, parts=(TextPart(text=f"{said} number {number} about lamps and boats"),))
        for number in range(4)
        for role, said in ((Role.USER, "question"), (Role.ASSISTANT, "answer"))
    ]
    talk = example(Exchange(turns=tuple(turns[:-1])), Side.PERMITTED, "talk")
    shown = {one.prompt for seed in range(40) for one in pairs([talk], ["porridge"], seed=seed)}
    assert len(shown) > 2
    assert all("answer" not in text for text in shown)


def test_a_written_request_is_shown_again_inside_other_text() -> None:
    """Beside another text, in lines, dealt over turns or alone, a restricted one stays so.

    Harmless ones stay so, however their turns are joined.
    """
    bases = [example(f"{ASK} in bowl {n}", Side.RESTRICTED, f"r{n}") for n in range(12)]
    pages = [
        example(f"where do boat {n} and lamp {n} lie", Side.PERMITTED, f"p{n}") for n in range(30)
    ]
    child = example("never shown", Side.RESTRICTED, "child", "r1")
    beside = in_lines = joined = dealt = 0
    for seed in range(5):
        for text, one in shown_again([*bases, *pages, child], random.Random(seed)):
            plain = " ".join(text.split())
            told = sum(word in plain for word in ("purple", "porridge", "strained", "stand")) > 1
            assert told is (one is not None and one.side is Side.RESTRICTED)
            assert "never" not in text
            beside += ASK in plain and "boat" in plain
            in_lines += ASK in plain and text.count("\n") > 1
            joined += one is None
            dealt += told and ASK not in plain
    assert min(beside, in_lines, joined, dealt) > 4


def test_a_text_without_blanks_is_dealt_by_characters() -> None:
    """A language that writes no blanks is shown in lines too, and loses no character."""
    said = "\u3053\u306e\u6728\u306e\u8239\u306f\u3044\u3064\u51fa\u307e\u3059\u304b" * 3
    one = example(said, Side.RESTRICTED, "ja")
    shown = {text for seed in range(40) for text, _ in shown_again([one], random.Random(seed))}
    assert any("\n" in text for text in shown)
    assert {text.replace("\n", "") for text in shown} == {said}


def test_a_long_reply_without_blanks_is_read_from_everywhere() -> None:
    """Stage 2 reads other stretches of it in each epoch, as of a text with blanks."""
    said = "".join(chr(0x4E00 + number) for number in range(600))
    for text in (said, " ".join(said)):
        one = msgspec.structs.replace(example("so", Side.RESTRICTED, "ja"), reply=text)
        shown = [
            pair.reply
            for seed in range(30)
            for pair in pairs([one], ["porridge"], seed=seed)
            if pair.reply
        ]
        assert len({part[0] for part in shown}) > 20
        assert all(part in text and len(part) < 200 for part in shown)


def _general(count: int) -> list[Example]:
    lineage = Lineage(constitution="", generator=GENERAL, seed=1)
    return [
        msgspec.structs.replace(example(ASK, Side.PERMITTED, f"g{n}"), lineage=lineage)
        for n in range(count)
    ]


def test_the_packages_text_is_no_more_of_a_pass_than_ones_own() -> None:
    """Each pass reads all of one's own text, as much general one, and another part each time."""
    own = [example(ASK, Side.RESTRICTED, f"o{n}") for n in range(10)]
    read = passes([*own, *_general(100)], 2, 3, 1.0, seed=5)
    assert len(read) == 3
    drawn: list[str] = []
    for one in read:
        assert one[:10] == own
        assert len(one) == 20
        drawn += [each.id for each in one[10:]]
    assert len(set(drawn)) == 30
    assert read == passes([*own, *_general(100)], 2, 3, 1.0, seed=5)


def test_a_class_with_much_text_of_its_own_is_read_whole() -> None:
    """Where the package's text is the smaller part, or none, every pass reads everything."""
    own = [example(ASK, Side.RESTRICTED, f"o{n}") for n in range(10)]
    for general in (0, 10):
        everything = [*own, *_general(general)]
        assert passes(everything, 2, 3, 1.0, seed=5) == [everything, everything]
