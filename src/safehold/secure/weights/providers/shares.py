"""A key that nobody holds: m of n persons bring a share each, opened by their passphrase.

The key is split by Shamir's scheme over GF(2^8) (`pyshamir`, the form HashiCorp Vault uses); each
share is encrypted with scrypt and AES-256-GCM into a file of its own. With n = 1 the whole key is
the one share: a passphrase. `pyshamir` is pure Python and not constant-time; the ceremony is local.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from safehold.errors import DependencyError
from safehold.secure.weights.interface import (
    KEY_BYTES,
    Hex16,
    Hex32,
    ProviderError,
    WrongKeyError,
)
from safehold.secure.weights.keys import key_check
from safehold.secure.weights.providers.envelope import unwrap_with, wrap_with
from safehold.trust.log.files import write_new

_LEAST = 2
"""Shamir's least: one share alone would be the secret."""

MAX_SHARES = 32
MIN_PASSPHRASE = 12
WORK = 17  # scrypt with N = 2^17, r = 8, p = 1 (OWASP's first choice): 128 MiB, about half a second

Ask = Callable[[str], str]
"""Returns the passphrase of the share that the words describe."""


class ShareFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One share: of which key, which one of how many, and how many it takes."""

    key: str
    number: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARES)]
    shares: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARES)]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARES)]
    check: Hex32
    """Commits to the whole key, so that a wrong set of shares is known as such."""
    salt: Hex16
    work: Annotated[int, msgspec.Meta(ge=10, le=24)]
    """The passphrase is stretched by scrypt with N = 2^work."""
    blob: str


class ShareProvider:
    """Wraps with a key that exists only while it is used.

    Args:
        folder: Where new share files are written, and where they are brought to be used.
        shares: n, for new keys.
        threshold: m, for new keys.
        ask: Asks a person for their passphrase.
        work: How hard new passphrases are stretched, as a power of two.
    """

    kind = "shares"

    def __init__(
        self, folder: Path, ask: Ask, *, shares: int = 1, threshold: int = 1, work: int = WORK
    ) -> None:
        single = shares == threshold == 1
        if not single and not _LEAST <= threshold <= shares <= MAX_SHARES:
            raise ProviderError(
                f"expected 2 <= threshold <= shares <= {MAX_SHARES}, or one passphrase (1 of 1)"
            )
        self._folder = folder
        self._ask = ask
        self._shares = shares
        self._threshold = threshold
        self._work = work
        self._fresh: dict[str, bytes] = {}

    def create(self, name: str) -> str:
        """Make a key, split it, and write the share files.

        Raises:
            ProviderError: a passphrase is too short, a file exists, or the disk refused.
        """
        key = os.urandom(KEY_BYTES)
        parts = _split(key, self._shares, self._threshold)
        check = key_check(key, name)
        for number, part in enumerate(parts, start=1):
            passphrase = self._ask(f"New passphrase for share {number} of {self._shares}")
            if len(passphrase) < MIN_PASSPHRASE:
                raise ProviderError(f"expected a passphrase of {MIN_PASSPHRASE} characters or more")
            salt = secrets.token_hex(16)
            context = _share_context(name, number)
            share = ShareFile(
                key=name,
                number=number,
                shares=self._shares,
                threshold=self._threshold,
                check=check,
                salt=salt,
                work=self._work,
                blob=wrap_with(_stretch(passphrase, salt, self._work), part, context),
            )
            self._write(share)
        self._fresh[name] = key
        return f"{name} {self._threshold}-of-{self._shares}"

    def wrap(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        """Wrap; right after `create` nobody is asked again, and the key is forgotten here."""
        name = reference.split(" ", 1)[0]
        kek = self._fresh.pop(name, None)
        return wrap_with(self._combine(name) if kek is None else kek, key, context)

    def unwrap(self, reference: str, blob: str, context: Mapping[str, str]) -> bytes:
        """Unwrap with the shares that were brought.

        Raises:
            ProviderError: fewer shares than the threshold.
            WrongKeyError: a wrong passphrase, or shares of different keys.
        """
        return unwrap_with(self._combine(reference.split(" ", 1)[0]), blob, context)

    def destroy(self, reference: str) -> str:
        """Remove the share files that are here; say what only people can do."""
        name = reference.split(" ", 1)[0]
        here = self._find(name)
        for path, _ in here:
            try:
                path.unlink()
            except OSError as error:
                raise ProviderError(f"can't remove {path.name}: {error.strerror}") from error
        return (
            f"{len(here)} share file(s) of {name} removed here; shares that persons keep still "
            "open earlier copies of the header: collect and destroy them"
        )

    def _write(self, share: ShareFile) -> None:
        path = self._folder / f"{share.key}.share-{share.number}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_new(path, msgspec.json.encode(share))
        except OSError as error:
            raise ProviderError(f"can't write {path.name}: {error.strerror}") from error

    def _find(self, name: str) -> list[tuple[Path, ShareFile]]:
        found: dict[int, tuple[Path, ShareFile]] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                share = msgspec.json.decode(path.read_bytes(), type=ShareFile)
            except (OSError, msgspec.DecodeError):
                continue  # another kind of file in the same folder
            if share.key == name:
                found.setdefault(share.number, (path, share))
        return list(found.values())

    def _combine(self, name: str) -> bytes:
        here = [share for _, share in self._find(name)]
        # 1. Enough shares, of one key and one splitting.
        if not here:
            raise ProviderError(f"expected share files of {name}, got none")
        first = here[0]
        if len({(share.check, share.threshold, share.shares) for share in here}) != 1:
            raise WrongKeyError("the shares are of different keys")
        if len(here) < first.threshold:
            raise ProviderError(
                f"expected {first.threshold} of {first.shares} shares, got {len(here)}"
            )
        # 2. Each opened by its own person.
        parts: list[bytes] = []
        for share in here[: first.threshold]:
            passphrase = self._ask(f"Passphrase for share {share.number} of {share.shares}")
            try:
                kek = _stretch(passphrase, share.salt, share.work)
                parts.append(unwrap_with(kek, share.blob, _share_context(name, share.number)))
            except WrongKeyError as error:
                raise WrongKeyError(f"wrong passphrase for share {share.number}") from error
        # 3. The key is the one that was split.
        key = parts[0] if first.threshold == 1 else _join(parts)
        if key_check(key, name) != first.check:
            raise WrongKeyError("the shares do not make the key that was split")
        return key


def _share_context(name: str, number: int) -> dict[str, str]:
    return {"safehold-share": name, "number": str(number)}


def _stretch(passphrase: str, salt: str, work: int) -> bytes:
    return Scrypt(bytes.fromhex(salt), KEY_BYTES, n=2**work, r=8, p=1).derive(passphrase.encode())


def _split(key: bytes, shares: int, threshold: int) -> list[bytes]:
    if threshold == 1:
        return [key]
    try:
        from pyshamir import split
    except ImportError as error:
        raise DependencyError("shares: expected `pip install safehold[weights]`") from error
    return [bytes(part) for part in split(key, shares, threshold)]


def _join(parts: list[bytes]) -> bytes:
    try:
        from pyshamir import combine
    except ImportError as error:
        raise DependencyError("shares: expected `pip install safehold[weights]`") from error
    try:
        return bytes(combine([bytearray(part) for part in parts]))
    except (ValueError, ZeroDivisionError) as error:
        raise WrongKeyError("the shares do not fit together") from error
