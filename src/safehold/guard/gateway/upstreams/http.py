"""The seam to the model server. Its limits sit here, where no implementation can forget them."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp

from safehold.errors import ConfigError, UpstreamError, UsageError
from safehold.guard.gateway.interface import BrokenReplyError, SilentUpstreamError
from safehold.guard.gateway.policy import Limits
from safehold.http_ask import checked_address, checked_key

_READ_BYTES = 64 * 1024
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Encodings that are undone though none was asked for, and zlib's word for their frames."""


class Answer(Protocol):
    """An upstream's response whose body is still to be read."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def content_type(self) -> str:
        """The media type, lower case, without parameters."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers as they came."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            UpstreamError: The connection broke or fell silent.
        """
        ...

    def abort(self) -> None:
        """Drop the connection; `chunks` ends with an error or at once."""
        ...


class Client(Protocol):
    """Opens requests to a model server."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a body to a path below the base URL and return once headers came.

        Raises:
            UpstreamError: The server can't be reached or did not answer in time.
        """
        ...

    async def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Fetch a path below the base URL."""
        ...

    async def close(self) -> None:
        """Drop all connections."""
        ...


async def read_all(answer: Answer, limits: Limits) -> bytes:
    """Return a whole body.

    Raises:
        BrokenReplyError: It is longer than `max_reply_bytes`.
        SilentUpstreamError: It was not whole within `total_timeout_s`.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.total_timeout_s):
            async for chunk in answer.chunks():
                size += len(chunk)
                if size > limits.max_reply_bytes:
                    answer.abort()
                    raise BrokenReplyError(
                        f"upstream: expected at most {limits.max_reply_bytes} bytes"
                    )
                parts.append(chunk)
    except TimeoutError as error:
        raise SilentUpstreamError("upstream: did not end its answer in time") from error
    return b"".join(parts)


def _encoding(response: aiohttp.ClientResponse) -> str:
    name = response.headers.get("content-encoding", "").strip().lower()
    return "" if name == "identity" else name


def unpacked(unpack: "zlib._Decompress", chunk: bytes) -> Iterator[bytes]:
    """Yield what a compressed chunk holds in bounded parts: a bomb meets the limit of a reply."""
    while chunk:
        part = unpack.decompress(chunk, _READ_BYTES)
        if part:
            yield part
        chunk = unpack.unconsumed_tail
        if not part and not chunk:
            return


class HttpAnswer:
    """An aiohttp response that may stay silent for `idle_s` at most while it is being read.

    One timer an answer, looked at when it is due: a timer for each chunk costs more than the chunk.
    """

    def __init__(self, response: aiohttp.ClientResponse, idle_s: float) -> None:
        self._response = response
        self._idle_s = idle_s
        self._waiting_since: float | None = None
        self._silent = False
        self._timer: asyncio.TimerHandle | None = None
        packed = _encoding(response)
        self._unpack = zlib.decompressobj(_WINDOWS[packed]) if packed else None
        self.status = response.status
        self.content_type = response.content_type.lower()
        self.headers = response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            UpstreamError: The connection broke or fell silent.
        """
        content, now = self._response.content, asyncio.get_running_loop().time
        self._watch()
        try:
            while True:
                self._waiting_since = now()
                chunk = await content.readany()
                self._waiting_since = None
                if not chunk:
                    break
                if self._unpack is None:
                    yield chunk
                else:
                    for part in unpacked(self._unpack, chunk):
                        yield part
            if self._unpack is not None and not self._unpack.eof:
                raise UpstreamError("upstream: a compressed answer ended in the middle")
        except zlib.error as error:
            raise BrokenReplyError("upstream: its answer can't be decompressed") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if self._silent:
                raise SilentUpstreamError(
                    "upstream: fell silent in the middle of an answer"
                ) from error
            raise UpstreamError(
                "upstream: the connection broke in the middle of an answer"
            ) from error
        finally:
            self.abort()

    def _watch(self) -> None:
        """Drop a connection that was silent for too long; else look again when it may have been."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        since = now if self._waiting_since is None else self._waiting_since
        if now - since >= self._idle_s:
            self._silent = True
            self._response.close()
        else:
            self._timer = loop.call_at(since + self._idle_s, self._watch)

    def abort(self) -> None:
        """Drop the connection unless its body was read to the end."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._response.closed:
            if self._response.content.at_eof():
                self._response.release()
            else:
                self._response.close()


class HttpClient:
    """A model server behind a base URL that ends in its version, such as `http://host:8000/v1`."""

    def __init__(self, base: str, limits: Limits, key: str | None = None) -> None:
        """Take the base URL, the limits, and the key that the gateway presents.

        Raises:
            ConfigError: The base URL is not http or https.
        """
        self._base = base_url(base)
        self._key = key
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout_s)
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15),
                timeout=self._timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BYTES,
                max_line_size=self._limits.max_header_bytes,
                max_field_size=self._limits.max_header_bytes,
            )
        return self._session

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        sent = dict(headers)
        sent["accept-encoding"] = "identity"
        if self._key is not None:
            sent["authorization"] = f"Bearer {self._key}"
            sent["x-api-key"] = self._key
        return sent

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """Send a body to a path below the base URL and return once headers came.

        Raises:
            UpstreamError: The server can't be reached or did not answer in time.
        """
        sent = {"content-type": "application/json"} | self._headers(headers)
        return await self._request("POST", path, sent, body)

    async def get(self, path: str, headers: Mapping[str, str]) -> HttpAnswer:
        """Fetch a path below the base URL.

        Raises:
            UpstreamError: The server can't be reached or did not answer in time.
        """
        return await self._request("GET", path, self._headers(headers), None)

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> HttpAnswer:
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s):
                response = await self._open().request(
                    method, self._base + path, data=body, headers=headers, allow_redirects=False
                )
        except TimeoutError as error:
            raise SilentUpstreamError("upstream: did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamError("upstream: can't be reached") from error
        if _encoding(response) not in ("", *_WINDOWS):
            response.close()
            raise BrokenReplyError("upstream: expected gzip or no encoding, came another one")
        return HttpAnswer(response, self._limits.idle_timeout_s)

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # let the transports finish closing


def base_url(url: str) -> str:
    """Return a base URL that ends in a version path and no slash.

    Raises:
        ConfigError: The URL is not http or https, can't stand in a request, or has a query.
    """
    try:
        parts = urlsplit(checked_address(url))
    except UsageError as error:
        raise ConfigError(f"upstream: {error}, or `local`, or `hf:PATH`") from error
    if parts.query or parts.fragment:
        raise ConfigError("upstream: expected `local`, `hf:PATH` or an http(s) URL without a query")
    if parts.username or parts.password:
        raise ConfigError("upstream: put the key into api_key_file, not into the URL")
    base = url.rstrip("/")
    return base if parts.path.strip("/") else f"{base}/v1"


def read_key(path: str | None) -> str | None:
    """Return the key in a file, or None for no file.

    Raises:
        ConfigError: The file can't be read or is empty.
    """
    if path is None:
        return None
    try:
        key = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file {path}: can't be read") from error
    if not key:
        raise ConfigError(f"api_key_file {path}: is empty")
    try:
        return checked_key(key)
    except UsageError as error:
        raise ConfigError(f"api_key_file {path}: {error}") from error
