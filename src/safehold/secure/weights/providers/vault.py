"""Keys inside a HashiCorp Vault or OpenBao transit engine."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hvac
import hvac.exceptions as vault_errors
import requests

from safehold.secure.weights.interface import ProviderError, WrongKeyError
from safehold.secure.weights.providers.envelope import context_bytes

_BAD_TAG = "message authentication failed"


class VaultProvider:
    """Transit keys of type aes256-gcm96; the context is the associated data.

    Args:
        url: The server's address.
        token: A token that may use the transit engine.
        mount: Where the engine is mounted.
        timeout_s: For each call.
    """

    kind = "vault"

    def __init__(
        self, url: str, token: str, *, mount: str = "transit", timeout_s: float = 10.0
    ) -> None:
        self._client = hvac.Client(url=url, token=token, timeout=timeout_s)
        self._mount = mount

    @contextmanager
    def _transit(self) -> Iterator[Any]:
        try:
            yield self._client.secrets.transit
        except vault_errors.VaultError as error:
            raise _ours(error) from error
        except requests.RequestException as error:
            raise ProviderError("vault: it is out of reach") from error

    def create(self, name: str) -> str:
        """Make a transit key.

        Raises:
            ProviderError: it exists, or the server refused.
        """
        with self._transit() as transit:
            try:
                transit.read_key(name=name, mount_point=self._mount)
            except vault_errors.InvalidPath:
                transit.create_key(
                    name=name, key_type="aes256-gcm96", exportable=False, mount_point=self._mount
                )
                return name
        raise ProviderError(f"vault: the key {name} exists")

    def wrap(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        """Encrypt inside the server, and see that it binds the context.

        Raises:
            ProviderError: the server refused, or is too old to know associated data: it would
                ignore the member, and the wrapped key would open under any context.
        """
        blob = self._encrypt(reference, key, context)
        try:
            self.unwrap(reference, blob, {**context, "safehold-probe": "another"})
        except WrongKeyError:
            return blob
        raise ProviderError("vault: expected a server that binds associated data; this one is old")

    def _encrypt(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        with self._transit() as transit:
            answer = transit.encrypt_data(
                name=reference,
                plaintext=base64.b64encode(key).decode(),
                associated_data=base64.b64encode(context_bytes(context)).decode(),
                mount_point=self._mount,
            )
        return _field(answer, "ciphertext")

    def unwrap(self, reference: str, blob: str, context: Mapping[str, str]) -> bytes:
        """Decrypt inside the server.

        Raises:
            WrongKeyError: another key or context.
        """
        with self._transit() as transit:
            answer = transit.decrypt_data(
                name=reference,
                ciphertext=blob,
                associated_data=base64.b64encode(context_bytes(context)).decode(),
                mount_point=self._mount,
            )
        try:
            return base64.b64decode(_field(answer, "plaintext"), validate=True)
        except binascii.Error as error:
            raise ProviderError("vault: it answered nonsense") from error

    def destroy(self, reference: str) -> str:
        """Allow the deletion of the key and delete it.

        Raises:
            ProviderError: no such key, or the server refused.
        """
        with self._transit() as transit:
            transit.update_key_configuration(
                name=reference, deletion_allowed=True, mount_point=self._mount
            )
            transit.delete_key(name=reference, mount_point=self._mount)
        return f"transit key {reference} deleted; storage snapshots of the server must follow"


def _ours(error: vault_errors.VaultError) -> ProviderError | WrongKeyError:
    # 400 by the API's documentation; 500 by some releases (hashicorp/vault issue 10842).
    if _BAD_TAG in str(error):
        return WrongKeyError("vault: the key does not open this wrapped key")
    words = next((said for kinds, said in _WHY if isinstance(error, kinds)), _FAILED)
    return ProviderError(f"vault: {words}")


_FAILED = "it failed; its log says more"
_WHY: tuple[tuple[tuple[type[vault_errors.VaultError], ...], str], ...] = (
    ((vault_errors.Forbidden,), "the token may not do this"),
    ((vault_errors.InvalidPath,), "no such transit key or engine"),
    ((vault_errors.InvalidRequest,), "it refused the request (no such key, or a bad one)"),
    ((vault_errors.Unauthorized,), "it does not know the token"),
    ((vault_errors.RateLimitExceeded,), "it has too much to do; try again"),
    (
        (vault_errors.VaultNotInitialized, vault_errors.VaultDown),
        "it is sealed, not initialized or down",
    ),
)


def _field(answer: Any, name: str) -> str:
    try:
        value = answer["data"][name]
    except (KeyError, TypeError) as error:
        raise ProviderError("vault: it answered nonsense") from error
    if not isinstance(value, str):
        raise ProviderError("vault: it answered nonsense")
    return value
