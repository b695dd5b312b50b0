"""OpenSSF Model Signing (OMS v1) manifests: one over the ciphertext, one over the plaintext.

A manifest is a Sigstore bundle with a DSSE envelope around an in-toto statement of predicate type
`https://model_signing/signature/v1.0`; `model_signing verify key` checks it without this package.
The one over the ciphertext lets anybody check integrity without keys; the one over the plaintext
lets whoever opened the model show that it is the one that was published.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from safehold.secure.weights.interface import (
    HEADER_NAME,
    SEALED_SUFFIX,
    Header,
    SealedFormatError,
    SealTamperError,
)
from safehold.secure.weights.signer import SealSigner, SealVerifier

SEALED_MANIFEST = "manifest.sealed.sig"
PLAIN_MANIFEST = "manifest.plain.sig"
# The header changes with every rewrap and carries its own signature.
UNSIGNED_FILES = (HEADER_NAME, PLAIN_MANIFEST, SEALED_MANIFEST)
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"

Resources = Sequence[tuple[str, str]]
"""Names and digests (hexadecimal)."""


def sealed_resources(header: Header) -> Resources:
    """Return the names and digests of the sealed files."""
    return sorted((f"{one.name}{SEALED_SUFFIX}", one.sealed_digest) for one in header.shards)


def plain_resources(header: Header) -> Resources:
    """Return the names and digests of the model's own files."""
    return sorted((one.name, one.plain_digest) for one in header.shards)


def sign_manifest(
    header: Header, resources: Resources, ignored: Sequence[str], signer: SealSigner
) -> bytes:
    """Return the bundle of a manifest."""
    payload = json.dumps(_statement(header, resources, ignored)).encode()
    signature = signer.sign_manifest(_pae(payload))
    hint = hashlib.sha256(signer.verifier.manifest_pem).hexdigest()
    bundle = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode()


def _statement(header: Header, resources: Resources, ignored: Sequence[str]) -> dict[str, Any]:
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in resources))
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [
            {"name": f"{header.model} {header.version}", "digest": {"sha256": root.hexdigest()}}
        ],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": header.digest,
                "allow_symlinks": False,
                "ignore_paths": list(ignored),
            },
            "resources": [
                {"name": name, "algorithm": header.digest, "digest": digest}
                for name, digest in resources
            ],
        },
    }


def check_manifest(
    data: bytes,
    header: Header,
    resources: Resources,
    ignored: Sequence[str],
    verifier: SealVerifier,
) -> None:
    """Refuse a manifest that is not the publisher's, or does not say what the header says.

    Raises:
        SealedFormatError: malformed.
        SealTamperError: false, or of other content.
    """
    try:
        envelope = json.loads(data)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        statement = json.loads(payload)
    except (ValueError, KeyError, TypeError, IndexError, binascii.Error) as error:
        raise SealedFormatError("expected a manifest that is a Sigstore bundle") from error
    # 1. Signed by the publisher.
    if not verifier.is_manifest(signature, _pae(payload)):
        raise SealTamperError("the manifest's signature is false")
    # 2. About exactly this content.
    if statement != _statement(header, resources, ignored):
        raise SealTamperError("the manifest is of other content than the header")


def _pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (
        len(_PAYLOAD_TYPE),
        _PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )
