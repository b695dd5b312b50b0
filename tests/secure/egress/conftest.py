"""Two joined network namespaces with a receiver in one of them."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from safehold.secure.egress.kernel.netns import pair
from safehold.testing.egress import FakeClock, World

_numbers = itertools.count()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A pair of namespaces of this test's own."""
    with (
        pair(f"sht{os.getpid()}x{next(_numbers)}") as both,
        contextlib.closing(World(both, tmp_path)) as made,
    ):
        yield made


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()
