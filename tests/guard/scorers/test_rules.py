"""Written rules."""

import time

import pytest

from safehold.errors import ConfigError
from safehold.guard.scorers.rules import Rule, RuleSet, RuleStream


def rules(*patterns: str) -> RuleSet:
    """A rule set of these patterns."""
    return RuleSet([Rule(id=str(i), clause="c", pattern=p) for i, p in enumerate(patterns)])


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_match_across_deltas_is_found(cut: int) -> None:
    """A phrase is found wherever a delta cuts it."""
    stream = RuleStream(rules("magic phrase"))
    text = "a magic phrase b"
    hits = [stream.feed(part) for part in (text[:cut], text[cut:])]
    assert any(hits)


def test_catastrophic_pattern_stays_linear() -> None:
    """A pattern that hangs a backtracking engine answers in linear time."""
    started = time.process_time()
    assert rules(r"(a+)+$").search("a" * 5_000 + "b") is None
    assert time.process_time() - started < 5


@pytest.mark.parametrize("pattern", ["(", "a*", "(?=x)y", r"(x)\1"])
def test_patterns_that_are_no_rules_are_refused(pattern: str) -> None:
    """Broken, empty-matching and non-RE2 patterns are configuration errors."""
    with pytest.raises(ConfigError):
        rules(pattern)


def test_no_rules_are_refused() -> None:
    """An empty rule set is not 'allow'."""
    with pytest.raises(ConfigError, match="at least one"):
        RuleSet([])
