"""Steps that are passed at once where written rules alone look: as if each were looked at."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange import Lane, user_says
from safehold.guard.interface import DeliveryMode, Step
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.drivers import drive
from safehold.guard.session.session import Guard, SessionPolicy
from safehold.testing.guards import PlainDecoder, PlainViews

_NEVER = Thresholds(escalate=100.0, weights=(1.0, 0.0, 0.0), block=100.0, alone=100.0)
_WORDS = ("bread", "soap", "and", "so", "on", "hops", "malt", "a", "12", "it's", "end.", "x" * 70)
_ODD = (
    "**bread**",
    "br\u00e9ad",
    "s\u200boap",
    "[a](b)",
    "<b>",
    "\n",
    "  ",
    "\t",
    "::",
    "\uff22\uff32\uff25\uff21\uff24",
)
_PATTERNS = (
    "bread soap",
    r"malt\s+malt",
    r"bread$",
    r"\bso\b",
    r"^soap",
    r"[^a]and [\]$]?hops",
    r"x{66}",
    r"on\B",
    r"\Aon",
)


class _Slow(PlainViews):
    """Decodes nothing, and is not known to."""

    decodes = True


class _SlowDecoder(PlainDecoder):
    def growing(self) -> PlainViews:
        return _Slow()


def _guards(patterns: Sequence[str]) -> tuple[Guard, Guard]:
    rules = RuleSet([Rule(id=one, clause="c", pattern=one) for one in patterns])
    cascade = Cascade(
        digest="0" * 64,
        stage1=None,
        has_stage2=False,
        prompt=_NEVER,
        reply=_NEVER,
        rules=rules,
    )
    return Guard(cascade, PlainDecoder()), Guard(cascade, _SlowDecoder())


def _played(guard: Guard, policy: SessionPolicy, parts: Sequence[str]) -> list[Step]:
    session = guard.session(user_says("hello"), policy)
    drive(session.judge_prompt(), lambda _: pytest.fail("no stage 2"))
    lane = Lane()
    steps = [drive(session.feed(lane, part), lambda _: pytest.fail("none")) for part in parts]
    ends = drive(session.finish(), lambda _: pytest.fail("no stage 2"))
    assert session.coverage.released <= session.coverage.scored <= session.coverage.received
    return [*steps, *(step for _, step in ends)]


@given(
    words=st.lists(st.sampled_from(_WORDS + _ODD), max_size=60),
    cuts=st.lists(st.integers(1, 40), max_size=30),
    patterns=st.lists(st.sampled_from(_PATTERNS), min_size=1, max_size=3),
    hold=st.sampled_from((0, 1, 5, 16)),
    mode=st.sampled_from(tuple(DeliveryMode)),
)
def test_quiet_steps_leave_as_if_each_were_looked_at(
    words: list[str],
    cuts: list[int],
    patterns: list[str],
    hold: int,
    mode: DeliveryMode,
) -> None:
    """What leaves after each delta, and what blocks where, is the same on both ways."""
    text, parts = " ".join(words), []
    for cut in cuts:
        parts.append(text[:cut])
        text = text[cut:]
    parts.append(text)
    quick, slow = _guards(patterns)
    policy = SessionPolicy(mode=mode, hold_tokens=hold)
    assert _played(quick, policy, parts) == _played(slow, policy, parts)


@pytest.mark.parametrize(
    ("pattern", "joins"),
    [
        ("bread", True),
        (r"[$^]x", True),
        (r"[^\]]a", True),
        (r"\$\^", True),
        (r"[]^]a", True),
        (r"\\bx", True),
        (r"\bx", False),
        (r"\\\bx", False),
        ("a$", False),
        ("(?m)^a", False),
        (r"a\z", False),
        (r"\Q$\E", False),
    ],
)
def test_pattern_that_asks_for_the_ends_of_a_text_is_looked_for_step_by_step(
    pattern: str, *, joins: bool
) -> None:
    """Anchors and word borders outside classes are found; quoted ones are not taken for them."""
    assert RuleSet([Rule(id="r", clause="c", pattern=pattern)]).joins is joins
