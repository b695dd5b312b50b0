"""Looking before sleeping: it goes on while it pays, and costs a busy machine next to nothing."""

from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.fanotify.patience import LONGEST, Patience


def test_looking_that_pays_goes_on() -> None:
    """While each look brings a question, each wait looks."""
    patience = Patience(40)
    for _ in range(100):
        assert patience.looks() == 40
        patience.told(caught=True)


def test_vain_looking_ends_and_one_catch_brings_it_back() -> None:
    """On a busy machine at most one wait in 64 looks; after a catch each one does again."""
    patience = Patience(40)
    looked = 0
    for _ in range(10_000):
        if patience.looks():
            looked += 1
            patience.told(caught=False)
    assert looked <= 10_000 / (LONGEST + 1) + 7
    while not patience.looks():
        pass
    patience.told(caught=True)
    assert patience.looks() == 40


@given(st.lists(st.booleans(), max_size=500))
def test_one_processor_never_looks(brought: list[bool]) -> None:
    """With no looks allowed there are none, whatever was brought."""
    patience = Patience(0)
    for caught in brought:
        assert patience.looks() == 0
        patience.told(caught=caught)
