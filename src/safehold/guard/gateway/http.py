"""The request side of raw ASGI: headers that are single, bodies that are small and prompt."""

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec

from safehold.errors import WireError
from safehold.guard.gateway.interface import TooLargeError
from safehold.guard.gateway.policy import Limits
from safehold.guard.gateway.relaying.client_response import Receive

_SINGLE = (
    "authorization",
    "x-api-key",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "host",
    "x-safehold-use-case",
)
_MAX_HEADERS = 128


class ClientGoneError(WireError):
    """The client hung up before its request was complete."""


class SlowBodyError(WireError):
    """Send the body faster."""


class RequestHead(msgspec.Struct, frozen=True):
    """A request's line and headers, names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw_path: str = ""
    """The path as it came, `%2F` and all; empty where a server does not tell it."""

    @property
    def media_type(self) -> str:
        """The content type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_head(scope: MutableMapping[str, Any], limits: Limits) -> RequestHead:
    """Read a request's line and headers.

    Raises:
        TooLargeError: There are too many headers, or too much of them.
        WireError: A header that must be single comes twice, or two that exclude each other came.
    """
    headers: dict[str, str] = {}
    raw = scope["headers"]
    if len(raw) > _MAX_HEADERS or sum(len(n) + len(v) for n, v in raw) > limits.max_header_bytes:
        raise TooLargeError(
            f"expected at most {_MAX_HEADERS} headers and {limits.max_header_bytes} bytes of them"
        )
    for name_bytes, value in raw:
        name = name_bytes.decode("latin-1").lower()
        if name in headers and name in _SINGLE:
            raise WireError(f"expected one {name} header, came two")
        headers[name] = value.decode("latin-1")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise WireError("expected content-length or transfer-encoding, came both")
    raw_path = (scope.get("raw_path") or b"").decode("latin-1").partition("?")[0]
    return RequestHead(
        method=scope["method"], path=scope["path"], headers=headers, raw_path=raw_path
    )


async def read_body(head: RequestHead, receive: Receive, limits: Limits) -> bytes:
    """Read a request's body.

    Raises:
        TooLargeError: It is longer than `max_body_bytes`.
        SlowBodyError: It did not come within `body_timeout_s`.
        ClientGoneError: The client hung up.
        WireError: It is compressed.
    """
    if head.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise WireError("expected a plain body, came an encoded one: send no content-encoding")
    declared = head.headers.get("content-length", "0")
    too_large = TooLargeError(f"expected a body of at most {limits.max_body_bytes} bytes")
    if not declared.isdigit() or int(declared) > limits.max_body_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError("the client hung up")
                part = message.get("body", b"")
                size += len(part)
                if size > limits.max_body_bytes:
                    raise too_large
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise SlowBodyError(f"expected the body within {limits.body_timeout_s} s") from None
