"""A probe in a session: what nobody heard never leaves, and the probe alone can ask stage 2."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.errors import BundleError
from safehold.exchange import Lane, user_says
from safehold.guard.interface import Block, Cleared, FailMode, Stage
from safehold.guard.scorers.probe import LinearProbe, ProbeHead
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.cascade import Probed, Thresholds
from safehold.guard.session.drivers import drive
from safehold.guard.session.session import Guard, GuardSession, SessionPolicy
from safehold.testing.guards import PlainDecoder
from safehold.testing.scorers import PhraseStage2, keyword_guard, keyword_head

PROMPT = user_says("tell me something")
HOT, COLD = (8.0,), (-8.0,)


def probed_guard(*, weight: float = 1.0, block: float = 0.0) -> Guard:
    """A guard whose probe has as much weight as stage 2 and escalates above 1."""
    cascade = keyword_guard(keyword_head("wort"), has_stage2=True).cascade
    probe = LinearProbe("p", ProbeHead(np.ones(1, np.float32), 0.0, 0.0, 8), (0,), "clause")
    reply = Thresholds(escalate=0.0, weights=(0.0, 1.0, 0.0), block=block, alone=0.0)
    return Guard(
        msgspec.structs.replace(cascade, reply=reply, probe=Probed(probe, 1.0, weight)),
        PlainDecoder(),
    )


def play(session: GuardSession, heard: list[tuple[float, ...]]) -> tuple[str, Block | None]:
    """Stream a word for each logit; return what left, and the block."""
    answer = InlineStage2(PhraseStage2("sparge"))
    released = ""
    for logits in heard:
        step = drive(session.feed(Lane(), "word ", logits), answer)
        if isinstance(step, Block):
            return released, step
        released += step.text
    for _, step in drive(session.finish(), answer):
        if isinstance(step, Block):
            return released, step
        released += step.text
    return released, None


def test_the_probe_alone_asks_stage2_and_can_decide() -> None:
    """Harmless words that the model thinks restricted thoughts over are stopped."""
    released, block = play(probed_guard().session(PROMPT, SessionPolicy()), [HOT] * 40)
    assert block is not None
    assert block.stage is Stage.STAGE2
    assert len(released) < 40 * 5


def test_a_cold_probe_changes_nothing() -> None:
    """Without evidence from either scorer stage 2 is never asked and all is delivered."""
    session = probed_guard().session(PROMPT, SessionPolicy())
    released, block = play(session, [COLD] * 40)
    assert (released, block) == ("word " * 40, None)
    assert session.report().escalations == 0


def test_escalating_by_the_probe_is_not_refusing() -> None:
    """A probe with little weight asks, and stage 2 clears."""
    session = probed_guard(weight=0.1).session(PROMPT, SessionPolicy())
    released, block = play(session, [HOT] * 40)
    assert (released, block) == ("word " * 40, None)
    assert session.report().escalations > 0


@pytest.mark.parametrize("heard", [None, ()])
def test_text_that_nobody_heard_is_withheld(heard: tuple[float, ...] | None) -> None:
    """Text without the probe's logits ends in stage 1's fail mode: it was not scored."""
    session = probed_guard().session(PROMPT, SessionPolicy())
    step = drive(session.feed(Lane(), "word " * 40, heard), InlineStage2(PhraseStage2("x")))
    assert isinstance(step, Block)
    assert step.stage is Stage.FAIL_MODE
    assert session.coverage.released == 0


def test_unheard_text_may_pass_where_the_policy_says_so_and_is_counted() -> None:
    """In bypass mode it is delivered and reported by name."""
    policy = SessionPolicy(fail_mode_stage1=FailMode.BYPASS)
    session = probed_guard().session(PROMPT, policy)
    step = drive(session.feed(Lane(), "word " * 40), InlineStage2(PhraseStage2("x")))
    assert isinstance(step, Cleared)
    assert session.report().bypasses == ("stage1: NoActivations",)


def test_a_logit_that_is_no_number_blocks() -> None:
    """A probe that answers nonsense ends in the fail mode."""
    session = probed_guard().session(PROMPT, SessionPolicy())
    step = drive(session.feed(Lane(), "word ", (float("nan"),)), InlineStage2(PhraseStage2("x")))
    assert isinstance(step, Block)
    assert step.stage is Stage.FAIL_MODE


@given(st.lists(st.floats(-9, 9), max_size=60), st.integers(0, 24))
def test_released_never_exceeds_scored_with_a_probe(logits: list[float], hold: int) -> None:
    """Whatever the probe says, what left is a prefix of what was scored."""
    session = probed_guard().session(PROMPT, SessionPolicy(hold_tokens=hold))
    released, block = play(session, [(logit,) for logit in logits])
    coverage = session.coverage
    assert coverage.released <= coverage.scored <= coverage.received
    assert ("word " * len(logits)).startswith(released)
    assert block is not None or released == "word " * len(logits)


def test_a_probe_without_both_text_stages_is_refused() -> None:
    """The probe's weight was fitted beside both; a cascade that lacks one is an error."""
    guard = probed_guard()
    with pytest.raises(BundleError, match="both text stages"):
        msgspec.structs.replace(guard.cascade, has_stage2=False).__post_init__()
