"""The heist's table: what counts, what does not, and one step on real namespaces."""

import os
from pathlib import Path

import pytest

from safehold.demo.heist.enclave import enclave
from safehold.demo.heist.steps import forged_approval, lateral_move, read_weights
from safehold.demo.heist.table import HeistOutcome, HeistTry, markdown, rows

PREVENTED, DETECTED, MISSED = HeistOutcome


def test_control_counts_only_when_it_alone_stops_or_shows_a_real_step() -> None:
    """A step that fails by itself proves nothing, and a control that misses is not counted."""
    table = rows(
        [
            HeistTry("a", "", MISSED),
            HeistTry("a", "c-1", PREVENTED),
            HeistTry("a", "c-2", MISSED),
            HeistTry("b", "", PREVENTED),
            HeistTry("b", "c-1", PREVENTED),
            HeistTry("c", "", MISSED),
            HeistTry("c", "c-3", MISSED),
        ]
    )
    assert [one.held for one in table] == [True, False, False]
    assert table[0].not_counted == ("c-2",)
    assert "missed: not counted" in markdown(table)


def test_bytes_above_the_bound_are_a_miss_whatever_was_said() -> None:
    """A prevented extraction that carried more than the bound does not count."""
    many = [
        HeistTry("a", "", MISSED),
        HeistTry("a", "c", PREVENTED, out=101, bound=100),
    ]
    assert not rows(many)[0].held
    assert rows([many[0], HeistTry("a", "c", PREVENTED, out=100, bound=100)])[0].held


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_lateral_move_forgery_and_read_are_held_by_each_control_alone(tmp_path: Path) -> None:
    """On real namespaces each of these steps succeeds bare, and each control alone holds it."""
    with enclave(f"ht{os.getpid() % 100000}", tmp_path) as made:
        tries = [*lateral_move(made), *forged_approval(made), *read_weights(made)]
    table = rows(tries)
    assert all(one.held for one in table)
    assert [one.not_counted for one in table] == [(), (), ()]
    assert not any(Path("/run/netns").glob(f"ht{os.getpid() % 100000}*"))
