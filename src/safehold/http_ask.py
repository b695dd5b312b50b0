"""One HTTP request of ours to an address that an operator named, and its whole answer.

The rules are the same for every caller. The scheme is http or https. No redirect is followed: a key
that was meant for one address would go to another. The answer has a size and a time in which it
must be whole.
"""

import http.client
import io
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import IO, Any

import msgspec

from safehold.errors import UsageError, WireError

MOST_BYTES = 16 * 1024 * 1024
_PART = 1 << 16
_LONGEST_KEY = 8192


class WholeAnswer(msgspec.Struct, frozen=True):
    """A whole answer of status 200 to 299."""

    status: int
    body: bytes


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that follows no redirect: it is an answer of an error like any other."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


_OPENER = _opener()


def ask(
    url: str,
    *,
    timeout_s: float,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
    most_bytes: int = MOST_BYTES,
) -> WholeAnswer:
    """Ask an http or https address, and return its answer once it is whole.

    Raises:
        UsageError: The address is none, or has another scheme; a `file:` would be read from our
            own disk.
        OSError: Nobody answered, or no whole HTTP answer of at most `most_bytes` came within
            `timeout_s` of each step; `urllib.error.HTTPError` is one, for an answer of an error
            (a redirect too), with its body.
    """
    checked_address(url)
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        url, data=data, headers=dict(headers or {}), method=method
    )
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return WholeAnswer(int(answer.status), _whole(answer, timeout_s, most_bytes))
    except urllib.error.HTTPError as error:
        with error:
            body = _whole(error, timeout_s, most_bytes)
        raise urllib.error.HTTPError(
            url, error.code, _said(error), error.headers, io.BytesIO(body)
        ) from None
    except (http.client.HTTPException, ValueError) as error:
        raise ConnectionError("expected a whole HTTP answer, came something else") from error


def checked_address(url: str) -> str:
    """Return an http or https address that has a host and can stand in a request.

    Raises:
        UsageError: It is none, with what came, without a name and password before its host.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"expected an http or https address, got {_short(url)!r}") from error
    if not known:
        raise UsageError(f"expected an http or https address, got {_short(url)!r}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(
            "expected an http or https address without spaces and of ASCII characters alone, "
            f"got {_short(url)!r}: write others as %20 and the like"
        )
    return url


def checked_key(key: str) -> str:
    """Return a key that can stand in a header: visible ASCII characters; an empty one is none.

    Raises:
        UsageError: It can't, with the place of what is wrong and never the key.
    """
    if len(key) > _LONGEST_KEY:
        raise UsageError(
            f"expected a key of at most {_LONGEST_KEY} characters, got {len(key)}: is it the "
            "right file?"
        )
    for at, char in enumerate(key, start=1):
        if not "!" <= char <= "~":
            raise UsageError(
                f"expected a key of visible ASCII characters, got {_kind(char)} as number {at} "
                f"of {len(key)}: give the key alone"
            )
    return key


def _kind(char: str) -> str:
    """Say what kind of character it is, without showing it."""
    if char in "\r\n":
        return "a line break"
    if char.isspace():
        return "a space"
    return "a character beyond ASCII" if char > "~" else "a control character"


def object_of(answer: WholeAnswer, *, of: str) -> dict[str, Any]:
    """Return the JSON object that an answer is; `of` names who answered, for the error.

    Raises:
        WireError: It is none.
    """
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{of}: expected a JSON object, came something else") from error
    if not isinstance(found, dict):
        raise WireError(f"{of}: expected a JSON object, came something else")
    return found


def _whole(answer: IO[bytes], timeout_s: float, most_bytes: int) -> bytes:
    """Read to the end.

    Raises:
        OSError: It is cut, too long, or comes in drops.
    """
    until = time.monotonic() + timeout_s
    parts, size = [], 0
    try:
        while part := answer.read1(_PART):  # type: ignore[attr-defined]
            parts.append(part)
            size += len(part)
            if size > most_bytes:
                raise ConnectionError(f"expected an answer of at most {most_bytes} bytes")
            if time.monotonic() > until:
                raise TimeoutError(f"expected the whole answer within {timeout_s:g} s")
    except http.client.HTTPException as error:
        raise ConnectionError("expected a whole HTTP answer, came a part") from error
    left = getattr(answer, "length", None)
    if left:
        raise ConnectionError("expected a whole HTTP answer, came a part")
    return b"".join(parts)


def _said(error: urllib.error.HTTPError) -> str:
    """Return the reason of an error, and where a redirect points to."""
    where = error.headers.get("location") if error.headers else None
    if where is None:
        return str(error.reason)[:100]
    host = urllib.parse.urlsplit(where).netloc.rpartition("@")[2]
    return f"a redirect to {_short(host) or 'another path'}, which is not followed"


def _short(text: str) -> str:
    """Return an address without what stands before its host: it may hold a password."""
    scheme, found, rest = text.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"[:60]
