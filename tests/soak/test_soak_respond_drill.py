"""The drills by their own clock: found, acting, replaced and verified on this machine."""

from pathlib import Path

import pytest

from safehold.cli._respond_drill import run_drill
from safehold.cli._respond_false_alarm import run_false_alarm_drill

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("short", [True])
def test_the_drill_keeps_its_clock(tmp_path: Path, *, short: bool) -> None:
    """A rule in shadow within 30 s, acting within 5 minutes, a new bundle within half an hour."""
    lines: list[str] = []
    found = run_drill(tmp_path / "drill", short=short, say=lines.append)
    clock = {mark.what: mark.seconds for mark in found.marks}
    assert clock["rule in shadow"] <= 30
    assert clock["rule acts"] <= 300
    assert found.verified, "\n".join(lines)
    assert clock["verified"] <= 1_800
    assert found.champion != found.challenger


def test_an_appeal_ends_with_a_bundle_that_answers_the_prompt(tmp_path: Path) -> None:
    """By the decision's id alone; through the same gates, and restricted twins stay stopped."""
    lines: list[str] = []
    found = run_false_alarm_drill(tmp_path / "drill", short=True, say=lines.append)
    assert found.verified, "\n".join(lines)
    clock = {mark.what: mark.seconds for mark in found.marks}
    assert list(clock) == ["appealed", "opened", "retrained", "gates", "replaced", "verified"]
    assert clock["verified"] <= 1_800
