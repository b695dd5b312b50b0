"""Caps of one's own honest accounts: exact, monotone, kept, and apart for exempt traffic."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from safehold.detect.monitoring.account_book import EXEMPT
from safehold.detect.monitoring.accounts import (
    AccountState,
    Caps,
    DayScores,
    conformal_line,
    fit_caps,
    labels,
)
from safehold.detect.monitoring.fitted import LEAST_ACCOUNTS, caps_of, fit, fitted
from safehold.detect.monitoring.tables import ACCOUNTS, MonitorStore
from safehold.errors import DataError
from safehold.testing.ledger import NOW

_DAYS = st.builds(DayScores, asked=st.floats(0, 1), got=st.floats(0, 1))
_STATES = st.builds(
    lambda of, blocked, walked, chain, days: AccountState(
        queries=of,
        blocked=int(blocked * of),
        walked=int(walked * blocked * of),
        windows=of,
        days=tuple(days),
        lineage=chain,
    ),
    st.integers(50, 500),
    st.floats(0, 0.5),
    st.floats(0, 1),
    st.integers(0, 40),
    st.lists(_DAYS, max_size=5),
)


def _keep(store: MonitorStore, states: dict[str, AccountState]) -> None:
    rows = [
        {"account": name, "seen": 1, "state": msgspec.json.encode(state).decode()}
        for name, state in states.items()
    ]
    with store.begin() as connection:
        connection.execute(insert(ACCOUNTS), rows)


def _honest(count: int, suffix: str = "", blocked: int = 1) -> dict[str, AccountState]:
    state = AccountState(queries=100, blocked=blocked, windows=80)
    return {f"h{n}{suffix}": state for n in range(count)}


@given(st.lists(_STATES, min_size=1, max_size=40), _STATES)
def test_an_honest_account_more_never_tightens_a_rate(
    states: list[AccountState], more: AccountState
) -> None:
    """Rates and chain are greatest ones, so a further account can only widen them."""
    before, after = fit_caps(states), fit_caps([*states, more])
    assert after.block >= before.block
    assert after.walk >= before.walk
    assert after.lineage >= before.lineage


@given(st.lists(_STATES, min_size=1, max_size=40))
def test_no_account_that_was_fitted_on_is_labelled_for_its_rates(
    states: list[AccountState],
) -> None:
    """Whatever the honest accounts did, the caps fit them as long as no rate passes the ceiling."""
    caps = fit_caps(states)
    for state in states:
        found = {one.label for one in labels(state, caps)}
        assert "long-lineage" not in found
        assert "blocked-often" not in found
        if state.walked / state.queries <= 0.6:
            assert "search-walk" not in found


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.01, 0.5))
def test_the_line_is_passed_by_at_most_its_share(highest: list[float], share: float) -> None:
    """Of the accounts themselves too; with too few of them nothing passes."""
    line = conformal_line(highest, share=share)
    over = sum(one > line for one in highest)
    assert over <= share * (len(highest) + 1)
    assert conformal_line([*highest, 1.0], share=share) >= line or line == 1.0


def test_a_further_account_passes_the_line_with_its_probability() -> None:
    """5 % of 4,000 fits of 39 accounts are passed by a fortieth, whatever the law of the scores."""
    chance, passed, runs = np.random.default_rng(6), 0, 4_000
    for _ in range(runs):
        *known, new = chance.beta(0.3, 4, 40)
        passed += new > conformal_line(known, share=0.05)
    assert 0.035 <= passed / runs <= 0.065


def test_days_below_the_line_are_no_events_and_a_new_fit_says_so() -> None:
    """Hot days of honest look-alikes raise the line, not the rate that an account may have."""
    hot = tuple(DayScores(asked=0.7) for _ in range(5))
    states = [AccountState(queries=100, windows=100, days=hot, split=5) for _ in range(40)]
    caps = fit_caps(states)
    assert (caps.asked, caps.got, caps.workflow) == (0.7, 0.0, 0.01)
    assert not DayScores(asked=0.7).event(caps)
    assert DayScores(asked=0.71).event(caps)
    assert DayScores(got=0.01).event(caps)


def test_fitted_caps_are_kept_and_fitted_anew(tmp_path: Path) -> None:
    """What is read is what was written; the newest fit is in force."""
    store = MonitorStore.open(str(tmp_path / "m.db"))
    assert caps_of(store) == (Caps(), None)
    _keep(store, _honest(LEAST_ACCOUNTS, blocked=40))
    found = fit(store, _honest(LEAST_ACCOUNTS), now=NOW)
    assert found == fitted(store)
    assert caps_of(store) == (found["accounts"].caps, None)
    assert found["accounts"].caps.block == 0.4
    with store.begin() as connection:
        connection.execute(ACCOUNTS.delete())
    _keep(store, _honest(LEAST_ACCOUNTS, blocked=10))
    fit(store, _honest(LEAST_ACCOUNTS), now=NOW + 1)
    assert caps_of(store)[0].block == 0.1
    assert fitted(store)["accounts"].fitted_at == NOW + 1


def test_exempt_traffic_has_caps_of_its_own(tmp_path: Path) -> None:
    """Fitted from the exempt halves alone, and only where there are enough."""
    store = MonitorStore.open(str(tmp_path / "m.db"))
    _keep(store, _honest(LEAST_ACCOUNTS))
    _keep(store, _honest(LEAST_ACCOUNTS, EXEMPT, blocked=30))
    found = fit(store, set(_honest(LEAST_ACCOUNTS)), now=NOW)
    assert (found["accounts"].caps.block, found["exempt"].caps.block) == (0.02, 0.3)


@pytest.mark.parametrize("known", [0, LEAST_ACCOUNTS - 1])
def test_too_few_accounts_fit_nothing(known: int, tmp_path: Path) -> None:
    """The error says how many came, and nothing is kept; unknown and quiet names do not count."""
    store = MonitorStore.open(str(tmp_path / "m.db"))
    _keep(store, {**_honest(known), "quiet": AccountState(queries=49)})
    with pytest.raises(DataError, match=f"came {known}"):
        fit(store, {*_honest(known), "quiet", "nobody"}, now=NOW)
    assert fitted(store) == {}


def test_caps_of_an_earlier_release_are_still_read() -> None:
    """Caps that were fitted before there were lines get the default ones."""
    old = b'{"block":0.2,"walk":0.1,"workflow":0.02,"lineage":30,"alpha":0.0001}'
    found = msgspec.json.decode(old, type=Caps)
    assert (found.asked, found.got) == (Caps().asked, Caps().got)
