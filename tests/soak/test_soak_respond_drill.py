"""The drill by its own clock: found, in shadow, acting, replaced and verified on this machine."""

from pathlib import Path

import pytest

from safehold.cli._respond_drill import run_drill

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
