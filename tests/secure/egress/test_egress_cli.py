"""The commands, right and wrong, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safehold.testing.egress import World, row

PLAN = """version = 1
[weights]
size = "1 TB"
[link]
interfaces = ["up0"]
rate = "100 Mbit/s"
"""


def safehold(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "safehold", "egress", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_example_is_a_plan_that_holds(tmp_path: Path) -> None:
    """What `init` writes passes `plan`, compiles, and is not overwritten."""
    assert safehold("init", cwd=tmp_path).returncode == 0
    proof = json.loads(safehold("plan", "--json", cwd=tmp_path).stdout)
    assert proof["honest_steal_days"] >= 30
    assert safehold("compile", "--out", "out", cwd=tmp_path).returncode == 0
    rules = json.loads((tmp_path / "out" / "rules.nft.json").read_text())
    assert "limit" not in {key for c in rules["nftables"] for key in str(c).split("'")}
    assert safehold("init", cwd=tmp_path).returncode == 2


def test_register_that_breaks_the_bound_is_one_line(tmp_path: Path) -> None:
    """A refused plan names the flow, exits with 6 and shows no traceback."""
    (tmp_path / "egress.toml").write_text("version = 1\n" + row("bulk", hour=10**11))
    (tmp_path / "egress-plan.toml").write_text(PLAN)
    done = safehold("plan", cwd=tmp_path)
    assert done.returncode == 6
    assert "bulk" in done.stderr
    assert done.stderr.count("\n") == 1


def test_explain_says_which_row(tmp_path: Path) -> None:
    """A packet is explained by its row, or is undeclared."""
    safehold("init", cwd=tmp_path)
    yes = safehold("explain", "tcp", "192.0.2.10", "4317", "--user", "otel", cwd=tmp_path)
    no = safehold("explain", "tcp", "192.0.2.11", "4317", "--user", "otel", cwd=tmp_path)
    assert "metrics" in yes.stdout
    assert "no live row" in no.stdout
    assert safehold("explain", "tcp", "example.org", cwd=tmp_path).returncode == 2


def test_detectors_of_another_kind_of_steps_are_refused(tmp_path: Path) -> None:
    """Levels that were set for other steps would alarm too often or never: calibrate anew."""
    safehold("init", cwd=tmp_path)
    baseline = {
        "bin_s": 3600,
        "mean": [1.0],
        "scale": 1.0,
        "power": 1.0,
        "phi": 0.0,
        "trained": 48,
        "residuals": [],
    }
    levels = {"cusum": 9.0, "scan": 5.0, "design": 0.08, "alarms_per_year": 1.0}
    (tmp_path / "old.json").write_text(
        json.dumps({"replies": {"baseline": baseline, "thresholds": levels}})
    )
    done = safehold("run", "--detectors", "old.json", "--state", "s", cwd=tmp_path)
    assert done.returncode == 2
    assert "run `safehold egress baseline` again" in done.stderr


def test_apply_status_block_run_and_timeline(world: World, tmp_path: Path) -> None:
    """The way of a user through a namespace: apply, look, watch, block, draw."""
    (tmp_path / "egress.toml").write_text(
        "version = 1\n" + row("bulk", protocol="udp", port=9000, hour=1_000_000)
    )
    (tmp_path / "egress-plan.toml").write_text(PLAN)
    here = ["--state", "state", "--netns", world.pair.inside]
    assert safehold("apply", *here, cwd=tmp_path).returncode == 6
    assert safehold("apply", "--first", *here, cwd=tmp_path).returncode == 0
    world.send("udp", 100_000, port=9000)
    status = json.loads(safehold("status", "--json", *here, cwd=tmp_path).stdout)
    assert status["passed"]["bulk"] > 100_000
    more = ["--ticks", "2", "--interval", "0.2", "--metrics", "m.prom"]
    assert safehold("run", *more, *here, cwd=tmp_path).returncode == 0
    assert 'flow="bulk"' in (tmp_path / "m.prom").read_text()
    drawn = ["timeline", "state/timeline.jsonl", "--plan", "egress-plan.toml", "--out", "t.html"]
    assert safehold(*drawn, cwd=tmp_path).returncode == 0
    assert safehold("block", "bulk", "--reason", "test", *here, cwd=tmp_path).returncode == 0
    shown = safehold("status", *here, cwd=tmp_path).stdout
    assert "blocked: bulk (`safehold egress release bulk`, with a grant)" in shown
    closed = json.loads(safehold("status", "--json", *here, cwd=tmp_path).stdout)
    assert (closed["blocked"], closed["sealed"], closed["cut"]) == (["bulk"], False, [])
    refused = safehold("release", "bulk", "--reason", "test", *here, cwd=tmp_path)
    assert refused.returncode == 5
    assert "two-party" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "--runs", "1"),
        ("simulate", "--register", "missing.toml"),
        ("timeline", "missing.jsonl", "--plan", "x", "--out", "y"),
        ("block", "bulk"),
        ("nonsense",),
    ],
)
def test_wrong_use_is_exit_two(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A mistyped command says so."""
    assert safehold(*arguments, cwd=tmp_path).returncode == 2
