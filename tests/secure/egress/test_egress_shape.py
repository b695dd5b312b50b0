"""Beacons, tunnels and pushers have a shape; honest traffic mostly has not."""

import hashlib
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from safehold.errors import EgressError
from safehold.secure.egress.detectors.shape import (
    beacon_score,
    limit_for,
    name_stats,
    producer_consumer_ratio,
    suspicious_names,
)


def test_ratio_of_pushers_and_pullers() -> None:
    """All sent is 1, all received is -1, nothing is 0."""
    assert producer_consumer_ratio(10, 0) == 1
    assert producer_consumer_ratio(0, 10) == -1
    assert producer_consumer_ratio(70, 30) == pytest.approx(0.4)
    assert producer_consumer_ratio(0, 0) == 0
    with pytest.raises(EgressError):
        producer_consumer_ratio(-1, 0)


def test_clock_is_a_beacon_and_a_person_is_not() -> None:
    """A contact each minute with jitter scores high, a Poisson visitor low."""
    rng = np.random.default_rng(2)
    clock = np.arange(200) * 60 + rng.normal(0, 2, 200)
    person = np.cumsum(rng.exponential(60, 200))
    regular = beacon_score(clock.tolist(), [500] * 200)
    random = beacon_score(person.tolist(), rng.integers(200, 90_000, 200).tolist())
    assert regular > 0.9
    assert random < 0.7
    assert beacon_score([1, 2], [1, 1]) == 0


def tunnel(count: int) -> list[str]:
    """Names that carry synthetic bytes."""
    return [
        f"{hashlib.sha256(str(number).encode()).hexdigest()[:60]}.t.example"
        for number in range(count)
    ]


def test_tunnel_stands_out_of_popular_names() -> None:
    """Many different names below one domain are a tunnel, many questions for one are not."""
    honest = [f"www{n % 3}.site{n % 50}.test" for n in range(5_000)]
    stats = name_stats([*honest, *tunnel(200)])
    scores = [item.score for name, item in stats.items() if name != "t.example"]
    limit = limit_for(scores, windows_per_year=8_760, alarms_per_year=1)
    assert [item.domain for item in suspicious_names(stats, limit)] == ["t.example"]


@pytest.mark.parametrize("name", ["", ".", "...", "a" * 5_000, "\0.\xff.x", "x"])
def test_hostile_names_are_measured(name: str) -> None:
    """No name breaks the measure."""
    assert name_stats([name])


def test_limit_needs_enough_honest_windows() -> None:
    """A tail is not guessed from a handful of values."""
    with pytest.raises(EgressError):
        limit_for([1.0] * 5, windows_per_year=10, alarms_per_year=1)


def test_recorded_tunnel_is_found() -> None:
    """On recorded names the exfiltration domain is over a limit set on honest domains alone."""
    folder = os.environ.get("SAFEHOLD_EVAL_DATA")
    if not folder:
        pytest.skip("SAFEHOLD_EVAL_DATA is not set: no recorded names here")
    lines = (Path(folder) / "net_dns_exfil.jsonl").read_bytes().splitlines()
    rows = [msgspec.json.decode(line) for line in lines]
    stats = name_stats([row["text"] for row in rows])
    bad = {".".join(r["text"].lower().split(".")[-2:]) for r in rows if r["label"] != "benign"}
    honest = [item.score for name, item in stats.items() if name not in bad]
    limit = limit_for(honest, windows_per_year=8_760 * len(honest), alarms_per_year=1)
    found = {item.domain for item in suspicious_names(stats, limit)}
    assert found == bad
