"""Keys inside a PKCS#11 token (an HSM, or SoftHSM2): they never leave it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pkcs11
import pkcs11.exceptions as p11

from safehold.secure.weights.interface import ProviderError, WrongKeyError
from safehold.secure.weights.providers.envelope import NONCE_BYTES, context_bytes, decode, encode

_TAG_BITS = 128
_WHY: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((p11.PinLocked,), "the PIN is locked"),
    ((p11.PinExpired, p11.PinInvalid, p11.PinLenRange), "it wants another PIN"),
    ((p11.UserPinNotInitialized,), "it has no PIN of a user yet"),
    ((p11.MultipleTokensReturned,), "several tokens have this label"),
    ((p11.MultipleObjectsReturned,), "several keys have this name"),
    ((p11.TokenNotPresent, p11.DeviceRemoved), "it was taken out"),
    ((p11.TokenNotRecognised,), "the library does not know this token"),
    ((p11.TokenWriteProtected, p11.SessionReadOnly), "it is write-protected"),
    ((p11.MechanismInvalid, p11.FunctionNotSupported), "it can't do AES-GCM"),
    ((p11.DeviceMemory, p11.HostMemory), "it has no memory left"),
    ((p11.SessionCount,), "it has too many sessions"),
    ((p11.DeviceError, p11.FunctionFailed, p11.GeneralError), "the device failed"),
    ((p11.PKCS11Error,), "it gave a reason that has no words here: see the library's own log"),
    ((OSError,), "its library can't be read"),
    ((RuntimeError,), "its library can't be used: is the path right?"),
)


def _why(error: Exception) -> str:
    return next(said for kinds, said in _WHY if isinstance(error, kinds))


class Pkcs11Provider:
    """AES-256 keys in a token, sensitive and not extractable; CKM_AES_GCM wraps inside it.

    Args:
        module: Path of the token's PKCS#11 library.
        token: The token's label.
        pin: The user PIN.
    """

    kind = "pkcs11"

    def __init__(self, module: str, token: str, pin: str) -> None:
        self._module = module
        self._token = token
        self._pin = pin

    @contextmanager
    def _session(self) -> Iterator[Any]:
        try:
            library = pkcs11.lib(self._module)
            token = library.get_token(token_label=self._token)
            with token.open(rw=True, user_pin=self._pin) as session:
                yield session
        except p11.PinIncorrect as error:
            raise ProviderError(f"token {self._token}: wrong PIN") from error
        except p11.NoSuchToken as error:
            raise ProviderError(f"expected a token labelled {self._token}, got none") from error
        except p11.NoSuchKey as error:
            raise ProviderError("the token has no such key: destroyed, or another token") from error
        except (p11.PKCS11Error, RuntimeError, OSError) as error:
            raise ProviderError(f"token {self._token}: it refused ({_why(error)})") from error

    def create(self, name: str) -> str:
        """Make an AES-256 key in the token.

        Raises:
            ProviderError: the label is taken, or the token refused.
        """
        with self._session() as session:
            if list(session.get_objects({pkcs11.Attribute.LABEL: name})):
                raise ProviderError(f"token {self._token}: the label {name} is taken")
            session.generate_key(
                pkcs11.KeyType.AES,
                256,
                label=name,
                store=True,
                template={
                    pkcs11.Attribute.SENSITIVE: True,
                    pkcs11.Attribute.EXTRACTABLE: False,
                },
            )
        return name

    def wrap(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        """Encrypt inside the token."""
        nonce = os.urandom(NONCE_BYTES)
        with self._session() as session:
            sealed = _key(session, reference).encrypt(
                key,
                mechanism=pkcs11.Mechanism.AES_GCM,
                mechanism_param=pkcs11.GCMParams(nonce, context_bytes(context), _TAG_BITS),
            )
        return encode(nonce + bytes(sealed))

    def unwrap(self, reference: str, blob: str, context: Mapping[str, str]) -> bytes:
        """Decrypt inside the token.

        Raises:
            WrongKeyError: another key or context. Tokens name this error differently, so any
                refusal of the decryption itself counts.
        """
        data = decode(blob)
        with self._session() as session:
            kek = _key(session, reference)
            try:
                plain = kek.decrypt(
                    data[NONCE_BYTES:],
                    mechanism=pkcs11.Mechanism.AES_GCM,
                    mechanism_param=pkcs11.GCMParams(
                        data[:NONCE_BYTES], context_bytes(context), _TAG_BITS
                    ),
                )
            except p11.PKCS11Error as error:
                raise WrongKeyError("the token's key does not open this wrapped key") from error
        return bytes(plain)

    def destroy(self, reference: str) -> str:
        """Destroy the key object.

        Raises:
            ProviderError: the token has no such key, or refused.
        """
        with self._session() as session:
            _key(session, reference).destroy()
        return f"key {reference} destroyed in token {self._token}; token backups must follow"


def _key(session: Any, label: str) -> Any:
    return session.get_key(
        object_class=pkcs11.ObjectClass.SECRET_KEY, key_type=pkcs11.KeyType.AES, label=label
    )
