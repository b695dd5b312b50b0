"""The key type of persons for python-tuf's client: `register` before it reads our metadata."""

import importlib
from typing import Any

from safehold.errors import DependencyError
from safehold.secure.change.tuf_export import KEY_TYPE, NAMESPACE, SCHEME
from safehold.trust.people.interface import SignatureError, SshKey
from safehold.trust.people.sshsig import verify_sshsig


def register() -> None:
    """Let securesystemslib (python-tuf) verify SSH signatures, in process.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        signer = importlib.import_module("securesystemslib.signer")
        errors = importlib.import_module("securesystemslib.exceptions")
    except ImportError as error:
        raise DependencyError("TUF clients need tuf: pip install tuf") from error
    base: Any = signer.Key

    class SshsigKey(base):  # type: ignore[misc] # loaded by name
        """A person's SSH key."""

        @classmethod
        def from_dict(cls, keyid: str, key_dict: dict[str, Any]) -> "SshsigKey":
            kind, scheme, value = cls._from_dict(key_dict)
            return cls(keyid, kind, scheme, value, key_dict)

        def to_dict(self) -> dict[str, Any]:
            found: dict[str, Any] = self._to_dict()
            return found

        def verify_signature(self, signature: Any, data: bytes) -> None:  # noqa: ANN401 - its own
            try:
                key = SshKey(self.keyval["public"])
                verify_sshsig(key, data, signature.signature, namespace=NAMESPACE)
            except SignatureError as error:
                raise errors.UnverifiedSignatureError(str(error)) from error

    signer.KEY_FOR_TYPE_AND_SCHEME[KEY_TYPE, SCHEME] = SshsigKey
