"""Campaigns: planted ones are joined, benign traffic is not, and no cluster is an alarm by size."""

import itertools
import random

from safehold.detect.monitoring.campaigns import Background, Sighting, campaigns
from safehold.testing.ledger import NOW

_SYLLABLES = ("ba", "ko", "ri", "tu", "le", "mo", "sa", "ne", "vi", "du", "pa", "gi")
_WORDS = ["".join(parts) for parts in itertools.product(_SYLLABLES, repeat=3)]


def _text(chance: random.Random, words: int = 60) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _changed(text: str, chance: random.Random, share: float) -> str:
    return " ".join(
        chance.choice(_WORDS) if chance.random() < share else word for word in text.split()
    )


def _benign(chance: random.Random, count: int) -> list[Sighting]:
    return [
        Sighting(decision_id=f"b{i}", account=f"b{i}", text=_text(chance), stopped=False)
        for i in range(count)
    ]


def test_planted_campaigns_are_joined_and_benign_texts_are_not() -> None:
    """Thirty wrappers of twelve, 0-30 % of words changed: 95 % of pairs joined, none mixed."""
    chance = random.Random(7)
    background = Background()
    for _ in range(500):
        background.learn(_text(chance), at=NOW)
    planted = [
        Sighting(
            decision_id=f"{wrapper}-{i}",
            account=f"a{wrapper}-{i}",
            text=_changed(base, chance, chance.uniform(0.0, 0.3)) + " " + _text(chance, 8),
            stopped=chance.random() < 0.5,
        )
        for wrapper in range(30)
        for base in [_text(chance)]
        for i in range(12)
    ]
    seen = planted + _benign(chance, 500)
    chance.shuffle(seen)
    found = campaigns(seen, background)
    pairs = 0
    for one in found:
        wrappers = {name.split("-")[0] for name in one.decision_ids}
        assert len(wrappers) == 1
        assert not any(name.startswith("b") for name in one.decision_ids)
        pairs += len(one.decision_ids) * (len(one.decision_ids) - 1) // 2
    assert pairs / (30 * 66) >= 0.95
    assert sum(one.alarm for one in found) >= 28


def test_a_template_that_everybody_uses_is_no_alarm() -> None:
    """A harmless form letter of forty accounts clusters and does not alarm."""
    chance = random.Random(8)
    background = Background()
    for i in range(200):
        background.learn(_text(chance), at=NOW, stopped=i % 50 == 0)
    base = _text(chance)
    seen = [
        Sighting(decision_id=f"d{i}", account=f"a{i}", text=base, stopped=i == 0) for i in range(40)
    ]
    found = campaigns(seen, background)
    assert [(len(one.accounts), one.alarm) for one in found] == [(40, False)]


def test_one_account_alone_is_no_campaign() -> None:
    """A single account's retries are its own label's business."""
    text = _text(random.Random(9))
    seen = [Sighting(decision_id=f"d{i}", account="a", text=text, stopped=True) for i in range(9)]
    assert [one.alarm for one in campaigns(seen, Background())] == [False]


def test_the_background_decays() -> None:
    """Wording that was usual long ago is rare again."""
    text = _text(random.Random(10))
    background = Background()
    background.learn(text, at=NOW)
    seen = [
        Sighting(decision_id=f"d{i}", account=f"a{i}", text=text, stopped=True) for i in range(4)
    ]
    assert campaigns(seen, background) == []
    background.learn("something else entirely", at=NOW + 90 * 86_400)
    assert [one.alarm for one in campaigns(seen, background)] == [True]
