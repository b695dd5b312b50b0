"""What a web page could make a browser send to a gateway that asks for no key.

A page that its user only looks at may post to a loopback port. It can't set a JSON content type
without asking first, and a name that was rebound to 127.0.0.1 stays in the Host header.
"""

from safehold.errors import TrustError
from safehold.guard.gateway.http import RequestHead
from safehold.guard.gateway.interface import UnsupportedError
from safehold.guard.gateway.policy import LOOPBACK


def check_host(head: RequestHead, *, needs_key: bool) -> None:
    """Refuse another name than loopback's where no key is asked for.

    Raises:
        TrustError: The Host header names another machine.
    """
    if not needs_key and host_name(head.headers.get("host", "")) not in LOOPBACK:
        raise TrustError("expected a loopback Host header: this gateway asks for no key")


def check_head(head: RequestHead, *, needs_key: bool) -> None:
    """Refuse another name than loopback's, and a body that is not declared as JSON.

    Raises:
        TrustError: The Host header names another machine.
        UnsupportedError: The body is not declared as JSON.
    """
    check_host(head, needs_key=needs_key)
    if head.media_type != "application/json":
        raise UnsupportedError("expected content-type application/json, came another")


def host_name(host: str) -> str:
    """Return a Host header's name, without its port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
