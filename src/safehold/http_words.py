"""What an HTTP server told us in words of ours: when to come again, and why no answer came.

A message of ours never names a class of Python or of a library: that is nothing to act on.
"""

import email.utils
import http.client
import math
import re
import socket
import ssl
import urllib.error
from datetime import UTC

import aiohttp

_SECONDS = re.compile(r"[0-9]{1,400}(\.[0-9]{1,6})?")
_LONGEST_DATE = 64


def wait_asked_s(told: str | None, *, now: float, most_s: float) -> float | None:
    """Return how many seconds a server asks to wait (RFC 9110, section 10.2.3).

    Args:
        told: The value of its `Retry-After`: seconds, whole or with a fraction as some servers of
            models write them, or an HTTP date.
        now: POSIX seconds, which a date is compared with.
        most_s: No longer wait is returned, whatever is asked.

    Returns:
        Seconds from 0 to `most_s`; None where the header is absent or says nothing that can be
        read. A date that is past asks for no wait.
    """
    text = (told or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), most_s)
    if not text or len(text) > _LONGEST_DATE:
        return None
    try:
        when = email.utils.parsedate_to_datetime(text)
        # An HTTP date is in GMT; one that names no zone is read as such.
        at = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(at - now, 0.0), most_s) if math.isfinite(at) else None


def why_no_answer(error: BaseException) -> str:
    """Say why a server gave no whole answer, whichever client asked it."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered with status {error.code}"
    if type(error) is ConnectionError and error.args:  # one of our own, from `http_ask`
        return str(error)
    if isinstance(error, urllib.error.URLError):
        return why_no_answer(error.reason) if isinstance(error.reason, OSError) else _FAILED
    return next((said for kind, said in _kinds() if isinstance(error, kind)), _FAILED)


_FAILED = "the connection failed"
_UNKNOWN = "no host of that name is known"
_UNTRUSTED = "its certificate is not trusted here"
_NO_TLS = "it speaks no TLS that is understood here: http or https?"
_NOBODY = "nobody listens there"
_HUNG_UP = "it hung up without an answer"
_CUT = "its answer was cut off"
_NOT_HTTP = "it answered something that is not HTTP"
_LATE = "no answer in time"


def _kinds() -> tuple[tuple[type[BaseException], str], ...]:
    """Return the kinds with their words; the first that fits says it."""
    return (
        (aiohttp.ClientConnectorDNSError, _UNKNOWN),
        (aiohttp.ClientConnectorCertificateError, _UNTRUSTED),
        (aiohttp.ClientSSLError, _NO_TLS),
        (aiohttp.ServerFingerprintMismatch, "its certificate is another one"),
        (aiohttp.ClientProxyConnectionError, "the proxy can't be reached"),
        (aiohttp.ClientHttpProxyError, "the proxy refuses"),
        (aiohttp.ClientConnectorError, _NOBODY),
        (aiohttp.ConnectionTimeoutError, "no connection in time"),
        (TimeoutError, _LATE),
        (aiohttp.ServerDisconnectedError, _HUNG_UP),
        (aiohttp.ClientPayloadError, _CUT),
        (aiohttp.InvalidURL, "that is no address"),
        (aiohttp.ClientResponseError, _NOT_HTTP),
        (socket.gaierror, _UNKNOWN),
        (ssl.SSLCertVerificationError, _UNTRUSTED),
        (ssl.SSLError, _NO_TLS),
        (ConnectionRefusedError, _NOBODY),
        (ConnectionResetError, _HUNG_UP),
        (BrokenPipeError, _HUNG_UP),
        (http.client.RemoteDisconnected, _HUNG_UP),
        (http.client.IncompleteRead, _CUT),
        (http.client.HTTPException, _NOT_HTTP),
    )
