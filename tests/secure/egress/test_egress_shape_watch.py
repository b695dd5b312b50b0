"""Shapes and quotas as the watch sees them."""

from pathlib import Path

import pytest

from safehold.errors import EgressError
from safehold.secure.egress.explain.ledger import START, ExplainedRow
from safehold.secure.egress.explain.tokens import TokenLedger, load_quotas
from safehold.secure.egress.kernel.attribution import Owner, SocketUse
from safehold.secure.egress.watch.response import Ladder, Rung, Signals, decide
from safehold.secure.egress.watch.shape_watch import (
    ShapeState,
    follow_names,
    load_limits,
    log_trouble,
    observe,
    scores,
    shape_alarms,
)
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


def question(number: int, at: float = 9) -> str:
    """A line of the query log whose name carries something."""
    return f'{{"time":{at},"name":"{number * 7919:x}q{number}.evil.test"}}\n'


def test_tunnel_in_the_query_log_is_odd(tmp_path: Path) -> None:
    """Names are read once, and many that carry data to one domain are over the limit."""
    log = tmp_path / "q.jsonl"
    log.write_text("".join(map(question, range(99))))
    state = follow_names(ShapeState(), log, 10.0)
    state = follow_names(state, log, 10.0)
    assert len(state.questions) == 99
    assert "dns:evil.test" in shape_alarms(scores(state), {"dns": 100})
    assert log_trouble(state, 10.0) == {}


@pytest.mark.parametrize(
    "bad", [b"nonsense", b'{"time":9}', b'{"time":"x","name":"a"}', b"\xff\xfe", b"[" * 5000]
)
def test_bad_line_of_the_query_log_is_counted_and_skipped(tmp_path: Path, bad: bytes) -> None:
    """The lines on both sides of it are read all the same, and it is told of for an hour."""
    log = tmp_path / "q.jsonl"
    log.write_bytes(question(1).encode() + bad + b"\n" + question(2).encode())
    state = follow_names(ShapeState(), log, 10.0)
    assert (len(state.questions), state.skipped) == (2, 1)
    assert "1 skipped" in log_trouble(state, 10.0)["dns:log"]
    assert log_trouble(state, 4_000.0) == {}


def test_line_of_the_future_does_not_stay_for_ever(tmp_path: Path) -> None:
    """A question of next year would push the real ones out of the window."""
    log = tmp_path / "q.jsonl"
    log.write_text(question(1, at=1e9))
    state = follow_names(ShapeState(), log, 10.0)
    assert (len(state.questions), state.skipped) == (0, 1)


def test_line_without_end_does_not_hide_what_follows(tmp_path: Path) -> None:
    """A line longer than one read is skipped in pieces; the line after it is read."""
    log = tmp_path / "q.jsonl"
    log.write_bytes(b"x" * (16 * 2**20 + 5) + b"\n" + question(1).encode())
    state = follow_names(ShapeState(), log, 10.0)
    state = follow_names(state, log, 10.0)
    assert (len(state.questions), state.skipped) == (1, 2)


def test_rotated_log_is_tried_again(tmp_path: Path) -> None:
    """A log that is away for a moment is told of; the new one is read from its start."""
    log = tmp_path / "q.jsonl"
    log.write_text(question(1) + question(2))
    state = follow_names(ShapeState(), log, 10.0)
    log.unlink()
    state = follow_names(state, log, 11.0)
    assert log_trouble(state, 11.0)
    log.write_text(question(3))
    assert len(follow_names(state, log, 12.0).questions) == 3


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
    assert [step.level for step in first] == [Rung.WARN]
    assert second == ()
    assert len(again) == 1


def test_malformed_limits_and_quotas_are_one_error(tmp_path: Path) -> None:
    """What is no limit and no quota is refused."""
    (tmp_path / "x").write_text('{"pcr":"much"}')
    for load in (load_limits, load_quotas):
        with pytest.raises(EgressError):
            load(tmp_path / "x")
