"""Interpreters that a dead worker had let start are judged by the next one."""

import os

from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.endpoint.starting import StartingSlots


def test_what_a_dead_worker_kept_is_found_by_the_next_one() -> None:
    """A child process keeps two and judges one; after its end the parent finds the other."""
    slots = StartingSlots()
    child = os.fork()
    if child == 0:
        slots.adopt()
        slots.add(41)
        slots.add(42)
        slots.remove(41)
        os._exit(0)
    os.waitpid(child, 0)
    assert slots.adopt() == (42,)
    slots.remove(42)
    assert slots.adopt() == ()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50)), max_size=100))
def test_slots_are_a_set(acts: list[tuple[bool, int]]) -> None:
    """Whatever is added and removed in whatever order, a new worker finds exactly what is left."""
    slots, wanted = StartingSlots(), set[int]()
    for keep, pid in acts:
        if keep:
            slots.add(pid)
            wanted.add(pid)
        else:
            slots.remove(pid)
            wanted.discard(pid)
    assert set(slots.adopt()) == wanted


def test_full_table_takes_no_more_and_breaks_nothing() -> None:
    """More processes than slots: those that are kept stay kept."""
    slots = StartingSlots()
    for pid in range(1, 3000):
        slots.add(pid)
    assert len(slots.adopt()) == 2048
