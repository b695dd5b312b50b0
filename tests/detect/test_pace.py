"""How often people from outside may ask."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.detect.pace import Pace, peer_of


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_floods_waits_and_takes_nothing_from_others() -> None:
    """One peer's thousand attempts leave another's untouched, and end with the window."""
    clock = _Clock()
    pace = Pace(each=5, together=100, window_s=60.0, clock=clock)
    assert [pace.wait_s("a") for _ in range(1_000)] == [0.0] * 5 + [60.0] * 995
    assert pace.wait_s("b") == 0.0
    clock.now = 60.0
    assert pace.wait_s("a") == 0.0


def test_asking_whether_one_may_counts_nothing() -> None:
    """A look leaves the allowance as it was, and says when it is spent."""
    pace = Pace(each=2, together=9, window_s=60.0, clock=_Clock())
    assert [pace.wait_s("a", count=False) for _ in range(9)] == [0.0] * 9
    assert [pace.wait_s("a") for _ in range(2)] == [0.0, 0.0]
    assert pace.wait_s("a", count=False) == 60.0


def test_many_peers_together_are_bounded() -> None:
    """A thousand addresses get no more than all may have."""
    pace = Pace(each=5, together=100, window_s=60.0, clock=_Clock())
    assert sum(pace.wait_s(f"peer {i}") == 0.0 for i in range(1_000)) == 100


def test_memory_is_bounded_whoever_asks() -> None:
    """A hundred thousand addresses are not all remembered."""
    pace = Pace(each=1, together=10**9, window_s=60.0, clock=_Clock())
    for number in range(20_000):
        assert pace.wait_s(str(number)) == 0.0
    assert len(pace._of) <= 4_096


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=80),
    st.integers(1, 6),
    st.integers(1, 9),
)
def test_no_window_holds_more_than_is_allowed(
    asked: list[tuple[str, float]], each: int, together: int
) -> None:
    """Whoever asks whenever: each, and all together; and who waits as told is let in."""
    clock = _Clock()
    pace = Pace(each=each, together=together, window_s=10.0, clock=clock)
    let: list[tuple[str, float]] = []
    for peer, later in asked:
        clock.now += later
        wait_s = pace.wait_s(peer)
        if not wait_s:
            let.append((peer, clock.now))
        recent = [one for one in let if one[1] > clock.now - 10.0]
        assert len(recent) <= together
        assert sum(one[0] == peer for one in recent) <= each
        if wait_s:
            clock.now += wait_s + 1e-6
            assert pace.wait_s(peer) == 0.0
            let.append((peer, clock.now))


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        (None, "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_an_address_counts_as_its_owner(host: str | None, peer: str) -> None:
    """One household's IPv6 addresses are one peer."""
    assert peer_of(host) == peer
