"""Accounts: a search is labelled soon, an honest account hardly ever, each exchange counts once."""

import random
from pathlib import Path

import numpy as np
import pytest

from safehold.detect.monitoring.account_book import EXEMPT, AccountBook
from safehold.detect.monitoring.accounts import (
    AccountState,
    Caps,
    combined,
    e_bh,
    fit_caps,
    labels,
    log_evidence,
    observe,
)
from safehold.detect.monitoring.simulate import TAILS, own_tail, simulate
from safehold.detect.monitoring.tables import MonitorStore
from safehold.errors import DataError
from safehold.exchange import user_says
from safehold.guard.ledger.interface import Action, LedgerVerdict
from safehold.guard.ledger.reader import LedgerReader
from safehold.stats import upper_bound
from safehold.testing.ledger import NOW, RowMaker
from safehold.testing.monitoring import fill, kept

_WORDS = [f"{a}{b}" for a in ("ba", "ko", "ri", "tu", "le", "mo") for b in ("sa", "ne", "vi", "du")]


def _text(chance: random.Random) -> str:
    return " ".join(chance.choices(_WORDS, k=25))


def _varied(text: str, chance: random.Random) -> str:
    words = text.split()
    words[chance.randrange(len(words))] = chance.choice(_WORDS)
    return " ".join(words)


def test_evidence_ever_crosses_under_the_null_at_most_with_alpha() -> None:
    """Of 10,000 streams at the cap itself no more cross 1/alpha than the exact bound allows."""
    chance, alpha, crossed = np.random.default_rng(3), 0.05, 0
    for _ in range(10_000):
        k = np.cumsum(chance.random(200) < 0.1)
        counts = ((int(k[n]), n + 1) for n in range(9, 200, 10))
        crossed += any(
            log_evidence(events, n, cap=0.1, rates=(0.2, 0.4, 0.7)) >= np.log(1 / alpha)
            for events, n in counts
        )
    assert crossed / 10_000 <= alpha + (upper_bound(500, 10_000) - 0.05)


@pytest.mark.parametrize("padding", [1, 4, 30])
def test_a_search_is_labelled_however_it_is_padded(padding: int) -> None:
    """A walk of resembling stopped texts is found within 36 of them; padding does not hide it."""
    chance = random.Random(1)
    state, text, hot = AccountState(), _text(chance), 0
    while not list(labels(state, Caps())):
        text, hot = _varied(text, chance), hot + 1
        state = observe(state, decision_id=f"h{hot}", at=NOW, text=text, stopped=True)
        for _ in range(padding):
            state = observe(state, decision_id="p", at=NOW, text="hello", stopped=False)
    assert hot <= 36


def test_an_honest_clumsy_account_is_not_labelled() -> None:
    """Two percent of unrelated stopped texts over 5,000 queries earn no label."""
    chance = random.Random(2)
    state = AccountState()
    for number in range(5_000):
        stopped = number % 50 == 0
        state = observe(state, decision_id="d", at=NOW, text=_text(chance), stopped=stopped)
    assert list(labels(state, Caps())) == []


def test_the_book_counts_each_exchange_once_and_exempt_traffic_apart(tmp_path: Path) -> None:
    """Following twice changes nothing; a label names its account, reason and evidence."""
    chance = random.Random(4)
    base = _text(chance)
    asked = [("bad", _varied(base, chance), True) for _ in range(40)]
    asked += [("good", _text(chance), False) for _ in range(40)]
    fill(str(tmp_path / "l.db"), asked)
    book = AccountBook(MonitorStore.open(str(tmp_path / "m.db")), caps=Caps())
    reader = LedgerReader.open(str(tmp_path / "l.db"))
    assert (book.follow(reader), book.follow(reader)) == (80, 0)
    assert {name: one.queries for name, one in book.states().items()} == {"bad": 40, "good": 40}
    found = book.labels(now=NOW + 100)
    assert {one.account for one in found} == {"bad"}
    assert {one.label for one in found} == {
        "blocked-often",
        "search-walk",
        "long-lineage",
        "stands-out",
    }
    assert min(one.queries for one in found) < 10
    assert all(one.evidence and one.expires > NOW for one in found)
    assert book.labels(now=NOW + 91 * 86_400) == []


def test_fitted_caps_cover_the_accounts_that_they_were_fitted_on() -> None:
    """The operator's own clumsiest honest account stays below the caps."""
    honest = [AccountState(queries=1000, blocked=300, walked=40, lineage=35)]
    caps = fit_caps(honest)
    assert (caps.block, caps.walk, caps.lineage) == (0.3, 0.04, 36)
    assert list(labels(honest[0], caps)) == []


def test_e_bh_opens_strong_accounts_only() -> None:
    """Twenty strong of a thousand are opened; without any nobody is."""
    assert e_bh([15.0] * 20 + [0.0] * 980) == list(range(20))
    assert e_bh([0.0] * 1000) == []
    assert e_bh([]) == []


def test_a_clock_set_back_loses_no_exchange_and_no_label(tmp_path: Path) -> None:
    """A year back in the middle of a search: each exchange counts, the label comes as it would."""
    chance, rows = random.Random(7), RowMaker()
    base, seen = _text(chance), []
    for number in range(40):
        at = NOW + number - (365 * 86_400 if number >= 20 else 0)
        stop = {"verdict": LedgerVerdict.BLOCK, "clause": "c", "action": Action.BLOCK}
        about = {"key_id": "bad", "exchange": user_says(_varied(base, chance)), "at": at}
        seen += [
            rows.prompt(f"d{number}", **about, **stop, score=0.9),
            rows.final(f"d{number}", "", at=at),
        ]
    kept(str(tmp_path / "l.db"), *seen)
    book = AccountBook(MonitorStore.open(str(tmp_path / "m.db")), caps=Caps())
    assert book.follow(LedgerReader.open(str(tmp_path / "l.db"))) == 40
    (state,) = book.states().values()
    assert (state.queries, state.blocked, state.lineage) == (40, 40, 40)
    assert "search-walk" in {one.label for one in book.labels(now=NOW - 365 * 86_400 + 100)}


def test_many_accounts_a_little_above_the_cap_stand_out_together(tmp_path: Path) -> None:
    """None is sure enough alone; honest ones beside them get nothing, nor do exempt ones."""
    chance = random.Random(8)
    asked = [(f"x{n}", _text(chance), True) for n in range(12) for _ in range(7)]
    asked += [(f"x{n}{EXEMPT}", _text(chance), True) for n in range(3) for _ in range(7)]
    asked += [(f"h{n}", _text(chance), False) for n in range(12) for _ in range(3)]
    fill(str(tmp_path / "l.db"), asked)
    book = AccountBook(MonitorStore.open(str(tmp_path / "m.db")), caps=Caps())
    book.follow(LedgerReader.open(str(tmp_path / "l.db")))
    found = book.labels(now=NOW + 100)
    assert {one.account for one in found} == {f"x{n}" for n in range(12)}
    assert {one.label for one in found} == {"stands-out"}
    assert all(one.evidence and "of such labels are false" in one.reason for one in found)


def test_of_the_labels_over_all_accounts_few_are_false() -> None:
    """At the cap itself, 400 honest accounts and 40 searches: false ones at most 5 % on average."""
    chance, shares, opened = np.random.default_rng(9), [], 0
    for _ in range(60):
        honest = chance.binomial(60, 0.3, 400)
        bad = chance.binomial(60, 0.75, 40)
        states = [AccountState(queries=60, blocked=int(k)) for k in (*honest, *bad)]
        found = e_bh([combined(one, Caps()) for one in states])
        opened += sum(index >= 400 for index in found)
        shares.append(sum(index < 400 for index in found) / max(1, len(found)))
    assert np.mean(shares) <= 0.05
    assert opened / (60 * 40) >= 0.5


def test_the_operators_own_tails_are_played() -> None:
    """Rates of one's own accounts, with the doubt of few exchanges, against one's own caps."""
    states = {f"h{n}": AccountState(queries=400, blocked=2, windows=300) for n in range(60)}
    tail = own_tail(states.values())
    done = simulate(tail=tail, accounts=1_000, walk_share=0.2, caps=Caps(), seed=2)
    assert (done.tail, done.alarmed) == ("own", 0)
    worse = own_tail([AccountState(queries=400, blocked=240) for _ in range(60)])
    assert simulate(tail=worse, accounts=200, walk_share=0.2, caps=Caps(), seed=2).alarmed > 100
    with pytest.raises(DataError, match="came 29"):
        own_tail(list(states.values())[:29])


def test_the_simulation_finds_searches_and_spares_honest_accounts() -> None:
    """Walk share 0.2: within 300 queries at the median; few of 2,000 honest accounts alarmed."""
    done = simulate(tail=TAILS["medium"], accounts=2_000, walk_share=0.2, caps=Caps(), seed=1)
    assert done.median <= 300
    assert done.found == done.found_of
    assert done.alarmed <= 2
