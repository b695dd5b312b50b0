"""Long runs of the gateway; `make soak`, not `make test`."""

import sys
from pathlib import Path

import msgspec
import pytest

from safehold.testing.upstream import MockUpstream, says

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_crash import TEXT, kill_rounds

pytestmark = pytest.mark.soak


def test_kill_9_two_hundred_times_loses_no_delivered_character(tmp_path: Path) -> None:
    """After each of 200 kills and restarts, all that clients received is in the ledger."""
    script = msgspec.structs.replace(says(TEXT, size=9), delay_s=0.0005)
    with MockUpstream(script) as upstream:
        streams, spoken = kill_rounds(upstream, tmp_path, rounds=200, seed=11)
    print(f"{streams} streams cut, {spoken} of them with text delivered")  # noqa: T201
    assert spoken >= 100
