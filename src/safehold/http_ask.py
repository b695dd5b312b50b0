"""One HTTP request of ours to an address that an operator named: the scheme is checked here."""

import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPResponse

from safehold.errors import UsageError


def ask(
    url: str,
    *,
    timeout_s: float,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
) -> HTTPResponse:
    """Open an http or https address; the caller closes the answer.

    Raises:
        UsageError: The address has another scheme; a `file:` would be read from our own disk.
        OSError: Nobody answered; `urllib.error.HTTPError` is one, for an answer of an error.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"expected an http or https address, got {url[:60]!r}")
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        url, data=data, headers=dict(headers or {}), method=method
    )
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310 - as above
    return answer
