"""A bundle by its name or folder, with whatever says why to trust it."""

from pathlib import Path

from safehold.errors import BundleError
from safehold.guard.bundle.load import (
    Bundle,
    PinnedDigest,
    SignedBy,
    Trust,
    UnsafeUnsigned,
    load_bundle,
)
from safehold.guard.bundle.signing import load_public_key
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.served.interface import ServedModel

OWN_KEY = Path("~/.config/safehold/bundle-key.pub")
"""The public half of the key that `safehold train` signs with by default."""


def open_bundle(
    name: str,
    keys: tuple[str, ...],
    sha256: str | None,
    *,
    unsigned: bool = False,
    served: ServedModel | None = None,
) -> Bundle:
    """Load the bundle in a folder, or a stock bundle by its name.

    Raises:
        BundleError: There is no such bundle, or nothing says why to trust it.
    """
    folder = Path(name)
    if not folder.is_dir():
        if folder.name != name:
            raise BundleError(f"{name}: expected the folder of a bundle")
        stock, pinned = stock_bundle(name)
        return load_bundle(stock, pinned, served=served)
    return load_bundle(folder, _trust(keys, sha256, unsigned=unsigned), served=served)


def _trust(keys: tuple[str, ...], sha256: str | None, *, unsigned: bool) -> Trust:
    if keys:
        return SignedBy(keys=tuple(load_public_key(Path(key)) for key in keys))
    if sha256 is not None:
        return PinnedDigest(sha256=sha256)
    if unsigned:
        return UnsafeUnsigned()
    own = OWN_KEY.expanduser()
    if own.is_file():
        return SignedBy(keys=(load_public_key(own),))
    raise BundleError("a bundle needs trust: --bundle-key FILE, or --bundle-sha256 DIGEST")
