"""A TAXII 2.1 client (OASIS, 2021): pinned, bounded, never redirected."""

import base64
import hashlib
import hmac
import http.client
import ipaddress
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from safehold.detect.intel.inbound import seconds
from safehold.detect.intel.interface import Feed, InboundOutcome
from safehold.detect.intel.store import IntelStore
from safehold.errors import ConfigError, DataError, TrustError, UpstreamError
from safehold.http_words import why_no_answer

Answer = TypeVar("Answer", bound=msgspec.Struct)
MEDIA = "application/taxii+json;version=2.1"
_PAGE = 100
_MAX_PAGE_BYTES = 8 << 20
_MAX_PAGES = 2_000
_WAIT_S = 30.0
_LONGEST_S = 600.0
_OK, _ACCEPTED = 200, 202


class TaxiiPage(msgspec.Struct, frozen=True):
    """One page of a collection; `objects` are as they came."""

    objects: tuple[Any, ...] = ()
    more: bool = False
    next: str = ""


class TaxiiStatus(msgspec.Struct, frozen=True):
    """What a server made of what was sent to it."""

    status: str
    success_count: int = 0
    failure_count: int = 0
    pending_count: int = 0


class FeedTransport(Protocol):
    """Sends one request to a feed's server."""

    def __call__(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers (names in lower case) and body.

        Raises:
            UpstreamError: it can't be reached, or says too much.
            TrustError: it is not the pinned one.
        """
        ...


def pull(
    feed: Feed,
    store: IntelStore,
    wire: FeedTransport,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> dict[InboundOutcome, int]:
    """Take what is new at a feed into quarantine; return how many came to which end.

    It stops when the feed has sent more than it may in a day: the rest is not asked for.

    Raises:
        UpstreamError: the server failed, or pages without end.
        TrustError: the server is not the pinned one.
    """
    counts: dict[InboundOutcome, int] = {}
    query = {"limit": str(_PAGE)}
    cursor = store.cursor(feed)
    if cursor:
        query["added_after"] = cursor
    seen: set[bytes] = set()
    began = clock()
    for _ in range(_MAX_PAGES):
        path = f"{_collection(feed)}objects/?{urlencode(query)}"
        status, headers, body = wire("GET", path, None, {"accept": MEDIA})
        if status != _OK:
            raise UpstreamError(f"feed {feed.name}: the server answered {status}")
        page = _decoded(body, TaxiiPage, feed)
        for outcome, count in store.receive(feed, page.objects).items():
            counts[outcome] = counts.get(outcome, 0) + count
        if InboundOutcome.FLOODED in counts:
            return counts
        newest = headers.get("x-taxii-date-added-last", "")
        if page.objects and seconds(newest) is not None and newest > cursor:
            cursor = newest
        if not page.more:
            if cursor:
                store.move_cursor(feed, cursor)
            return counts
        # Some servers keep one `next` for all pages: what tells a circle is that nothing is new.
        before = len(seen)
        seen |= {hashlib.sha256(msgspec.json.encode(one)).digest() for one in page.objects}
        if not page.next or len(seen) == before or clock() - began > _LONGEST_S:
            break
        query["next"] = page.next
    raise UpstreamError(f"feed {feed.name}: the server pages without end")


def push(feed: Feed, envelope: bytes, wire: FeedTransport) -> TaxiiStatus:
    """Send objects to a collection and return what the server made of them.

    Raises:
        UpstreamError: the server refused them.
        TrustError: the server is not the pinned one.
    """
    headers = {"accept": MEDIA, "content-type": MEDIA}
    status, _, body = wire("POST", f"{_collection(feed)}objects/", envelope, headers)
    if status != _ACCEPTED:
        raise UpstreamError(f"feed {feed.name}: the server answered {status}")
    return _decoded(body, TaxiiStatus, feed)


class HttpsWire:
    """Talks to the feed's server: its certificate is compared before anything is said."""

    def __init__(self, feed: Feed, password: str = "") -> None:
        """Take the feed and the password.

        Raises:
            ConfigError: the server is not loopback and has no pinned certificate.
        """
        self._feed, self._at = feed, urlsplit(feed.api_root)
        self._authorization = ""
        if feed.user:
            pair = base64.b64encode(f"{feed.user}:{password}".encode()).decode()
            self._authorization = f"Basic {pair}"
        if self._at.scheme == "https" and feed.tls_sha256 is None:
            raise ConfigError(f"feed {feed.name}: expected tls_sha256, its certificate's digest")
        if self._at.scheme == "http" and not _loopback(self._at.hostname or ""):
            raise ConfigError(f"feed {feed.name}: expected https and tls_sha256 off this machine")

    def __call__(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send one request on a connection of its own."""
        connection = self._connected()
        try:
            sent = dict(headers)
            if self._authorization:
                sent["authorization"] = self._authorization
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            data = answer.read(_MAX_PAGE_BYTES + 1)
            found = {name.lower(): value for name, value in answer.getheaders()}
        except (OSError, http.client.HTTPException) as error:
            raise UpstreamError(
                f"feed {self._feed.name}: the server can't be read ({why_no_answer(error)})"
            ) from error
        finally:
            connection.close()
        if len(data) > _MAX_PAGE_BYTES:
            raise UpstreamError(f"feed {self._feed.name}: a page is larger than {_MAX_PAGE_BYTES}")
        return answer.status, found, data

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self._at.hostname or "", self._at.port
        if self._at.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_WAIT_S)
        context = ssl.create_default_context()
        # The pin decides: a group's server often has a certificate of its own making.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=_WAIT_S, context=context)
        try:
            connection.connect()
            certificate = connection.sock.getpeercert(binary_form=True) or b""
        except OSError as error:
            connection.close()
            raise UpstreamError(
                f"feed {self._feed.name}: the server can't be reached ({why_no_answer(error)})"
            ) from error
        digest = hashlib.sha256(certificate).hexdigest()
        if not hmac.compare_digest(digest, self._feed.tls_sha256 or ""):
            connection.close()
            raise TrustError(
                f"feed {self._feed.name}: expected the certificate "
                f"{(self._feed.tls_sha256 or '')[:16]}, came {digest[:16]}"
            )
        return connection


def _collection(feed: Feed) -> str:
    return f"{urlsplit(feed.api_root).path}collections/{quote(feed.collection)}/"


def _decoded(body: bytes, kind: type[Answer], feed: Feed) -> Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"feed {feed.name}: expected a TAXII answer, came something else"
        ) from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
