"""Log probabilities leave for released tokens only, without their alternatives."""

from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Lane
from safehold.guard.gateway.protocols.chat.logprobs import ChosenTokens

LANE = Lane()


@given(st.lists(st.text(min_size=1, max_size=6), max_size=12), st.lists(st.integers(1, 9)))
def test_numbers_leave_with_the_text_that_they_belong_to(words: list[str], cuts: list[int]) -> None:
    """Whatever the release cuts, the tokens told of spell a beginning of what left."""
    chosen, released, told = ChosenTokens(), "", ""
    for word in words:
        chosen.add(LANE, word, [(word, -0.5)])
    text = "".join(words)
    for size in [*cuts, len(text)]:
        part = text[len(released) : len(released) + size]
        released += part
        entries = chosen.take(LANE, part)
        told += "".join(entry["token"] for entry in entries)
        assert released.startswith(told)
        assert all(entry["top_logprobs"] == [] for entry in entries)
    assert told == text


def test_tokens_that_spell_other_text_are_dropped() -> None:
    """A token that does not spell its delta's text is text that nobody scored, so it stays."""
    chosen = ChosenTokens()
    chosen.add(LANE, "fair", [("secret", -0.1)])
    chosen.add(LANE, " words", [(" words", -0.2)])
    entries = chosen.take(LANE, "fair words")
    assert [entry["token"] for entry in entries] == [" words"]


def test_withheld_tokens_are_not_told() -> None:
    """A token whose text is released in part waits for the rest."""
    chosen = ChosenTokens()
    chosen.add(LANE, "hello", [("hello", -0.1)])
    assert chosen.take(LANE, "hel") == []
    assert [entry["logprob"] for entry in chosen.take(LANE, "lo")] == [-0.1]
