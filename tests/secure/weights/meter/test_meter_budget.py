"""The meter's rule: never more than the budget, whatever is asked in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.weights.meter.budget import Read, Tally, closed, judge


@given(budget=st.integers(0, 10**6), counts=st.lists(st.integers(0, 10**6), max_size=50))
def test_charged_bytes_never_exceed_the_budget(budget: int, counts: list[int]) -> None:
    """The bytes of all allowed reads together stay within the budget."""
    tally, allowed = Tally(budget=budget), 0
    for count in counts:
        allow, tally = judge(tally, Read("f", 1, 0, count))
        allowed += count if allow else 0
    assert allowed == tally.charged <= budget
    assert tally.allowed + tally.refused == len(counts)


def test_nothing_is_allowed_after_the_end() -> None:
    """After the grant ended even one byte is refused."""
    tally = closed(Tally(budget=100), "revoked")
    allow, tally = judge(tally, Read("f", 1, 0, 1))
    assert not allow
    assert tally.left == 0
