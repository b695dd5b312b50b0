"""The judge of devices: pure sums."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.egress.bounds.judge import Bench, Look, judge, strangers, verdict
from safehold.secure.egress.kernel.devices import Device, guarded

HEADER = 14


def up(sent: int, packets: int, **more: object) -> Device:
    """The device up0 at one reading."""
    return msgspec.structs.replace(Device("up0", 2, sent=sent, packets=packets), **more)


def look(device: Device, passed: int, packets: int, *others: Device) -> Look:
    """One look at a still device."""
    return Look((device, *others), (device, *others), {"c_a": passed}, {"c_a": packets})


def started() -> Bench:
    """A judge after its first look."""
    return judge(Bench(), look(up(5_000, 50), 1_000, 10))


steps = st.lists(
    st.tuples(
        st.integers(0, 200),  # packets let through
        st.integers(40, 1500),  # bytes of each
        st.integers(0, 200),  # how many of the passed ones the queue drops
        st.integers(0, 100),  # packets that pass between the readings
    ),
    max_size=30,
)


@given(steps)
def test_honest_traffic_never_shows_an_excess(moves: list[tuple[int, int, int, int]]) -> None:
    """Whatever flows, is dropped by a queue or passes between two readings: no excess."""
    bench, sent, frames, let, let_packets = started(), 5_000, 50, 1_000, 10
    for count, size, dropped, between in moves:
        let, let_packets = let + count * size, let_packets + count
        left = max(0, count - dropped)
        sent, frames = sent + left * (size + HEADER), frames + left
        before = up(sent, frames)
        let, let_packets = let + between * size, let_packets + between
        sent, frames = sent + between * (size + HEADER), frames + between
        seen = Look((before,), (up(sent, frames),), {"c_a": let}, {"c_a": let_packets})
        bench = judge(bench, seen)
        assert bench.excess == 0


@given(steps, st.integers(1, 10**9))
def test_bytes_past_the_rules_are_seen_whole(
    moves: list[tuple[int, int, int, int]], stolen: int
) -> None:
    """What leaves past the rules in one look without drops is the excess, to the byte."""
    bench, sent, frames, let, let_packets = started(), 5_000, 50, 1_000, 10
    for count, size, *_ in moves:
        let, let_packets = let + count * size, let_packets + count
        sent, frames = sent + count * (size + HEADER), frames + count
        bench = judge(bench, look(up(sent, frames), let, let_packets))
    after = judge(bench, look(up(sent + stolen, frames), let, let_packets))
    assert after.excess == stolen
    assert bool(verdict(after, 65_536)) is (stolen > 65_536)


def test_drops_of_old_are_no_credit() -> None:
    """A queue that dropped a gigabyte long ago lets nobody send a gigabyte later."""
    bench = judge(started(), look(up(5_000, 50), 10**9, 10**6))
    bench = judge(bench, look(up(5_000, 50), 10**9, 10**6))
    assert judge(bench, look(up(505_000, 50), 10**9, 10**6)).excess == 500_000


def test_cut_segments_are_explained() -> None:
    """A packet that the device cuts into segments sends its headers again: no excess."""
    passed, segments = 1_000 + 64_000, 45
    sent = 5_000 + 64_000 + segments * HEADER + (segments - 1) * 52
    assert judge(started(), look(up(sent, 50 + segments), passed, 11)).excess == 0


def test_device_made_again_is_judged_from_zero() -> None:
    """A device that was deleted and made again is new; all that it sent counts, once."""
    again = up(300_000, 300, index=9)
    bench = started()
    assert strangers(bench, [again]) == ("up0",)
    assert judge(bench, look(again, 1_000, 10)).excess > 290_000


def test_a_bridge_is_not_counted_twice() -> None:
    """What a bridge sends through its port is counted at the port alone."""
    bridge = Device("br0", 3, kind="bridge", above=True, sent=10_000, packets=10)
    after = judge(started(), look(up(5_000 + 10_140, 60), 11_000, 20, bridge))
    assert after.excess == 0


def test_loopback_is_never_the_way_out() -> None:
    """Bytes on loopback are no excess, and it is not guarded."""
    lo = Device("lo", 1, loopback=True, sent=10**9)
    assert judge(started(), look(up(5_000, 50), 1_000, 10, lo)).excess == 0
    assert guarded([lo, up(0, 0)]) == ("up0",)


LACP_FRAME = 124
"""One frame of a bond's link control; with the fast rate one a second."""


def bonded(seconds: int, each: int, control_a_day: int) -> Bench:
    """A day and more of an otherwise silent host, looked at every 10 s; `each` bytes a second."""
    bench, sent = started(), 5_000
    for at in range(1, seconds // 10):
        sent += 10 * each
        frames = 50 + 10 * at * bool(each)
        bench = judge(bench, look(up(sent, frames), 1_000, 10), control_a_day * 10 // 86_400)
    return bench


def test_link_control_that_the_plan_allows_closes_nothing_in_two_days() -> None:
    """LACP once a second is no theft where the plan says so; without that it ends in a closure."""
    assert bonded(2 * 86_400, LACP_FRAME, 12_000_000).excess == 0
    assert verdict(bonded(3_600, LACP_FRAME, 0), 65_536) != ""


def test_allowance_of_link_control_is_no_credit() -> None:
    """Silent days save nothing up: a burst after them counts whole, less one look's part."""
    frames = 40
    quiet = bonded(5 * 86_400, 0, 12_000_000)
    last = quiet.devices["up0#2"]
    burst = look(up(last.sent + frames * 1_514, last.packets + frames), 1_000, 10)
    allowed = 12_000_000 * 10 // 86_400
    assert judge(quiet, burst, allowed).excess == frames * 1_500 - allowed


def test_theft_beside_link_control_is_seen() -> None:
    """Who sends more than the allowance is told of as soon as the bound is passed."""
    each = 600
    seen = bonded(900, LACP_FRAME + each, 12_000_000)
    assert seen.excess >= (each - 30) * 880
