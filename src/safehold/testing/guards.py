"""Guards without a trained model: written rules only, for tests, benchmarks and first steps."""

import warnings
from collections.abc import Callable, Sequence

from safehold.exchange import Exchange, Lane
from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.interface import Allow, Block, Cleared, Heard, ScoringFlow, Step, Verdict
from safehold.guard.overlay.live import HotSource, no_hot_rules
from safehold.guard.scorers.rules import Rule, RuleSet
from safehold.guard.session.cascade import Cascade, Thresholds
from safehold.guard.session.remembered import ScoreMemory
from safehold.guard.session.session import Guard, LaneCoverage, SessionPolicy, SessionReport

MARKER = "purple elephant protocol"
"""A harmless phrase that test guards block."""
_NEVER = Thresholds(escalate=100.0, weights=(1.0, 0.0, 0.0), block=100.0, alone=100.0)


class PlainViews:
    """Decodes nothing of a growing text."""

    decodes = False
    pending = 0

    def feed(self, text: str) -> tuple[str, ...]:
        """Return nothing."""
        del text
        return ()

    @property
    def unreadable(self) -> int:
        """Nothing is judged."""
        return 0

    def unknown(self, known: str) -> int:
        """Return nothing."""
        del known
        return 0

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


class UnsafeOpenSession:
    """Lets everything pass as it comes; counts it as scored, which it is not."""

    would_block: Block | None = None
    delivers_whole = False

    def __init__(self) -> None:
        self._chars = 0

    def judge_prompt(self) -> ScoringFlow[Verdict]:
        """Allow."""
        yield from ()
        return Allow(score=0.0)

    def feed(self, lane: Lane, text: str, heard: Heard | None = None) -> ScoringFlow[Step]:
        """Clear the text."""
        del lane, heard
        self._chars += len(text)
        yield from ()
        return Cleared(text=text)

    def close(self, lane: Lane) -> ScoringFlow[Step]:
        """Clear nothing: nothing was held."""
        del lane
        yield from ()
        return Cleared(text="")

    def finish(self) -> ScoringFlow[tuple[tuple[Lane, Step], ...]]:
        """Clear nothing: nothing was held."""
        yield from ()
        return ()

    @property
    def coverage(self) -> LaneCoverage:
        """Say that everything was scored."""
        return LaneCoverage(received=self._chars, scored=self._chars, released=self._chars)

    def report(self) -> SessionReport:
        """Report no score."""
        return SessionReport(
            prompt_score=0.0, reply_score=0.0, escalations=0, bypasses=(), coverage=self.coverage
        )


class UnsafeOpenGuard:
    """A guard that looks at nothing, to measure what relaying alone costs. Never serve it."""

    digest = "f" * 64

    def __init__(self) -> None:
        warnings.warn("this guard lets everything pass", stacklevel=2)

    def session(
        self,
        exchange: Exchange,
        policy: SessionPolicy,
        exempt: Callable[[str], bool] | None = None,
        hot: HotSource = no_hot_rules,
        memory: ScoreMemory | None = None,
        account: str = "",
    ) -> UnsafeOpenSession:
        """Start an exchange that nobody guards."""
        del exchange, policy, exempt, hot, memory, account
        return UnsafeOpenSession()
