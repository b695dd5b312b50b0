"""Long runs of the gateway; `make soak`, not `make test`."""

import json
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from safehold.testing.guards import MARKER
from safehold.testing.upstream import MockUpstream, says

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_crash import TEXT, kill_rounds
from gateway_process import ask, get, metric, served
from gateway_wire import PATHS, body_for

pytestmark = pytest.mark.soak
ROUNDS = 20
EXCHANGES = 600
GROWTH_MB = 12


def test_kill_9_two_hundred_times_loses_no_delivered_character(tmp_path: Path) -> None:
    """After each of 200 kills and restarts, all that clients received is in the ledger."""
    script = msgspec.structs.replace(says(TEXT, size=9), delay_s=0.0005)
    with MockUpstream(script) as upstream:
        streams, spoken = kill_rounds(upstream, tmp_path, rounds=200, seed=11)
    print(f"{streams} streams cut, {spoken} of them with text delivered")  # noqa: T201
    assert spoken >= 100


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Twelve thousand exchanges of all protocols, a third of them refused or broken: no growth."""
    bodies = [
        (path, body_for(path, text, stream=stream))
        for path in PATHS
        for text in ("hi", "hi " * 400, MARKER)
        for stream in (True, False)
    ]
    with MockUpstream(says("Harmless words. " * 20, size=5)) as upstream:
        upstream.keep = False
        with served(tmp_path, upstream.url) as at, ThreadPoolExecutor(8) as pool:
            seen = []
            for _ in range(ROUNDS):
                asked = [bodies[number % len(bodies)] for number in range(EXCHANGES)]
                answers = set(pool.map(lambda one: ask(at.port, *one), asked))
                assert answers == {200}
                assert ask(at.port, PATHS[0], {"model": "m"}) == 400
                seen.append(round(resident_mb(at.process.pid)))
            assert metric(at.port, "safehold_coverage_gaps_total") == 0
            assert b"safehold_open_exchanges 0.0" in get(at.port, "/metrics")
    print(json.dumps({"exchanges": ROUNDS * EXCHANGES, "mb_by_round": seen}))  # noqa: T201
    assert seen[-1] - seen[ROUNDS // 4] <= GROWTH_MB
