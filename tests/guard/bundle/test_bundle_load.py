"""A bundle that was altered, mixed, unsigned or made for another model never loads."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import BundleError, ConfigError, TamperError
from safehold.guard.bundle import signing
from safehold.guard.bundle.interface import (
    MANIFEST,
    SCHEMA,
    SIGNATURE,
    LineageRecord,
    Manifest,
    Stage1Record,
)
from safehold.guard.bundle.load import PinnedDigest, SignedBy, UnsafeUnsigned, load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.bundle.write import head_file, write_bundle
from safehold.guard.session.cascade import Thresholds
from safehold.testing.scorers import keyword_head

KEY = Ed25519PrivateKey.generate()
TRUST = SignedBy((KEY.public_key(),))
GOLDEN = b'{"prompt":"a","reply":"","blocked":false}\n{"prompt":"b","reply":"","blocked":true}\n'


def write(folder: Path, key: Ed25519PrivateKey | None = KEY, **changes: object) -> str:
    """Write a small bundle of a keyword scorer; return its digest."""
    prompt, prompt_file = head_file("prompt.npy", keyword_head("wort"))
    reply, reply_file = head_file("reply.npy", keyword_head("wort"))
    point = Thresholds(escalate=0.0, weights=(1.0, 0.0, 0.0), block=0.0, alone=0.0)
    manifest = Manifest(
        schema=SCHEMA,
        name="small",
        constitution="homebrewing",
        constitution_digest="0" * 64,
        stage1=Stage1Record("keywords", prompt, reply, "clause"),
        stage2=None,
        prompt=point,
        reply=point,
        rules=(),
        calibration={},
        lineage=LineageRecord("0" * 64, ("written",), 1, {}, "test", {}),
        model_digest=None,
        golden="golden.jsonl",
        files={},
    )
    manifest = msgspec.structs.replace(manifest, **changes)
    files = {"prompt.npy": prompt_file, "reply.npy": reply_file, "golden.jsonl": GOLDEN}
    return write_bundle(folder, manifest, files, key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound, signed bundle."""
    write(tmp_path / "bundle")
    return tmp_path / "bundle"


def rewrite(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a manifest without signing it again."""
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_sound_bundle_loads(folder: Path) -> None:
    """What was written is what is loaded."""
    bundle = load_bundle(folder, TRUST)
    assert bundle.manifest.name == "small"
    assert bundle.cascade.digest == bundle.digest


@pytest.mark.parametrize("name", ["prompt.npy", "reply.npy", "golden.jsonl"])
def test_a_flipped_bit_is_tampering(folder: Path, name: str) -> None:
    """One changed bit of any file refuses."""
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(TamperError, match="digest"):
        load_bundle(folder, TRUST)


@pytest.mark.parametrize("name", ["prompt.npy", "golden.jsonl", MANIFEST, SIGNATURE])
def test_a_missing_file_refuses(folder: Path, name: str) -> None:
    """Every recorded file must be there, the signature included."""
    (folder / name).unlink()
    with pytest.raises(BundleError, match="missing"):
        load_bundle(folder, TRUST)


def test_an_extra_file_refuses(folder: Path) -> None:
    """A file that the manifest does not know refuses."""
    (folder / "extra.py").write_text("")
    with pytest.raises(TamperError, match="not in the manifest"):
        load_bundle(folder, TRUST)


def test_a_threshold_changed_by_hand_refuses(folder: Path) -> None:
    """A threshold lives inside the signature: moving it breaks the bundle."""
    rewrite(folder / MANIFEST, lambda m: m["prompt"].update(block=99.0))  # type: ignore[attr-defined]
    with pytest.raises(TamperError, match="signature"):
        load_bundle(folder, TRUST)


def test_a_signature_of_another_bundle_refuses(folder: Path, tmp_path: Path) -> None:
    """A valid signature over another manifest does not carry over."""
    write(tmp_path / "other", name="other")
    (folder / SIGNATURE).write_bytes((tmp_path / "other" / SIGNATURE).read_bytes())
    with pytest.raises(TamperError):
        load_bundle(folder, TRUST)


def test_an_untrusted_signer_refuses(tmp_path: Path) -> None:
    """A bundle signed by a key that is not trusted here refuses."""
    write(tmp_path / "b", key=Ed25519PrivateKey.generate())
    with pytest.raises(BundleError, match="not trusted"):
        load_bundle(tmp_path / "b", TRUST)


def test_no_trusted_key_trusts_nobody(folder: Path) -> None:
    """An empty list of keys is an error, not 'any'."""
    with pytest.raises(BundleError, match="empty list"):
        load_bundle(folder, SignedBy(()))


def test_an_unsigned_bundle_needs_the_unsafe_word(tmp_path: Path) -> None:
    """Without a signature only UnsafeUnsigned or the right pin loads."""
    digest = write(tmp_path / "b", key=None)
    with pytest.raises(BundleError, match="missing"):
        load_bundle(tmp_path / "b", TRUST)
    with pytest.raises(TamperError, match="pinned"):
        load_bundle(tmp_path / "b", PinnedDigest("f" * 64))
    assert load_bundle(tmp_path / "b", PinnedDigest(digest)).digest == digest
    assert load_bundle(tmp_path / "b", UnsafeUnsigned()).digest == digest


def test_an_unknown_field_refuses(tmp_path: Path) -> None:
    """A manifest that says something this version does not know refuses."""
    write(tmp_path / "b", key=None)
    rewrite(tmp_path / "b" / MANIFEST, lambda m: m.update(fail_open=True))
    with pytest.raises(BundleError, match="fail_open"):
        load_bundle(tmp_path / "b", UnsafeUnsigned())


def test_a_newer_schema_refuses(tmp_path: Path) -> None:
    """A manifest of another schema version refuses."""
    write(tmp_path / "b", key=None, schema=SCHEMA + 1)
    with pytest.raises(BundleError, match="schema"):
        load_bundle(tmp_path / "b", UnsafeUnsigned())


def test_a_model_digest_without_a_probe_refuses(tmp_path: Path) -> None:
    """Only a probe binds a bundle to a model; one without the other is a broken manifest."""
    write(tmp_path / "b", model_digest="a" * 64)
    with pytest.raises(BundleError, match="come together"):
        load_bundle(tmp_path / "b", TRUST)


def test_a_bundle_that_looks_at_nothing_refuses(tmp_path: Path) -> None:
    """Neither stage nor rule is an error at load, not 'allow'."""
    write(tmp_path / "b", stage1=None)
    with pytest.raises(BundleError, match="not 'allow'"):
        load_bundle(tmp_path / "b", TRUST)


def test_a_bundle_is_never_changed_in_place(folder: Path) -> None:
    """Writing over an existing folder is refused and leaves it whole."""
    with pytest.raises(BundleError, match="exists"):
        write(folder)
    assert load_bundle(folder, TRUST)


def test_a_signing_key_is_made_once_and_private(tmp_path: Path) -> None:
    """The key file is made readable to its owner alone and read back the next time."""
    first = signing.load_or_make_key(tmp_path / "keys" / "k.pem")
    again = signing.load_or_make_key(tmp_path / "keys" / "k.pem")
    public = signing.load_public_key(tmp_path / "keys" / "k.pub")
    assert (tmp_path / "keys" / "k.pem").stat().st_mode & 0o077 == 0
    prints = {signing.fingerprint(key) for key in (first.public_key(), again.public_key(), public)}
    assert len(prints) == 1


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    """Garbage in a key file is one clear error."""
    (tmp_path / "k.pem").write_bytes(content)
    (tmp_path / "k.pem").chmod(0o600)
    with pytest.raises(ConfigError, match="PEM"):
        signing.load_or_make_key(tmp_path / "k.pem")
    with pytest.raises(ConfigError):
        signing.load_public_key(tmp_path / "k.pem")


def test_an_unknown_stock_bundle_refuses() -> None:
    """A name that is not shipped is an error that lists what is."""
    with pytest.raises(BundleError, match="homebrewing"):
        stock_bundle("nothing")
