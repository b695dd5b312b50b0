"""Campaigns along a ledger: what is usual is kept, decays, and never learns an alarm's wording."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.detect.monitoring.campaign_book import CampaignSettings, Looked, look
from safehold.detect.monitoring.campaigns import Background, Campaign, runs
from safehold.detect.monitoring.tables import BACKGROUND, MonitorStore
from safehold.errors import DataError, UsageError
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.ledger import NOW
from safehold.testing.monitoring import fill

_DAY_S = 86_400.0
_WORDS = [f"{a}{b}" for a in ("ba", "ko", "ri", "tu", "le", "mo") for b in ("sa", "ne", "vi", "du")]
_TEXTS = st.lists(st.sampled_from(_WORDS), min_size=3, max_size=20).map(" ".join)
_LEARNT = st.lists(st.tuples(_TEXTS, st.floats(0, 60 * _DAY_S), st.booleans()), max_size=8)


def _text(chance: random.Random, words: int = 30) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _wave(name: str, base: str, count: int = 6) -> list[tuple[str, str, bool]]:
    return [(f"{name}{n}", f"{base} {name} {n}", True) for n in range(count)]


def _calm(name: str, chance: random.Random, count: int) -> list[tuple[str, str, bool]]:
    return [(f"{name}{n}", _text(chance), False) for n in range(count)]


class _Place:
    """A ledger and a monitor's database, and looks at them."""

    def __init__(self, folder: Path) -> None:
        self.ledger, self.monitor = str(folder / "l.db"), str(folder / "m.db")

    def look(self, *, keep: bool = True, **wanted: float) -> Looked:
        """Look once."""
        store, reader = MonitorStore.open(self.monitor), LedgerReader.open(self.ledger)
        return look(store, reader, CampaignSettings(**wanted), keep=keep)


def _alarms(looked: Looked) -> list[Campaign]:
    return [one for one in looked.found if one.alarm]


@settings(max_examples=25, deadline=None)
@given(_LEARNT, _TEXTS)
def test_a_background_that_is_kept_and_loaded_answers_the_same(
    learnt: list[tuple[str, float, bool]], asked: str
) -> None:
    """Whatever was learnt, at whatever times: the same runs are rare, the same share is usual."""
    before = Background()
    for text, at, stopped in learnt:
        before.learn(text, at=NOW + at, stopped=stopped)
    after = Background.unpacked(before.packed())
    assert after.rare(runs(asked)) == before.rare(runs(asked))
    assert (after.usual, after.texts) == (before.usual, before.texts)
    assert Background.unpacked(after.packed()).packed() == after.packed()


@settings(max_examples=25, deadline=None)
@given(_LEARNT, _TEXTS, _TEXTS)
def test_learning_more_makes_nothing_rare_at_the_same_moment(
    learnt: list[tuple[str, float, bool]], more: str, asked: str
) -> None:
    """Counts only grow while no time passes; what was just learnt is not rare."""
    usual = Background()
    for text, at, stopped in learnt:
        usual.learn(text, at=NOW + at, stopped=stopped)
    rare = usual.rare(runs(asked))
    usual.learn(more, at=NOW)  # a clock set back takes no weight away either
    assert usual.rare(runs(asked)) <= rare
    if not learnt:
        assert not usual.rare(runs(more))


def test_a_look_keeps_what_left_the_window_once(tmp_path: Path) -> None:
    """Looking again without new exchanges learns nothing again."""
    place, chance = _Place(tmp_path), random.Random(1)
    fill(place.ledger, _calm("a", chance, 40))
    first = place.look(window_s=10.0)
    again = place.look(window_s=10.0)
    third = place.look(window_s=10.0)
    assert again.background == third.background == 29
    assert (first.window, again.window) == (20, 11)


def test_a_slow_campaign_stays_an_alarm_however_often_one_looks(tmp_path: Path) -> None:
    """An alarm's wording never becomes usual; its benign twin, a template, does and is no alarm."""
    place, chance = _Place(tmp_path), random.Random(2)
    base, template = _text(chance), _text(chance)
    twin = [(f"t{n}", f"{template} t {n}", False) for n in range(6)]
    fill(place.ledger, [*_calm("a", chance, 20), *_wave("x", base), *twin, *_calm("b", chance, 10)])
    seen = [place.look(window_s=2.0, begin_with=0.3) for _ in range(3)]
    assert len(_alarms(seen[0])) == 1
    store = MonitorStore.open(place.monitor)
    with store.begin() as connection:
        kept = Background.unpacked(connection.execute(BACKGROUND.select()).one().content)
    assert len(kept.rare(runs(base))) >= len(runs(base)) - 2  # harmless texts share a run or two
    assert not kept.rare(runs(template))


def test_what_was_usual_is_usual_no_more_after_months() -> None:
    """Wording that nobody uses for five half-lives is rare again."""
    usual, text = Background(), _text(random.Random(3))
    usual.learn(text, at=NOW)
    usual.learn("something else entirely here", at=NOW + 20 * _DAY_S)
    assert not usual.rare(runs(text))
    usual.learn("something else entirely here", at=NOW + 150 * _DAY_S)
    assert usual.rare(runs(text)) == runs(text)
    kept = Background.unpacked(usual.packed())
    assert kept.rare(runs(text)) == runs(text)


def test_a_look_that_keeps_nothing_changes_nothing(tmp_path: Path) -> None:
    """The console's look: it uses the kept background, over the newest rows, and leaves it."""
    place, chance = _Place(tmp_path), random.Random(4)
    template = _text(chance)
    usual = [(f"u{n}", f"{template} u {n}", False) for n in range(8)]
    fill(place.ledger, [*usual, *_calm("a", chance, 30)])
    place.look(window_s=5.0)
    with MonitorStore.open(place.monitor).begin() as connection:
        before = connection.execute(BACKGROUND.select()).one()
    wide = place.look(keep=False)
    narrow = place.look(keep=False, newest_rows=4, longest=100)
    with MonitorStore.open(place.monitor).begin() as connection:
        assert connection.execute(BACKGROUND.select()).one() == before
    assert narrow.window == 2 < wide.window
    assert narrow.background == wide.background > 0


def test_a_look_at_a_part_can_not_be_kept(tmp_path: Path) -> None:
    """It would call usual what nobody looked at."""
    place = _Place(tmp_path)
    fill(place.ledger, [("a", "text", False)])
    for wanted in ({"newest_rows": 4}, {"longest": 10}):
        with pytest.raises(UsageError, match="part"):
            place.look(**wanted)
    with pytest.raises(UsageError):
        look(None, LedgerReader.open(place.ledger))


def test_without_a_store_the_older_half_is_usual(tmp_path: Path) -> None:
    """A template of the older half is no cluster in the newer; a new wave is an alarm."""
    place, chance = _Place(tmp_path), random.Random(5)
    template = _text(chance)
    old = [(f"u{n}", f"{template} u {n}", False) for n in range(10)]
    new = [(f"v{n}", f"{template} v {n}", False) for n in range(4)]
    fill(place.ledger, [*old, *_calm("a", chance, 10), *new, *_wave("x", _text(chance))])
    found = look(None, LedgerReader.open(place.ledger), keep=False)
    assert len(_alarms(found)) == len(found.found) == 1


@pytest.mark.parametrize("damage", [b"", b"\x00\x00\x00\x02[]", b"\xff" * 40, b"\x00\x00\x00\x00"])
def test_a_damaged_background_is_told_and_not_replaced(damage: bytes, tmp_path: Path) -> None:
    """The look ends with what to do; the bytes are still there."""
    place = _Place(tmp_path)
    fill(place.ledger, [("a", "text", False)])
    with MonitorStore.open(place.monitor).begin() as connection:
        row = {"name": "campaigns", "seq": 0, "content": damage}
        connection.execute(BACKGROUND.insert(), row)
    with pytest.raises(DataError, match="damaged"):
        place.look()
    with MonitorStore.open(place.monitor).begin() as connection:
        assert connection.execute(BACKGROUND.select()).one().content == damage
