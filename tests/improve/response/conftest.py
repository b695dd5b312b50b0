"""The stock bundle, the texts of the seed books, and what a warm start replays, made once."""

import pytest

from safehold.constitution.library import load
from safehold.guard.bundle.load import Bundle, load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.improve.response.corpus import Corpus, of_seed_books
from safehold.improve.training.interface import LabelledText


@pytest.fixture(scope="session")
def champion() -> Bundle:
    """The stock bundle."""
    folder, pinned = stock_bundle()
    return load_bundle(folder, pinned)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Texts of the seed books."""
    return of_seed_books(load("homebrewing"), 1)


@pytest.fixture(scope="session")
def replay(corpus: Corpus) -> list[LabelledText]:
    """A thousand of the texts that the prompt head learnt from; the first of them do as well."""
    return corpus.replay(1_000, 1)
