"""One tiny model for all tests of this folder."""

from pathlib import Path

import pytest

from safehold.guard.served.model import HfModel
from safehold.testing.models import tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def model(tiny: Path) -> HfModel:
    """The tiny model, loaded."""
    return HfModel(tiny, dtype="float32")
