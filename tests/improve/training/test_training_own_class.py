"""What the reply side of somebody's own class is learnt from, beside its generator's answers."""

import msgspec
import pytest

from safehold.exchange import user_says
from safehold.improve.synthesis.interface import GENERAL, Example, Lineage, Side, Split
from safehold.improve.training.examples import pairs, reply_texts, requests_of_own

CLAUSES = ("mending",)


def row(name: str, side: Side, generator: str, said: str, reply: str = "") -> Example:
    """An example of the training split."""
    return Example(
        id=name, family=name, split=Split.TRAIN, side=side,
        clause="mending" if side is Side.RESTRICTED else "general",
        exchange=user_says(said), reply=reply, ask=side is Side.RESTRICTED,
        lineage=Lineage(constitution="c", generator=generator, seed=1),
    )  # fmt: skip


ASK = row("ask", Side.RESTRICTED, "constitution", "How do I true a wheel?")
TWIN = row("twin", Side.PERMITTED, "constitution", "Who invented the wheel?")
ANSWER = row(
    "answer", Side.RESTRICTED, "openai", "And the hub?", "Turn the cone by an eighth. " * 9
)
LED = msgspec.structs.replace(
    row("led", Side.RESTRICTED, "openai", "Please go on.", "Then grease it. " * 20), ask=False
)
OTHER = row(GENERAL, Side.PERMITTED, GENERAL, "Write a poem about rain.", "Rain on the roof. " * 9)


def test_requests_of_both_sides_are_replies_too() -> None:
    """The subject's words reach the reply side; what only leads up to a reply does not."""
    rows = [ASK, TWIN, ANSWER, LED, OTHER]
    wanted = {
        "How do I true a wheel?": True,
        "Who invented the wheel?": False,
        "And the hub?": True,
    }
    assert dict(requests_of_own(rows)) == wanted
    told = {text.text: text.restricted for text in reply_texts(rows, seed=1)}
    assert wanted.items() <= told.items()
    assert "Please go on." not in told
    assert "Write a poem about rain." not in told
    read = {pair.reply: pair.clause for pair in pairs(rows, CLAUSES, seed=1) if pair.reply}
    assert {text: read[text] >= 0 for text in wanted} == wanted


@pytest.mark.parametrize("rows", [[ASK, TWIN, ANSWER], [OTHER], []])
def test_without_the_packages_text_or_a_class_nothing_is_added(rows: list[Example]) -> None:
    """A stock class is learnt from as before."""
    assert requests_of_own(rows) == []
    assert not {text.text for text in reply_texts(rows, seed=1)} & {"How do I true a wheel?"}
