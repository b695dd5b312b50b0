"""An answer sealed to a key in the measured process's memory (X25519, HKDF, AES-256-GCM).

Whoever shares the connection (a child, a process that a descriptor was sent to) may read the
bytes, but not what is in them. Each key is used once, so the nonce of AES-GCM is constant.
"""

import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from safehold.secure.weights.keyd.interface import Answer, Bind, BindProof, KeydError, SealedAnswer

_INFO = b"safehold-keyd-answer/1"
_ONCE = bytes(12)


class Binding:
    """The loader's half: one fresh key for one answer."""

    def __init__(self, bind: Bind) -> None:
        self._private = X25519PrivateKey.generate()
        public = self._private.public_key().public_bytes_raw()
        self.bound = BindProof(nonce=bind.nonce, public=public)

    def open(self, sealed: SealedAnswer) -> Answer:
        """Return the answer.

        Raises:
            KeydError: it was sealed to another key, or altered.
        """
        key = _key(_agreed(self._private, sealed.public), sealed.public, self.bound)
        try:
            data = AESGCM(key).decrypt(_ONCE, sealed.box, _INFO)
            answer: Answer = msgspec.json.decode(data, type=Answer)
        except (InvalidTag, ValueError, msgspec.DecodeError) as error:
            raise KeydError("expected an answer sealed to this process") from error
        return answer


def new_bind() -> Bind:
    """Return a challenge that was never given before."""
    return Bind(nonce=os.urandom(32))


def seal_answer(answer: Answer, bound: BindProof) -> SealedAnswer:
    """Return an answer that only the holder of the bound key reads.

    Raises:
        KeydError: the key is no point that a secret can be agreed with.
    """
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    key = _key(_agreed(private, bound.public), public, bound)
    return SealedAnswer(
        public=public, box=AESGCM(key).encrypt(_ONCE, msgspec.json.encode(answer), _INFO)
    )


def _key(secret: bytes, public: bytes, bound: BindProof) -> bytes:
    return HKDF(SHA256(), 32, bound.nonce, _INFO + public + bound.public).derive(secret)


def _agreed(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise KeydError("expected a key that a secret can be agreed with") from error
