"""A small written dataset, built once for the tests of synthesis."""

import pytest

from safehold.improve.synthesis.build import Built, build
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.written import WrittenGenerator

_ONE_IN = 10
"""One written family of so many is taken; `tests/soak` takes them all."""
_ALWAYS = "cellar-innocent-continue"


def _silent(done: int, total: int) -> None:
    del done, total


@pytest.fixture(scope="session")
def built() -> Built:
    """Some of the home-brewing dataset, one augmentation for about every second base example."""
    generator = WrittenGenerator("homebrewing", "c0ffee")
    written = list(generator.generate(seed=3))
    taken = set(sorted({one.family for one in written})[::_ONE_IN])
    taken |= {one.family for one in written if one.id.endswith(_ALWAYS)}
    base = [one for one in written if one.family in taken]
    return build(base, phrases=phrasebook(), seed=3, target=len(base) * 3 // 2, progress=_silent)
