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


def test_many_patterns_are_found_as_if_each_was_asked() -> None:
    """Hundreds of patterns in parts of one search: the same hits, in the same order."""
    rules = [Rule(id=f"r{n}", clause="c", pattern=rf"\bw{n % 70}\b") for n in range(300)]
    found = RuleSet(rules)
    for text in ("w3 and w69", "w70", "w0", "nothing", " ".join(f"w{n}" for n in range(70))):
        words = set(text.split())
        expected = [rule.id for rule in rules if f"w{int(rule.id[1:]) % 70}" in words]
        assert [hit.rule.id for hit in found.every_matching(text)] == expected
        first = found.matching(text)
        assert (first.rule.id if first else None) == (expected[0] if expected else None)
