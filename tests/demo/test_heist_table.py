"""The heist's table: what counts, what does not, and one step on real namespaces."""

import os
from pathlib import Path

import pytest

from safehold.cli.drill import BEGIN, END, replaced
from safehold.demo.heist.enclave import enclave
from safehold.demo.heist.network import discovery, lateral_move
from safehold.demo.heist.records import covered_tracks, forged_approval, one_accomplice
from safehold.demo.heist.table import HeistOutcome, HeistTry, markdown, rows
from safehold.demo.heist.vault import blind_host, decoys, read_weights, stolen_grant
from safehold.errors import UsageError

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


STEPS = (
    discovery,
    lateral_move,
    forged_approval,
    one_accomplice,
    covered_tracks,
    stolen_grant,
    blind_host,
    read_weights,
    decoys,
)


def test_table_in_a_page_is_replaced_between_its_markers() -> None:
    """A page keeps what stands around the table; one without markers is refused."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(UsageError):
        replaced("nothing", "new\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_steps_are_real_and_held_by_each_control_alone(tmp_path: Path) -> None:
    """On real namespaces each of these steps succeeds bare, and each control alone holds it."""
    with enclave(f"ht{os.getpid() % 100000}", tmp_path) as made:
        tries = [one for step in STEPS for one in step(made)]
    table = rows(tries)
    assert all(one.held for one in table)
    assert not [one.not_counted for one in table if one.not_counted]
    assert len(table) == 10
    assert not any(Path("/run/netns").glob(f"ht{os.getpid() % 100000}*"))
