"""The question set and wrappers, and a guard that blocks one phrase."""

import pytest

from safehold.detect.redteam.interface import QuestionSet, Wrapper
from safehold.detect.redteam.questions import questions, wrappers


@pytest.fixture(scope="session")
def asks() -> QuestionSet:
    """The held-out home-brewing questions."""
    return questions("homebrewing")


@pytest.fixture(scope="session")
def dresses() -> tuple[Wrapper, ...]:
    """The held-out wrappers."""
    return wrappers()
