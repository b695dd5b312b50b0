"""The bundles that the package ships, each pinned by the digest of its manifest."""

from pathlib import Path

from safehold.errors import BundleError
from safehold.guard.bundle.load import PinnedDigest

_PINS = {
    "homebrewing": "339b51940dfe84bb301455752e7346349ae78a8f24e18131dc9244ae6d9d5479",
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
