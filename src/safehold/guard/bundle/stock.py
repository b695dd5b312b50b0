"""The bundles that the package ships, each pinned by the digest of its manifest."""

from pathlib import Path

from safehold.errors import BundleError
from safehold.guard.bundle.load import Pinned

_PINS = {
    "homebrewing": "31c621ff31e50ba2f88b0b041cde38421fc0d753128e30e8e046ea4a249cb777",
}


def stock_bundle(name: str = "homebrewing") -> tuple[Path, Pinned]:
    """Return the folder of a shipped bundle and the only manifest it may have.

    Raises:
        BundleError: The package ships no such bundle.
    """
    try:
        pin = _PINS[name]
    except KeyError as error:
        known = ", ".join(sorted(_PINS))
        raise BundleError(f"no stock bundle {name!r}; there are: {known}") from error
    return Path(__file__).parent / "shipped" / name, Pinned(pin)
