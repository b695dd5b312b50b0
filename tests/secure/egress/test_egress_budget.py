"""The compiler's arithmetic: worst cases, refusals and the flows to cut."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.egress.bounds.budget import (
    flow_leak,
    flows_to_cut,
    prove,
    residual_line,
    time_to_reach,
    total_leak,
)
from safehold.secure.egress.bounds.odometer import FlowOdometer
from safehold.secure.egress.declare.plan import Bound, Link, load_plan
from safehold.secure.egress.interface import BudgetError, RegisterError, Window
from safehold.testing.egress import plan, register, row

GB = 10**9
GOOD = """version = 1
[weights]
size = 5
[link]
interfaces = ["a"]
rate = 1
"""


def rec(name: str, hour: int, port: int) -> str:
    """A reconciled row."""
    return row(name, hour=hour, port=port).replace("purpose =", "reconciled = true\npurpose =")


def test_small_register_keeps_the_bound() -> None:
    """A few megabytes an hour can't carry a terabyte's essence away in 30 days."""
    flows = register(row(hour=1_000_000)).flows
    proof = prove(flows, plan())
    assert proof.honest_steal_days >= 30
    assert proof.honest_incident_leak <= proof.incident_bytes
    assert proof.stolen_bytes == 62_500_000_000


def test_register_that_breaks_the_bound_is_refused_by_name() -> None:
    """The refusal names the flow that must go, and not the small one."""
    flows = register(row("bulk", hour=20 * GB), row("tiny", hour=1_000, port=9000)).flows
    with pytest.raises(BudgetError, match="bulk") as caught:
        prove(flows, plan())
    assert "tiny" not in str(caught.value)
    assert flows_to_cut(flows, plan()) == ("bulk",)


@given(st.lists(st.tuples(st.integers(1_000, 12 * GB), st.booleans()), min_size=1, max_size=12))
def test_the_fewest_largest_flows_are_named(rows: list[tuple[int, bool]]) -> None:
    """One flow less cut breaks the bound; what is left keeps it, or nothing is left."""
    made = (rec if known else small for _, known in rows)
    text = [one(f"f{n}", rows[n][0], 9000 + n) for n, one in enumerate(made)]
    flows, limits = register(*text).flows, plan()
    cut = flows_to_cut(flows, limits)
    left = [flow for flow in flows if flow.id not in cut]
    assert not left or residual_line(left, limits) > 0
    if cut:
        kept = [flow for flow in flows if flow.id not in cut[:-1]]
        assert residual_line(kept, limits) <= 0


def small(name: str, hour: int, port: int) -> str:
    """A row that nobody reconciles."""
    return row(name, hour=hour, port=port)


def test_reconciled_flow_needs_no_small_budget() -> None:
    """A flow whose bytes are explained may be large: only its lag and the line count."""
    flows = register(rec("replies", 10 * GB, 8443)).flows
    shaped = plan(link=Link(interfaces=("up0",), rate_bit_s=100_000_000))
    proof = prove(flows, shaped)
    assert 0 < proof.residual_line < proof.incident_bytes
    assert proof.owned_incident_leak > proof.incident_bytes


def test_distrusting_senders_makes_reconciliation_worthless() -> None:
    """When the plan says that senders may be the thief, the large flow is refused."""
    flows = register(rec("replies", 10 * GB, 8443)).flows
    with pytest.raises(BudgetError, match="replies"):
        prove(flows, plan(trust_senders=False))


def test_no_live_flow_is_refused() -> None:
    """An empty register compiles to nothing."""
    with pytest.raises(BudgetError, match="no live flow"):
        prove((), plan())


def test_rate_for_thirty_days_agrees_with_the_published_table() -> None:
    """1 TB at c = 1 over 30 days is 33 GB a day; 810 GB at 1 Gbit/s is 108 minutes."""
    link = Link(interfaces=("up0",), rate_bit_s=10**9, burst_bytes=0)
    free = plan(bound=Bound(weight_bytes=810 * GB, compression=1.0), link=link)
    flows = register(row("bulk", hour=10**15)).flows
    seconds = time_to_reach(lambda s: total_leak(flows, free, s), 810 * GB)
    assert seconds / 60 == pytest.approx(108, abs=1)
    assert pytest.approx(33.3 * GB, rel=0.01) == 10**12 / 30


@given(
    hour=st.integers(1_000, 10**10),
    seconds=st.floats(1, 10**7),
    more=st.floats(0, 10**6),
)
def test_leak_grows_with_time_and_keeps_every_window(
    hour: int, seconds: float, more: float
) -> None:
    """The worst case never falls with time and never exceeds ceil(H / W) budgets."""
    flow = register(row(hour=hour)).flows[0]
    leak = flow_leak(flow, plan(), seconds)
    assert leak <= flow_leak(flow, plan(), seconds + more)
    for window, limit in flow.budget.items():
        assert leak <= math.ceil(seconds / window.seconds) * (limit + 65_536)


@given(
    steps=st.lists(st.tuples(st.floats(0, 20_000), st.integers(0, 10_000)), min_size=1, max_size=60)
)
def test_no_interval_carries_more_than_its_window(steps: list[tuple[float, int]]) -> None:
    """A sender that always takes all that remains never exceeds the budget in any interval."""
    budget = {Window.HOUR: 5_000, Window.DAY: 20_000}
    account, now, sent = FlowOdometer(), 0.0, []
    raw = 0
    for gap, wish in steps:
        now += gap
        take = min(wish, *account.remaining(budget, now).values())
        raw += take
        account = account.advance(raw, 0, now)
        sent.append((now, take))
    for window, limit in budget.items():
        for begin, _ in sent:
            inside = sum(size for at, size in sent if begin <= at < begin + window.seconds)
            assert inside <= limit


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
def test_counters_that_run_backwards_never_lower_the_odometer(raws: list[int]) -> None:
    """A wrapped or reset kernel counter adds bytes, it never takes any back."""
    account, before = FlowOdometer(), 0
    for second, raw in enumerate(raws):
        account = account.advance(raw, 0, float(second))
        assert account.passed >= before
        before = account.passed


def test_odometer_stays_small_for_a_year() -> None:
    """A tick every ten seconds for weeks leaves a bounded history."""
    account, now = FlowOdometer(), 0.0
    for number in range(5_000):
        now += 700.0
        account = account.advance(number, 0, now)
    assert len(account.samples) < 1_300
    assert account.within(3600, now) >= 5


def test_line_is_negative_when_the_lag_alone_breaks_the_bound() -> None:
    """A fast unshaped link leaks more within the accounting lag than alpha allows."""
    flows = register(rec("replies", 10**13, 8443)).flows
    fast = plan(link=Link(interfaces=("up0",), rate_bit_s=10**12))
    assert residual_line(flows, fast) < 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1",
        'version = 1\n[weights]\nsize = "1 TB"\n',
        'version = 1\n[weights]\nsize = "1 TB"\n[link]\ninterfaces = []\nrate = "1 Gbit/s"\n',
        'version = 1\n[weights]\nsize = "1 TB"\n[link]\ninterfaces = ["a b"]\nrate = "1 Gbit/s"\n',
        'version = 1\n[weights]\n[link]\ninterfaces = ["a"]\nrate = "1 Gbit/s"\n',
        'version = 1\n[weights]\nsize = 5\n[link]\ninterfaces = ["a"]\nrate = 1\nx = 1\n',
        GOOD + "[bound]\ncompression = 0.0\n",
        GOOD + "[bound]\nalpha = nan\n",
        GOOD + "[bound]\nsteal_days = inf\n",
        GOOD + "[bound]\ndetect_hours = -1\n",
    ],
)
def test_malformed_plan_is_refused(text: str, tmp_path: Path) -> None:
    """A plan that is wrong anywhere is one error."""
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises((BudgetError, RegisterError)):
        load_plan(path)


def test_good_plan_is_read(tmp_path: Path) -> None:
    """The text that the malformed ones are made from is a plan."""
    path = tmp_path / "plan.toml"
    path.write_text(GOOD)
    assert load_plan(path).bound.weight_bytes == 5
