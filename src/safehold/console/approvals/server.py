"""Routes, headers and limits of the approval page; the desk decides everything.

Every act that is posted carries its person's own signature, so the page needs no login and the
server holds no secret of a person. Reading is not protected here: bind to localhost, or put your
own authenticating proxy before it.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from safehold.canonical import CanonicalError
from safehold.console.approvals.api import ApprovalsApi
from safehold.console.approvals.challenges import OwnChallenges
from safehold.errors import TrustError
from safehold.trust.grants.grant_service import Desk
from safehold.trust.people.interface import SignatureError

MAX_BODY_BYTES = 64 * 1024
_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Permissions-Policy": (
        "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), "
        "microphone=(), geolocation=()"
    ),
}

Handler = Callable[[Request, bytes], object]


class _TooLargeError(Exception):
    """The body is larger than any signed act can be."""


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLargeError
    return body


async def _harden(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def _foreign(request: Request) -> Response | None:
    """Refuse what another site's page could make a browser send."""
    if request.method != "POST":
        return None
    # Another origin can't send this type without asking first, and none is let.
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        return JSONResponse({"error": "expected application/json"}, status_code=415)
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return JSONResponse({"error": "expected our own page"}, status_code=403)
    return None


def _answer(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: JSON in, JSON out, one clear line for every error of ours."""

    async def endpoint(request: Request) -> Response:
        foreign = _foreign(request)
        if foreign is not None:
            return foreign
        try:
            body = await _body(request)
            value = await run_in_threadpool(handler, request, body)
        except _TooLargeError:
            error = f"expected at most {MAX_BODY_BYTES} bytes"
            return JSONResponse({"error": error}, status_code=413)
        except (msgspec.DecodeError, CanonicalError) as error:
            return JSONResponse({"error": f"malformed: {error}"}, status_code=400)
        except SignatureError as error:
            return JSONResponse({"error": str(error)}, status_code=403)
        except TrustError as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        content = msgspec.json.encode(value)
        return Response(content, media_type="application/json")

    return endpoint


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        del request
        return FileResponse(_STATIC / name)

    return endpoint


def approvals_app(desk: Desk, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """Return the ASGI application over a desk whose log is founded.

    Raises:
        TrustError: the log has no policy yet: it says which origins the page may have.
    """
    api = ApprovalsApi(desk, OwnChallenges(clock))
    hosts = sorted(
        {urlsplit(one).hostname or "" for one in desk.state.policy.relying_party.origins}
    )
    routes = [
        Route("/", _file("index.html")),
        Route("/enrol", _file("enrol.html")),
        Route("/static/approvals.css", _file("approvals.css")),
        Route("/static/ceremony.js", _file("ceremony.js")),
        Route("/static/approvals.js", _file("approvals.js")),
        Route("/static/enrol.js", _file("enrol.js")),
        Route("/api/requests", _answer(api.list), methods=["GET"]),
        Route("/api/requests", _answer(api.file), methods=["POST"]),
        Route("/api/requests/{id}", _answer(api.show), methods=["GET"]),
        Route("/api/requests/{id}/approve", _answer(api.approve), methods=["POST"]),
        Route("/api/requests/{id}/{act:str}", _answer(api.note), methods=["POST"]),
        Route("/api/enrolment/options", _answer(api.enrolment_options), methods=["POST"]),
        Route("/api/enrolment", _answer(api.enrolment), methods=["POST"]),
        Route("/api/enrolment/offer", _answer(api.offer), methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(BaseHTTPMiddleware, dispatch=_harden),
        ],
    )


def serve_approvals(desk: Desk, *, host: str, port: int) -> None:
    """Serve the page until interrupted."""
    uvicorn.run(approvals_app(desk), host=host, port=port, log_level="warning", server_header=False)
