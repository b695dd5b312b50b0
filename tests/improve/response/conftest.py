"""The stock bundle and the texts of the seed books, read once."""

import pytest

from safehold.constitution.library import load
from safehold.guard.bundle.load import Bundle, load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.improve.response.corpus import Corpus, of_seed_books


@pytest.fixture(scope="session")
def champion() -> Bundle:
    """The stock bundle."""
    folder, pinned = stock_bundle()
    return load_bundle(folder, pinned)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Texts of the seed books."""
    return of_seed_books(load("homebrewing"), 1)
