"""The map of flows, the next smaller budget, and the time to steal, from a timeline."""

import datetime as dt
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from safehold.cli.egress import egress
from safehold.errors import EgressError
from safehold.secure.egress.bounds.tighten import tighten, tightened
from safehold.secure.egress.enforcement.loosening import documents, looser
from safehold.secure.egress.interface import Direction, Tuple5, Window
from safehold.secure.egress.watch.flow_map import flow_map, steal_months
from safehold.secure.egress.watch.observe_flows import SeenFlow
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.testing.egress import TODAY, plan, register, row

START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC).timestamp()
HOUR = 3_600.0


def timeline(hours: int, name: str = "replies", *, mean: float = 1e6) -> list[TimelineRow]:
    """Hourly looks at a flow that sends about as much each hour."""
    rng = np.random.default_rng(3)
    passed = np.concatenate([[0], np.cumsum(rng.gamma(8, mean / 8, hours))])
    budgets = {name: {"hour": 10**8, "day": 10**9, "week": 10**10, "month": 10**11}}
    return [
        TimelineRow(START + HOUR * n, {name: int(size)}, {}, {}, 10 * n, 1, budgets)
        for n, size in enumerate(passed)
    ]


def big() -> str:
    """A row with budgets far above its use."""
    return row(hour=10**8, day=10**9)


def test_map_names_owner_use_and_the_week_before() -> None:
    """Two weeks of a steady flow: the same bytes a day in both, and no note."""
    found = flow_map(register(big()), timeline(14 * 24), [], TODAY)
    (flow,) = found.flows
    assert (flow.owner, flow.data_class, flow.notes) == ("serving team", "model-output", ())
    assert flow.bytes_a_day == pytest.approx(24e6, rel=0.1)
    assert flow.week_before == pytest.approx(24e6, rel=0.1)
    assert flow.of_budget == pytest.approx(0.024, rel=0.1)


def test_map_names_what_needs_somebody() -> None:
    """Unowned, unused, expired and undeclared flows each get their line."""
    rows = (
        big(),
        row("idle", port=9000),
        row("nobody", port=9001).replace("serving team", "FILL IN"),
        row("old", port=9002).replace("2099-01-01", "2026-01-01"),
    )
    seen = [SeenFlow(Tuple5("tcp", "192.0.2.9", 4444, Direction.OUT, uid=7), 5_000, 5)]
    said = " ".join(flow_map(register(*rows), timeline(14 * 24), seen, TODAY).attention)
    for word in ("idle: unused", "nobody: unowned", "old: expired", "undeclared: "):
        assert word in said
    assert "replies" not in said


def test_proposal_is_smaller_never_below_use_and_a_pure_tightening() -> None:
    """Each window's next budget is above all that was seen, below today's, and needs no grant."""
    flows = register(big())
    watched = timeline(30 * 24)
    times = [r.time for r in watched]
    proposals = tighten(flows.flows[0], times, [r.passed["replies"] for r in watched])
    for one in proposals:
        assert one.most <= one.proposed < one.now
        assert one.risk <= 0.0101
    sizes = [one.proposed for one in proposals]
    assert sizes == sorted(sizes)
    hour = proposals[0]
    assert (hour.window, hour.windows) == (Window.HOUR, 720)
    assert hour.bound == pytest.approx(1 - 0.05 ** (1 / 720))
    after = msgspec.structs.replace(flows, flows=(tightened(flows.flows[0], proposals),))
    before, now = (documents(r, plan(), {}) for r in (flows, after))
    assert looser(before, now) == ()
    assert looser(now, before)


def test_told_risk_is_about_the_true_one() -> None:
    """Months like the one that was seen exceed the proposed hour about as often as told."""
    rng = np.random.default_rng(9)
    flow = register(big()).flows[0]
    wrong = months = 0
    for _ in range(20):
        use = rng.gamma(8, 1e6 / 8, 60 * 24)
        times = (START + HOUR * np.arange(len(use) + 1)).tolist()
        passed = [0, *np.cumsum(use).astype(int).tolist()]
        limit = tighten(flow, times, passed, risk=0.1)[0].proposed
        later = rng.gamma(8, 1e6 / 8, (50, 720)).max(axis=1)
        wrong += int((later > limit).sum())
        months += len(later)
    assert 0.005 <= wrong / months <= 0.25


def test_smaller_budgets_take_a_thief_longer() -> None:
    """The time to steal is told by month, from the budgets that were in force then."""
    rows = timeline(24)
    later = {"replies": {"hour": 10**6, "day": 10**7, "week": 10**8, "month": 10**8}}
    again = [
        msgspec.structs.replace(one, time=one.time + 31 * 86_400, budgets=later) for one in rows
    ]
    first, second = steal_months([*rows, *again], register(big()).flows, plan())
    assert (first.month, second.month) == ("2026-11", "2026-12")
    assert second.owned_days > first.owned_days


def test_too_little_to_learn_from_is_refused() -> None:
    """One reading is no use, and a risk is a risk."""
    flow = register(big()).flows[0]
    with pytest.raises(EgressError, match="two readings"):
        tighten(flow, [1.0], [0])
    with pytest.raises(EgressError, match="risk"):
        tighten(flow, [1.0, 2.0], [0, 1], risk=1.0)
    for one in tighten(flow, [START, START + HOUR], [0, 10]):
        assert one.proposed == one.now


def test_map_and_tighten_from_the_command_line(tmp_path: Path) -> None:
    """Both commands, for people and for machines."""
    (tmp_path / "egress.toml").write_text("version = 1\n" + big())
    (tmp_path / "plan.toml").write_text(
        'version = 1\n[weights]\nsize = "1 TB"\n[link]\ninterfaces = ["up0"]\nrate = "1 Gbit/s"\n'
    )
    rows = tmp_path / "timeline.jsonl"
    rows.write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in timeline(15 * 24)))
    where = [str(rows), "--register", str(tmp_path / "egress.toml")]
    where += ["--plan", str(tmp_path / "plan.toml")]
    run = CliRunner().invoke
    said = run(egress, ["map", *where])
    assert said.exit_code == 0, said.output
    assert "serving team" in said.output
    assert "time to steal" in said.output
    found = json.loads(run(egress, ["map", *where, "--json"]).output)
    assert found["map"]["flows"][0]["id"] == "replies"
    said = run(egress, ["tighten", *where])
    assert said.exit_code == 0, said.output
    assert "budget = { hour = " in said.output
    assert "proposed" in said.output
    found = json.loads(run(egress, ["tighten", *where, "--json"]).output)
    assert found["steal"][-1]["owned_days"] >= found["steal"][0]["owned_days"]
