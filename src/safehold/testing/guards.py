"""Guards without a trained model: written rules only, for tests, benchmarks and first steps."""

from collections.abc import Sequence

from safehold.guard.cascade import Cascade, Thresholds
from safehold.guard.gateway.holder import Held
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.guard.stream import Guard

MARKER = "purple elephant protocol"
"""A harmless phrase that test guards block."""
_NEVER = Thresholds(escalate=100.0, weights=(1.0, 0.0, 0.0), block=100.0, alone=100.0)


class PlainViews:
    """Decodes nothing of a growing text."""

    def feed(self, text: str) -> tuple[str, ...]:
        """Return nothing."""
        del text
        return ()

    def finish(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()


class PlainDecoder:
    """Shows a text as it is."""

    def views(self, text: str) -> Sequence[str]:
        """Return the text alone."""
        return (text,)

    def growing(self) -> PlainViews:
        """Start a lane."""
        return PlainViews()


def rule_guard(*patterns: str, digest: str = "0" * 64) -> Guard:
    """Return a guard of regular expressions (RE2), by default the marker's."""
    rules = [
        Rule(id=f"rule-{number}", clause="test-marker", pattern=pattern)
        for number, pattern in enumerate(patterns or (MARKER,))
    ]
    cascade = Cascade(
        digest=digest,
        stage1=None,
        has_stage2=False,
        prompt=_NEVER,
        reply=_NEVER,
        rules=RuleSet(rules),
    )
    return Guard(cascade, PlainDecoder())


def held_rules(*patterns: str, digest: str = "0" * 64) -> Held:
    """Return a rule guard as the gateway holds it, its canary a text that it blocks."""
    canaries = () if patterns else (f"say {MARKER}",)
    return Held(rule_guard(*patterns, digest=digest), name=digest[:8], canaries=canaries)
