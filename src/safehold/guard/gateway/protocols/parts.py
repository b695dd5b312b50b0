"""Content that no scorer reads, as every protocol takes it."""

import hashlib

from safehold.exchange import OpaquePart
from safehold.guard.gateway.interface import Rules, UnsupportedError


def opaque(media_type: str, identity: str, rules: Rules) -> OpaquePart:
    """Return content that no scorer here reads as a part, if the rules let it pass.

    Raises:
        UnsupportedError: The rules refuse it (the default).
    """
    if rules.images != "pass":
        raise UnsupportedError(
            f"expected text, came {media_type}: this surface does not pass content it can't score"
        )
    data = identity.encode()
    digest = hashlib.sha256(data).hexdigest()
    return OpaquePart(media_type=media_type, sha256=digest, size_bytes=len(data))
