"""The manifests, judged by the independent `model-signing` package and by our own verifier."""

import json
from pathlib import Path

import msgspec
import pytest
from model_signing import verifying

from safehold.errors import WeightsError
from safehold.secure.weights.interface import SealTamperError
from safehold.secure.weights.manifest import PLAIN_MANIFEST, SEALED_MANIFEST
from safehold.secure.weights.seal import seal
from safehold.secure.weights.signer import SealSigner
from safehold.secure.weights.verify import verify_sealed
from safehold.testing.weights import Publisher, write_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _independent(publisher: Publisher, model: Path, signature: str) -> None:
    keys = publisher.root / "keys-out"
    if not keys.exists():
        publisher.signer.write(keys)
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "manifest.pub.pem")
    config.verify(model, publisher.root / "sealed" / signature)


@pytest.mark.parametrize("digest", ["sha256", "blake3"])
def test_model_signing_accepts_both_manifests(publisher: Publisher, digest: str) -> None:
    """The reference verifier accepts ciphertext and plaintext folders, without our code."""
    write_model(publisher.root / "plain")
    order = msgspec.structs.replace(publisher.order(), digest=digest)
    seal(order, [publisher.provider], publisher.signer)
    _independent(publisher, publisher.root / "sealed", SEALED_MANIFEST)
    _independent(publisher, publisher.root / "plain", PLAIN_MANIFEST)


def test_model_signing_refuses_a_changed_shard(publisher: Publisher) -> None:
    """The reference verifier sees a flipped bit of the ciphertext."""
    header = publisher.seal()
    path = publisher.root / "sealed" / f"{header.shards[1].name}.sealed"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="Signature mismatch"):
        _independent(publisher, publisher.root / "sealed", SEALED_MANIFEST)


def test_model_signing_refuses_a_stranger_key(publisher: Publisher) -> None:
    """The reference verifier refuses the manifest under another publisher's key."""
    publisher.seal()
    SealSigner.generate().write(publisher.root / "keys-out")
    with pytest.raises(ValueError, match="Key mismatch"):
        _independent(publisher, publisher.root / "sealed", SEALED_MANIFEST)


@pytest.mark.parametrize("name", [SEALED_MANIFEST, PLAIN_MANIFEST])
def test_swapped_manifest_is_refused(publisher: Publisher, name: str) -> None:
    """A true manifest of other content does not pass as this model's."""
    publisher.seal()
    publisher.seal("other", version="2")
    (publisher.root / "sealed" / name).write_bytes((publisher.root / "other" / name).read_bytes())
    with pytest.raises(SealTamperError, match="other content"):
        verify_sealed(publisher.root / "sealed", publisher.signer.verifier)


@pytest.mark.parametrize("name", [SEALED_MANIFEST, PLAIN_MANIFEST])
def test_forged_manifest_is_refused(publisher: Publisher, name: str) -> None:
    """A manifest whose payload was changed has a false signature."""
    publisher.seal()
    path = publisher.root / "sealed" / name
    bundle = json.loads(path.read_bytes())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "MEUCIQ=="
    path.write_text(json.dumps(bundle))
    with pytest.raises(WeightsError):
        verify_sealed(publisher.root / "sealed", publisher.signer.verifier)


def test_added_file_is_refused(publisher: Publisher) -> None:
    """A file that nobody sealed does not hide in the folder."""
    publisher.seal()
    (publisher.root / "sealed" / "loader.py").write_text("print()")
    with pytest.raises(SealTamperError, match="not of this sealed model"):
        verify_sealed(publisher.root / "sealed", publisher.signer.verifier)


def test_sound_model_verifies_without_keys(publisher: Publisher) -> None:
    """Verification needs public keys alone, and counts what it read."""
    header = publisher.seal()
    publisher.provider.keys.clear()
    seen: list[int] = []
    found = verify_sealed(
        publisher.root / "sealed", publisher.signer.verifier, progress=seen.append
    )
    assert found.header == header
    assert sum(seen) == found.sealed_bytes
