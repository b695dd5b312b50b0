"""Keys in files of this machine: for development. Whoever reads the disk has the weights."""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from safehold.errors import ConfigError
from safehold.secure.weights.interface import KEY_BYTES, ProviderError
from safehold.secure.weights.providers.envelope import unwrap_with, wrap_with
from safehold.trust.log.files import write_new
from safehold.trust.log.key_files import read_secret


class UnsafeKeyWarning(UserWarning):
    """Keys lie in plain files: do not use this for weights that matter."""


class UnsafeLocalProvider:
    """One file of 32 bytes for each key, readable by its owner alone."""

    kind = "unsafe-local"

    def __init__(self, folder: Path) -> None:
        warnings.warn(
            f"key files in {folder.name}: whoever reads them reads the weights",
            UnsafeKeyWarning,
            stacklevel=2,
        )
        self._folder = folder

    def create(self, name: str) -> str:
        """Make a key file.

        Raises:
            ProviderError: it exists, or the disk refused.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_new(self._path(name), os.urandom(KEY_BYTES))
        except OSError as error:
            raise ProviderError(f"can't make key {name}: {error.strerror}") from error
        return name

    def wrap(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        """Wrap with AES-256-GCM."""
        return wrap_with(self._key(reference), key, context)

    def unwrap(self, reference: str, blob: str, context: Mapping[str, str]) -> bytes:
        """Unwrap with AES-256-GCM."""
        return unwrap_with(self._key(reference), blob, context)

    def destroy(self, reference: str) -> str:
        """Overwrite and remove the file.

        Raises:
            ProviderError: there is none, or the disk refused.
        """
        path = self._path(reference)
        try:
            with path.open("r+b") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        except OSError as error:
            raise ProviderError(f"can't destroy key {reference}: {error.strerror}") from error
        return f"key file {reference} overwritten and removed; backups of it still open copies"

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", name):
            raise ProviderError("expected the name of a key file")
        return self._folder / f"{name}.kek"

    def _key(self, name: str) -> bytes:
        path = self._path(name)
        try:
            key = read_secret(path)
        except ConfigError as error:
            raise ProviderError(f"key {name}: {error}") from error
        if len(key) != KEY_BYTES:
            raise ProviderError(f"key {name}: expected {KEY_BYTES} bytes, got {len(key)}")
        return key
