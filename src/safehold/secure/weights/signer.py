"""The publisher's keys: Ed25519 for headers, P-256 for OpenSSF model-signing manifests."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from safehold.errors import ConfigError, WeightsError
from safehold.secure.weights.interface import StorageError
from safehold.trust.log.files import write_new
from safehold.trust.log.key_files import read_secret

HEADER_KEY = "header.key.pem"
MANIFEST_KEY = "manifest.key.pem"
HEADER_PUBLIC = "header.pub.pem"
MANIFEST_PUBLIC = "manifest.pub.pem"


class SealVerifier:
    """Checks a publisher's signatures with public keys alone."""

    def __init__(self, header: Ed25519PublicKey, manifest: ec.EllipticCurvePublicKey) -> None:
        self._header = header
        self._manifest = manifest
        self.key_id = header.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()[:16]
        self.manifest_pem = manifest.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def read(cls, folder: Path) -> "SealVerifier":
        """Read `header.pub.pem` and `manifest.pub.pem`.

        Raises:
            WeightsError: missing, or of another kind.
        """
        header = _load_public(folder / HEADER_PUBLIC)
        manifest = _load_public(folder / MANIFEST_PUBLIC)
        if not isinstance(header, Ed25519PublicKey):
            raise WeightsError(f"{HEADER_PUBLIC}: expected an Ed25519 public key")
        if not isinstance(manifest, ec.EllipticCurvePublicKey):
            raise WeightsError(f"{MANIFEST_PUBLIC}: expected a P-256 public key")
        return cls(header, manifest)

    def is_header(self, signature: bytes, message: bytes) -> bool:
        """Tell whether the Ed25519 signature is the publisher's."""
        try:
            self._header.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def is_manifest(self, signature: bytes, message: bytes) -> bool:
        """Tell whether the ECDSA signature is the publisher's."""
        try:
            self._manifest.verify(signature, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


class SealSigner:
    """Signs headers and manifests."""

    def __init__(self, header: Ed25519PrivateKey, manifest: ec.EllipticCurvePrivateKey) -> None:
        self._header = header
        self._manifest = manifest
        self.verifier = SealVerifier(header.public_key(), manifest.public_key())

    @classmethod
    def generate(cls) -> "SealSigner":
        """Return new keys."""
        return cls(Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, folder: Path) -> "SealSigner":
        """Read the private keys of a signer's folder.

        Raises:
            WeightsError: missing, readable by others, or of another kind.
        """
        header = _load_private(folder / HEADER_KEY)
        manifest = _load_private(folder / MANIFEST_KEY)
        if not isinstance(header, Ed25519PrivateKey):
            raise WeightsError(f"{HEADER_KEY}: expected an Ed25519 private key")
        if not isinstance(manifest, ec.EllipticCurvePrivateKey):
            raise WeightsError(f"{MANIFEST_KEY}: expected a P-256 private key")
        return cls(header, manifest)

    def write(self, folder: Path) -> None:
        """Write both key pairs; private files are for their owner alone and never replaced.

        Raises:
            StorageError: a file exists, or the disk refused.
        """
        public = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        private = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files = (
            (HEADER_KEY, self._header.private_bytes(*private), 0o600),
            (MANIFEST_KEY, self._manifest.private_bytes(*private), 0o600),
            (HEADER_PUBLIC, self._header.public_key().public_bytes(*public), 0o644),
            (MANIFEST_PUBLIC, self._manifest.public_key().public_bytes(*public), 0o644),
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data, mode in files:
                write_new(folder / name, data, mode=mode)
        except OSError as error:
            raise StorageError(f"can't write the signer's keys: {error.strerror}") from error

    def sign_header(self, message: bytes) -> bytes:
        """Return the raw Ed25519 signature."""
        return self._header.sign(message)

    def sign_manifest(self, message: bytes) -> bytes:
        """Return the DER ECDSA signature (P-256, SHA-256)."""
        return self._manifest.sign(message, ec.ECDSA(SHA256()))


def _load_public(path: Path) -> object:
    try:
        return load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"can't read {path.name}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WeightsError(f"{path.name}: expected a public key in PEM") from error


def _load_private(path: Path) -> object:
    try:
        return load_pem_private_key(read_secret(path), None)
    except ConfigError as error:
        raise WeightsError(str(error)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WeightsError(f"{path.name}: expected an unencrypted private key in PEM") from error
