"""The bundles that the package ships, each pinned by the digest of its manifest."""

from pathlib import Path

from safehold.errors import BundleError
from safehold.guard.bundle.load import PinnedDigest

_PINS = {
    "homebrewing": "3aedb9ad45b91afec4d2885ca8938b230c9d613b8a16117d658f967ac6f7c43e",
}


def stock_bundle(name: str = "homebrewing") -> tuple[Path, PinnedDigest]:
    """Return the folder of a shipped bundle and the only manifest it may have.

    Raises:
        BundleError: The package ships no such bundle.
    """
    try:
        pin = _PINS[name]
    except KeyError as error:
        known = ", ".join(sorted(_PINS))
        raise BundleError(f"no stock bundle {name!r}; there are: {known}") from error
    return Path(__file__).parent / "shipped" / name, PinnedDigest(pin)
