"""Shapes and quotas as the watch sees them."""

from pathlib import Path

import pytest

from safehold.errors import EgressError
from safehold.secure.egress.attribution import Owner, SocketUse
from safehold.secure.egress.ledger import START, ExplainedRow
from safehold.secure.egress.response import Ladder, Level, Signals, decide
from safehold.secure.egress.shape_watch import (
    ShapeState,
    follow_names,
    load_limits,
    observe,
    scores,
    shape_alarms,
)
from safehold.secure.egress.tokens import TokenLedger, load_quotas
from safehold.testing.egress import register, row

FLOWS = register(row("metrics", port=4317)).flows


def test_clockwork_pusher_is_odd() -> None:
    """A contact each minute that only sends is over the limits of a beacon and of the ratio."""
    state = ShapeState()
    for number in range(40):
        use = SocketUse("10.231.7.2", 4317, 40_000 + number, 0, 900, 10, Owner(number))
        state = observe(state, FLOWS, [use], 1000.0 + 60 * number)
    found = scores(state)
    assert found["pcr:metrics"] > 0.9
    assert set(shape_alarms(found, {"beacon": 0.9, "pcr": 0.5})) == {
        "beacon:metrics",
        "pcr:metrics",
    }


def test_tunnel_in_the_query_log_is_odd_and_a_bad_line_is_one_error(tmp_path: Path) -> None:
    """Names are read once, and what is no question is refused."""
    log = tmp_path / "q.jsonl"
    log.write_text(
        "".join(f'{{"time":9,"name":"{n * 7919:x}q{n}.evil.test"}}\n' for n in range(99))
    )
    state = follow_names(ShapeState(), log, 10.0)
    state = follow_names(state, log, 10.0)
    assert len(state.questions) == 99
    assert "dns:evil.test" in shape_alarms(scores(state), {"dns": 100})
    log.write_text(log.read_text() + "nonsense\n")
    with pytest.raises(EgressError):
        follow_names(state, log, 10.0)


def test_tenant_is_over_by_the_sum_of_its_keys(tmp_path: Path) -> None:
    """Two keys below the quota, and the account that holds both over it."""
    (tmp_path / "q.toml").write_text(
        "[default.size]\nday = 1000\n[default.tokens]\nday = 100\n[named.big.size]\nday = 9000\n"
        "[named.big.tokens]\nday = 900\n"
    )
    quotas = load_quotas(tmp_path / "q.toml")
    ledger = TokenLedger()
    for account in ("small/a", "small/b", "big/a", "big/b"):
        ledger = ledger.add(
            ExplainedRow("g", "replies", 0, START, 1, 1, 600, 1, "0", account=account, tokens=9)
        )
    assert ledger.over(quotas.named, quotas.default, 2.0) == ["small"]


def test_odd_name_warns_once_until_it_is_over() -> None:
    """An account over its quota is told of once, and again after it was under it."""
    odd = Signals(now=1, line=10, odd={"account:a": "over"})
    ladder, first = decide(Ladder(), odd)
    ladder, second = decide(ladder, odd)
    ladder, _ = decide(ladder, Signals(now=2, line=10))
    _, again = decide(ladder, odd)
    assert [step.level for step in first] == [Level.WARN]
    assert second == ()
    assert len(again) == 1


def test_malformed_limits_and_quotas_are_one_error(tmp_path: Path) -> None:
    """What is no limit and no quota is refused."""
    (tmp_path / "x").write_text('{"pcr":"much"}')
    for load in (load_limits, load_quotas):
        with pytest.raises(EgressError):
            load(tmp_path / "x")
