"""A bundle with a probe loads beside its own model only, and only while its canaries sing."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import BundleError
from safehold.guard.bundle.interface import MANIFEST, Manifest
from safehold.guard.bundle.load import SignedBy, UnsafeUnsigned, load_bundle
from safehold.guard.served.interface import Reading, Said
from safehold.guard.served.model import HfModel
from safehold.testing.models import tiny_model, write_probed

KEY = Ed25519PrivateKey.generate()
TRUST = SignedBy((KEY.public_key(),))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HfModel:
    """A tiny model."""
    return HfModel(tiny_model(tmp_path_factory.mktemp("m") / "tiny"), dtype="float32")


@pytest.fixture(scope="module")
def folder(model: HfModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle whose probe reads the tiny model."""
    folder = tmp_path_factory.mktemp("b") / "probed"
    write_probed(folder, model, KEY)
    return folder


class Drifted(msgspec.Struct, frozen=True):
    """The same digest, other thoughts: a model that was served by another engine, say."""

    model: HfModel
    factor: float

    @property
    def digest(self) -> str:
        """The digest that the bundle expects."""
        return self.model.digest

    @property
    def dtype(self) -> str:
        """The number format that the bundle expects."""
        return self.model.dtype

    def read(self, said: Sequence[Said], reply: str, layers: Sequence[int]) -> Reading:
        """Return activations that are off by a factor."""
        reading = self.model.read(said, reply, layers)
        return msgspec.structs.replace(reading, activations=reading.activations * self.factor)


def test_it_loads_beside_its_model(folder: Path, model: HfModel) -> None:
    """The probe comes out of the bundle as it was written."""
    bundle = load_bundle(folder, TRUST, served=model)
    assert bundle.cascade.probe is not None
    assert bundle.cascade.probe.scorer.layers == (0,)


def test_without_a_model_it_refuses(folder: Path) -> None:
    """Its thresholds count on the probe, so it is no text guard either."""
    with pytest.raises(BundleError, match="another model"):
        load_bundle(folder, TRUST)


def test_beside_another_model_it_refuses(folder: Path, tmp_path: Path) -> None:
    """A model of the same shape with other weights is another model."""
    other = HfModel(tiny_model(tmp_path / "other", seed=1), dtype="float32")
    with pytest.raises(BundleError, match="another model"):
        load_bundle(folder, TRUST, served=other)


def test_another_number_format_refuses(folder: Path, model: HfModel) -> None:
    """The same weights computed in another precision give other activations."""
    other = HfModel(Path(model._model.name_or_path), dtype="bfloat16")
    with pytest.raises(BundleError, match="float32 activations"):
        load_bundle(folder, TRUST, served=other)


def test_canaries_notice_what_the_digest_can_not(folder: Path, model: HfModel) -> None:
    """Scores that stray beyond the recorded tolerance refuse, those within it load."""
    assert load_bundle(folder, TRUST, served=Drifted(model, 1.001))
    with pytest.raises(BundleError, match="canary"):
        load_bundle(folder, TRUST, served=Drifted(model, 1.2))


def test_nonsense_from_the_model_is_no_song(folder: Path, model: HfModel) -> None:
    """Activations that are no numbers refuse."""
    with pytest.raises(BundleError, match="canary"):
        load_bundle(folder, TRUST, served=Drifted(model, float("nan")))


def test_a_probe_that_is_bound_to_no_model_refuses(model: HfModel, tmp_path: Path) -> None:
    """A manifest with a probe must name a model's digest."""
    write_probed(tmp_path / "b", model)
    path = tmp_path / "b" / MANIFEST
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, model_digest=None)))
    with pytest.raises(BundleError, match="come together"):
        load_bundle(tmp_path / "b", UnsafeUnsigned(), served=model)


@pytest.mark.parametrize("layers", [(), (0, 1, 2)])
def test_weights_that_do_not_fit_their_layers_refuse(
    model: HfModel, tmp_path: Path, layers: tuple[int, ...]
) -> None:
    """A probe's file must have the width that its layers give."""
    write_probed(tmp_path / "b", model, KEY, layers=layers)
    with pytest.raises(BundleError, match="weights for"):
        load_bundle(tmp_path / "b", TRUST, served=model)
