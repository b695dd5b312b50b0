"""Submissions sealed to triage's key: what receives and keeps them can't read them.

X25519 with a key for one use, HKDF-SHA256, ChaCha20-Poly1305 (RFC 7748, 5869, 8439). The digest of
the programme and both public keys are bound into the key, so that a seal can't be moved.
"""

import base64
import binascii
import json
import re
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from safehold.detect.bounty.interface import MAX_SUBMISSION_BYTES, SLOT, Submission
from safehold.detect.redteam.transforms import transform
from safehold.errors import ConfigError, DataError, TrustError, UsageError
from safehold.trust.log.files import write_new
from safehold.trust.log.key_files import read_secret

_PAD = 4096
_LENGTH = 4
_NONCE = bytes(12)  # each key seals one text
_MAX_SEALED = (MAX_SUBMISSION_BYTES + 2 * _PAD) * 4 // 3 + 1024
_PATTERN = re.compile(r"matching regex '.*'(?= - at|\Z)", re.DOTALL)
_Base64 = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]*={0,2}\Z")]


class SealedSubmission(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="sealed-1"
):
    """A sealed submission: public values only. Its length says its size to the next 4 kB."""

    programme: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    to: _Base64
    ephemeral: _Base64
    text: _Base64


def new_triage_key(path: Path) -> str:
    """Write a private key for its owner alone, and return the public one for the programme.

    Raises:
        ConfigError: the file exists, or can't be written.
    """
    key = X25519PrivateKey.generate()
    try:
        write_new(path, base64.b64encode(key.private_bytes_raw()) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: can't be made ({error.strerror})") from error
    return _text(key.public_key().public_bytes_raw())


def read_triage_key(path: Path) -> X25519PrivateKey:
    """Return triage's private key.

    Raises:
        ConfigError: it can't be read, is none, or others than its owner may read the file.
    """
    text = read_secret(path)
    try:
        return X25519PrivateKey.from_private_bytes(base64.b64decode(text.strip(), validate=True))
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"{path}: expected triage's private key") from error


def read_submission(data: bytes) -> Submission:
    """Return the submission in these bytes, or say in one line what is wrong with them.

    Raises:
        DataError: too large, binary, not JSON, of another schema, or with nothing to ask.
    """
    if len(data) > MAX_SUBMISSION_BYTES:
        raise DataError(
            f"expected a submission of at most {MAX_SUBMISSION_BYTES} bytes, came {len(data)}"
        )
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"expected UTF-8 text, came binary at byte {error.start}") from error
    try:
        found = msgspec.json.decode(data, type=Submission)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        # The error may quote a field's name as it came: no terminal acts on what is shown here.
        raise DataError(f"expected a submission: {_plain(str(error))}") from error
    if found.turns[-1].role != "user":
        raise DataError("expected the last turn to be the user's")
    try:
        for name in found.transforms:
            transform(name)
    except UsageError as error:
        raise DataError(f"transforms: {_plain(str(error))}") from error
    if found.transforms and not any(SLOT in turn.text for turn in found.turns):
        raise DataError(f"transforms change what stands in {SLOT}, and no turn has one")
    return found


def seal(data: bytes, *, to: str, programme: str) -> bytes:
    """Return a submission sealed to a public key, as JSON; it is checked first.

    Raises:
        DataError: it is no submission.
        ConfigError: the key is none.
    """
    read_submission(data)
    ours = X25519PrivateKey.generate()
    theirs = _public(to)
    public = ours.public_key().public_bytes_raw()
    filled = len(data).to_bytes(_LENGTH) + data
    filled += bytes(-len(filled) % _PAD)
    key = _key(ours.exchange(theirs), public, theirs.public_bytes_raw(), programme)
    sealed = ChaCha20Poly1305(key).encrypt(_NONCE, filled, None)
    return msgspec.json.encode(
        SealedSubmission(programme=programme, to=to, ephemeral=_text(public), text=_text(sealed))
    )


def read_sealed(data: bytes, *, to: str, programme: str) -> SealedSubmission:
    """Return the envelope, checked as far as it can be without the private key.

    Raises:
        DataError: too large, not an envelope, or for another key or other terms.
    """
    if len(data) > _MAX_SEALED:
        raise DataError(f"expected a sealed submission of at most {_MAX_SEALED} bytes, came more")
    try:
        found = msgspec.json.decode(data, type=SealedSubmission)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"expected a submission sealed with `safehold bounty seal`: {_plain(str(error))}"
        ) from error
    if found.to != to:
        raise DataError("this submission is sealed to another key than the programme's")
    if found.programme != programme:
        raise DataError(
            f"this submission agrees to other terms ({found.programme[:12]}) than the "
            f"programme's ({programme[:12]}): seal it again with the present file"
        )
    return found


def opened(sealed: SealedSubmission, key: X25519PrivateKey) -> bytes:
    """Return what was sealed.

    Raises:
        TrustError: the key is another one, or the envelope was changed.
    """
    try:
        ephemeral = base64.b64decode(sealed.ephemeral, validate=True)
        text = base64.b64decode(sealed.text, validate=True)
        shared = key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        public = key.public_key().public_bytes_raw()
        one = ChaCha20Poly1305(_key(shared, ephemeral, public, sealed.programme))
        filled = one.decrypt(_NONCE, text, None)
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise TrustError("this key does not open the submission, or it was changed") from error
    return filled[_LENGTH : _LENGTH + int.from_bytes(filled[:_LENGTH])]


def _key(shared: bytes, ephemeral: bytes, public: bytes, programme: str) -> bytes:
    info = b"safehold bounty 1\n" + ephemeral + public + programme.encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)


def _public(text: str) -> X25519PublicKey:
    try:
        return X25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
        raise ConfigError("expected triage's public key: 32 bytes in base64") from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _plain(text: str) -> str:
    said = _PATTERN.sub("of visible characters on one line", text)
    return json.dumps(said)[1:-1][:300]
