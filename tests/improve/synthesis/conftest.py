"""A small written dataset, built once for the tests of synthesis."""

import pytest

from safehold.improve.synthesis.build import Built, build
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.written import WrittenGenerator


def _silent(done: int, total: int) -> None:
    del done, total


@pytest.fixture(scope="session")
def built() -> Built:
    """The home-brewing dataset with one augmentation for about every second base example."""
    generator = WrittenGenerator("homebrewing", "c0ffee")
    base = list(generator.generate(seed=3))
    return build(base, phrases=phrasebook(), seed=3, target=len(base) * 3 // 2, progress=_silent)
