"""kill -9 in the middle of streams loses nothing that a client received."""

from pathlib import Path

import msgspec
from gateway_crash import TEXT, kill_rounds

from safehold.testing.upstream import MockUpstream, says


def test_kill_9_twenty_times_loses_no_delivered_character(tmp_path: Path) -> None:
    """After each kill and restart, all that clients received is in the ledger."""
    script = msgspec.structs.replace(says(TEXT, size=9), delay_s=0.0005)
    with MockUpstream(script) as upstream:
        streams, spoken = kill_rounds(upstream, tmp_path, rounds=20, seed=7)
    assert streams >= 20
    assert spoken >= 10
