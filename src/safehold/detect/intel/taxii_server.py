"""A small TAXII 2.1 server (OASIS, 2021) as Starlette routes, for the console or alone.

Two collections: `shared` is read, what we tell; `inbox` is written, and goes to quarantine. Every
request needs a client's name and password (HTTP Basic), whose digests alone are kept. A client may
ask so often in a minute, and a wrong password be tried less often.
"""

import base64
import binascii
import hashlib
import hmac
import math
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safehold.canonical import canonical
from safehold.detect.intel.inbound import seconds
from safehold.detect.intel.interface import Digest, Feed, InboundOutcome, Label, Tlp
from safehold.detect.intel.stix import Sharer, StixObject, objects
from safehold.detect.intel.store import IntelStore
from safehold.detect.pace import Pace, peer_of

MEDIA = "application/taxii+json;version=2.1"
_STIX = "application/stix+json;version=2.1"
_NAMESPACE = uuid.UUID("0d4dfb50-2b4b-5a76-8c70-3f0b2a3a9b60")
_MAX_BODY = 2 << 20
_MOST = 100
_STATUSES = 256
_MINUTE_S = 60.0
_WELCOME = ("application/taxii+json", "*/*", "application/*")
_GOOD = frozenset({InboundOutcome.TAKEN, InboundOutcome.REPLAYED})


class TaxiiClient(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may read and write: a name, and the SHA-256 of a random password."""

    name: Label
    sha256: Digest


class _Envelope(msgspec.Struct, frozen=True):
    objects: tuple[Any, ...] = ()


class _RefusedError(Exception):
    """What the server answers instead: an HTTP status, a sentence, and seconds to wait."""

    def __init__(self, status: int, title: str, *, wait_s: float = 0.0) -> None:
        super().__init__(title)
        self.status, self.title, self.wait_s = status, title, wait_s


class TaxiiServer:
    """Answers TAXII requests over a store."""

    def __init__(
        self,
        store: IntelStore,
        sharer: Sharer,
        clients: Sequence[TaxiiClient],
        *,
        contact: str,
        pace: Pace | None = None,
        tries: Pace | None = None,
    ) -> None:
        """Take the store, whose word it is, who may ask, and whom to ask.

        `pace` limits each client (else 120 requests a minute), `tries` the wrong passwords from one
        address (else 20 a minute).
        """
        self._pace = pace or Pace(each=120, together=1_200, window_s=_MINUTE_S)
        # Together without a bound that a flood could reach: it would lock every partner out.
        self._tries = tries or Pace(each=20, together=100_000, window_s=_MINUTE_S)
        self._store, self._sharer, self._contact = store, sharer, contact
        self._clients = {one.name: one.sha256 for one in clients}
        self._statuses: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.shared = str(uuid.uuid5(_NAMESPACE, f"shared {sharer.group}"))
        self.inbox = str(uuid.uuid5(_NAMESPACE, f"inbox {sharer.group}"))

    def routes(self) -> list[Route]:
        """Return the routes: `/taxii2/` and the API root `/taxii2/root/`."""
        collection = "/taxii2/root/collections/{collection}/"
        table: list[tuple[str, Callable[[Request, str, bytes], Response], list[str]]] = [
            ("/taxii2/", self._discovery, ["GET"]),
            ("/taxii2/root/", self._root, ["GET"]),
            ("/taxii2/root/status/{status}/", self._status, ["GET"]),
            ("/taxii2/root/collections/", self._collections, ["GET"]),
            (collection, self._collection, ["GET"]),
            (f"{collection}manifest/", self._manifest, ["GET"]),
            (f"{collection}objects/", self._objects, ["GET"]),
            (f"{collection}objects/", self._add, ["POST"]),
            (f"{collection}objects/{{object}}/", self._object, ["GET"]),
            (f"{collection}objects/{{object}}/versions/", self._versions, ["GET"]),
        ]
        return [
            Route(path, self._guarded(handler), methods=methods) for path, handler, methods in table
        ]

    def _guarded(
        self, handler: Callable[[Request, str, bytes], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                client = self._client(request)
                _acceptable(request)
                body = await _body(request)
                return await run_in_threadpool(handler, request, client, body)
            except _RefusedError as refused:
                more = (
                    {"www-authenticate": "Basic"}
                    if refused.status == HTTPStatus.UNAUTHORIZED
                    else {}
                )
                if refused.wait_s:
                    more["retry-after"] = str(math.ceil(refused.wait_s))
                error = {"title": refused.title, "http_status": str(refused.status)}
                return Response(
                    msgspec.json.encode(error), refused.status, media_type=MEDIA, headers=more
                )

        return endpoint

    def _client(self, request: Request) -> str:
        peer = peer_of(request.client.host if request.client else None)
        # Before the password is looked at: who guesses too fast learns nothing of the next guess.
        _in_time(self._tries.wait_s(peer, count=False))
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            name, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            name, password = "", ""
        digest = hashlib.sha256(password.encode()).hexdigest()
        known = self._clients.get(name, "0" * 64)
        if scheme.lower() != "basic" or not hmac.compare_digest(digest, known):
            self._tries.wait_s(peer)
            raise _RefusedError(401, "expected the name and password of a client")
        _in_time(self._pace.wait_s(name))
        return name

    def _discovery(self, request: Request, client: str, body: bytes) -> Response:
        del client, body
        root = str(request.url.replace(path="/taxii2/root/", query=""))
        return _answer(
            {
                "title": self._sharer.organisation,
                "contact": self._contact,
                "default": root,
                "api_roots": [root],
            }
        )

    def _root(self, request: Request, client: str, body: bytes) -> Response:
        del request, client, body
        return _answer(
            {
                "title": self._sharer.group,
                "versions": [MEDIA],
                "max_content_length": _MAX_BODY,
            }
        )

    def _collections(self, request: Request, client: str, body: bytes) -> Response:
        del request, client, body
        return _answer({"collections": [self._about(self.shared), self._about(self.inbox)]})

    def _collection(self, request: Request, client: str, body: bytes) -> Response:
        del client, body
        return _answer(self._about(request.path_params["collection"]))

    def _about(self, name: str) -> dict[str, Any]:
        if name not in {self.shared, self.inbox}:
            raise _RefusedError(404, "there is no such collection")
        read = name == self.shared
        return {
            "id": name,
            "title": "Shared techniques" if read else "Inbox",
            "can_read": read,
            "can_write": not read,
            "media_types": [_STIX],
        }

    def _objects(self, request: Request, client: str, body: bytes) -> Response:
        del client, body
        page, more, headers = self._page(request)
        return _answer({**({"objects": page} if page else {}), **more}, headers)

    def _manifest(self, request: Request, client: str, body: bytes) -> Response:
        del client, body
        page, more, headers = self._page(request)
        entries = [
            {
                "id": one["id"],
                "date_added": _version(one),
                "version": _version(one),
                "media_type": _STIX,
            }
            for one in page
        ]
        return _answer({**({"objects": entries} if entries else {}), **more}, headers)

    def _object(self, request: Request, client: str, body: bytes) -> Response:
        del client, body
        page, more, headers = self._page(request, only=request.path_params["object"])
        return _answer({"objects": page, **more}, headers)

    def _versions(self, request: Request, client: str, body: bytes) -> Response:
        del client, body
        page, more, headers = self._page(request, only=request.path_params["object"])
        return _answer({"versions": [_version(one) for one in page], **more}, headers)

    def _add(self, request: Request, client: str, body: bytes) -> Response:
        name = request.path_params["collection"]
        if not self._about(name)["can_write"]:
            raise _RefusedError(403, "this collection is only read")
        if (
            request.headers.get("content-type", "").partition(";")[0].strip()
            != MEDIA.partition(";")[0]
        ):
            raise _RefusedError(415, f"expected {MEDIA}")
        try:
            found = msgspec.json.decode(body, type=_Envelope)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _RefusedError(422, "expected an envelope of objects") from None
        feed = Feed(
            name=client,
            api_root="http://127.0.0.1/",
            collection=self.inbox,
            tlp=Tlp.AMBER_STRICT,
        )
        feed = msgspec.structs.replace(feed, name=f"inbox:{client}")
        counts = self._store.receive(feed, found.objects)
        good = sum(count for outcome, count in counts.items() if outcome in _GOOD)
        number = str(uuid.uuid4())
        status = {
            "id": number,
            "status": "complete",
            "request_timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "total_count": len(found.objects),
            "success_count": good,
            "failure_count": len(found.objects) - good,
            "pending_count": 0,
        }
        with self._lock:
            self._statuses[number] = {"client": client, **status}
            while len(self._statuses) > _STATUSES:
                del self._statuses[next(iter(self._statuses))]
        return _answer(status, status=202)

    def _status(self, request: Request, client: str, body: bytes) -> Response:
        del body
        with self._lock:
            found = self._statuses.get(request.path_params["status"], {})
        if found.get("client") != client:
            raise _RefusedError(404, "there is no such status")
        return _answer({name: value for name, value in found.items() if name != "client"})

    def _page(
        self, request: Request, *, only: str | None = None
    ) -> tuple[list[StixObject], dict[str, Any], dict[str, str]]:
        """Return a page of what the request asks for, oldest first."""
        if not self._about(request.path_params["collection"])["can_read"]:
            raise _RefusedError(403, "this collection is only written")
        found = sorted(
            objects(self._store.techniques(), self._sharer),
            key=lambda one: (_version(one), one["id"]),
        )
        if only is not None:
            found = [one for one in found if one["id"] == only]
            if not found:
                raise _RefusedError(404, "there is no such object")
        asked = request.query_params
        found = [one for one in found if _matches(one, asked)]
        try:
            start, limit = int(asked.get("next", "0")), int(asked.get("limit", _MOST))
        except ValueError:
            raise _RefusedError(400, "limit and next: expected numbers") from None
        if start < 0 or limit < 1:
            raise _RefusedError(400, "limit and next: expected positive numbers")
        end = start + min(limit, _MOST)
        page = found[start:end]
        more: dict[str, Any] = {"more": end < len(found)}
        if more["more"]:
            more["next"] = str(end)
        headers = {}
        if page:
            headers["x-taxii-date-added-first"] = _version(page[0])
            headers["x-taxii-date-added-last"] = _version(page[-1])
        return page, more, headers


def _in_time(wait_s: float) -> None:
    if wait_s:
        raise _RefusedError(429, "too many requests; wait as Retry-After says", wait_s=wait_s)


def _acceptable(request: Request) -> None:
    accept = request.headers.get("accept", "*/*").replace(" ", "")
    if not any(kind in accept for kind in _WELCOME):
        raise _RefusedError(406, f"expected to accept {MEDIA}")


def _matches(one: StixObject, asked: Mapping[str, str]) -> bool:
    after = asked.get("added_after")
    if after is not None:
        moment = seconds(after)
        if moment is None:
            raise _RefusedError(400, "added_after: expected a time")
        if (seconds(_version(one)) or "") <= moment:
            return False
    for name, value in (("match[id]", one["id"]), ("match[type]", one["type"])):
        wanted = asked.get(name)
        if wanted is not None and value not in wanted.split(","):
            return False
    version = asked.get("match[version]")
    if version is not None and not {"all", "first", "last"} & set(version.split(",")):
        return any(seconds(_version(one)) == seconds(each) for each in version.split(","))
    spec = asked.get("match[spec_version]")
    return spec is None or "2.1" in spec.split(",")


def _version(one: StixObject) -> str:
    return str(one.get("modified", one["created"]))


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise _RefusedError(413, f"expected at most {_MAX_BODY} bytes")
    return body


def _answer(
    value: dict[str, Any], headers: dict[str, str] | None = None, *, status: int = 200
) -> Response:
    return Response(canonical(value), status, media_type=MEDIA, headers=headers)
