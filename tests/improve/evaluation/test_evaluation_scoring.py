"""Scores come from the sessions that serve, whole and in small deltas."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.exchange import Lane, user_says
from safehold.guard.interface import Block, Stage
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import drive
from safehold.guard.session.session import Guard, SessionPolicy
from safehold.improve.evaluation.interface import EvalItem, Label
from safehold.improve.evaluation.items import NEUTRAL
from safehold.improve.evaluation.scoring import DELTA_CHARS, Examiner
from safehold.testing.bundles import WORDS, BrokenScorer, WordScorer, tiny_bundle

BREWING = "Mash the malt, sparge, boil the wort with hops, pitch yeast and ferment it. " * 3
PLAIN = "The museum opens at nine and children pay half of what their parents pay. " * 3


def item(text: str) -> EvalItem:
    """Return an item of one text."""
    return EvalItem("k", Label.RESTRICTED, "s", "c", "o", adjacent=False, prompt=user_says(text),
                before=NEUTRAL, reply=text)  # fmt: skip


def examiner(*, stage2: bool = True) -> Examiner:
    """Return an examiner of the tiny bundle."""
    bundle = tiny_bundle(WordScorer() if stage2 else None)
    return Examiner(bundle.cascade, bundle.stage2, ViewDecoder())


@pytest.mark.parametrize("stage2", [True, False])
def test_restricted_text_is_stopped_on_both_surfaces(stage2: bool) -> None:  # noqa: FBT001
    """A plain restricted text is blocked as a prompt and stopped as a reply, part-way."""
    scores = examiner(stage2=stage2).examine(item(BREWING + PLAIN * 4))
    assert scores.prompt is not None
    assert scores.reply is not None
    assert scores.prompt.blocked
    assert scores.reply.blocked
    assert 0 < scores.reply.stop < scores.reply.length
    assert scores.reply.released < scores.reply.stop


@pytest.mark.parametrize("stage2", [True, False])
def test_plain_text_passes(stage2: bool) -> None:  # noqa: FBT001
    """A benign text is neither escalated nor blocked, and nothing was stopped anywhere."""
    scores = examiner(stage2=stage2).examine(item(PLAIN))
    assert scores.prompt is not None
    assert scores.reply is not None
    assert not scores.prompt.blocked
    assert not scores.reply.blocked
    assert scores.reply.stop == scores.reply.released == 0


def test_broken_scorer_is_unscorable_and_no_detection() -> None:
    """A stage 2 that raises is told apart from a guard that found something."""
    bundle = tiny_bundle(BrokenScorer())
    scores = Examiner(bundle.cascade, bundle.stage2, ViewDecoder()).examine(item(BREWING))
    assert scores.prompt is not None
    assert scores.reply is not None
    assert scores.prompt.stage is Stage.FAIL_MODE
    assert scores.reply.unscorable


def test_prompt_score_is_the_highest_of_its_candidates() -> None:
    """A block by the first hot text does not hide a later, hotter one from the score."""
    scores = examiner().examine(item(BREWING))
    assert scores.prompt is not None
    assert scores.prompt.final is not None
    assert scores.prompt.final > len(WORDS)


_SOUP = st.lists(st.sampled_from([*WORDS, "the", "a", "museum", "ticket", "and", "."]), max_size=60)


@settings(max_examples=60)
@given(words=_SOUP)
def test_recorded_verdicts_are_those_of_the_serving_guard(words: list[str]) -> None:
    """On any text, what evaluation reports is what a gateway's session decides."""
    text = " ".join(words) or "x"
    bundle = tiny_bundle(WordScorer())
    scores = Examiner(bundle.cascade, bundle.stage2, ViewDecoder()).examine(item(text))
    guard = Guard(bundle.cascade, ViewDecoder())
    answer = InlineStage2(WordScorer())
    verdict = drive(guard.session(user_says(text), SessionPolicy()).judge_prompt(), answer)
    session = guard.session(NEUTRAL, SessionPolicy())
    blocked = False
    for at in range(0, len(text), DELTA_CHARS):
        step = drive(session.feed(Lane(), text[at : at + DELTA_CHARS]), answer)
        blocked = blocked or isinstance(step, Block)
    ends = drive(session.finish(), answer)
    blocked = blocked or any(isinstance(step, Block) for _, step in ends)
    assert scores.prompt is not None
    assert scores.reply is not None
    assert scores.prompt.blocked is isinstance(verdict, Block)
    assert scores.reply.blocked is blocked
