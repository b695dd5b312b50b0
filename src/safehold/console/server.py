"""The console as an ASGI application: the shell around the route table, login, live updates."""

import asyncio
import contextlib
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from safehold.console import campaign_watch
from safehold.console.approvals.api import ApprovalsApi
from safehold.console.demo_door import DemoDoor, DemoDoors
from safehold.console.route_table import ACTS, SCREENS
from safehold.console.screens import bounty
from safehold.console.shell.access import EVERYONE, PageVisit
from safehold.console.shell.hardening import Hardened
from safehold.console.shell.logins import Logins
from safehold.console.shell.openapi import joined, openapi
from safehold.console.shell.passkey_login import LoginName, LoginProof, PasskeyLogin
from safehold.console.shell.pulse import MOST_STREAMS, PagePulse
from safehold.console.shell.rendering import environment
from safehold.console.shell.web import (
    API,
    COOKIE,
    RefusedPostError,
    Web,
    converted,
    cookie,
    json_body,
    safe_next,
    status_of,
)
from safehold.console.sources import ConsoleSources
from safehold.detect.bounty.interface import MAX_SUBMISSION_BYTES, BountyState
from safehold.detect.pace import Pace, peer_of
from safehold.detect.review import appeal_api
from safehold.errors import ConfigError, DataError, SafeholdError, TamperError
from safehold.trust.people.interface import SignatureError

_DIGITS = 18
"""What fits 64 bits."""
_PORTS = range(1, 65_536)

_HERE = Path(__file__).parent
_FOLLOW_EVERY_S = 1.0
_MOST_FORM_BYTES = 4 * MAX_SUBMISSION_BYTES
"""A submission whose every byte the form spells out in three, and a sealed one."""
_HOUR_S = 3600.0
VENDORED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""Files of others, by SHA-256: htmx 4.0.1 (0BSD) and uPlot 1.6.32 (MIT), as npm has them."""
_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


def static_files() -> dict[str, tuple[str, bytes]]:
    """Return media type and content of every file by its name.

    They are read once: no path of a request ever reaches the disk.

    Raises:
        TamperError: a vendored file is not the one that was reviewed.
    """
    found: dict[str, tuple[str, bytes]] = {}
    folders = ("shell/vendor", "shell/static", "approvals/static")
    for path in sorted(one for folder in folders for one in (_HERE / folder).iterdir()):
        kind = _TYPES.get(path.suffix.removeprefix("."))
        if kind is not None:
            found[path.name] = (kind, path.read_bytes())
    for name, digest in VENDORED.items():
        if hashlib.sha256(found[name][1]).hexdigest() != digest:
            raise TamperError(f"{name} differs from the file that was reviewed: install again")
    return found


class ConsoleDoors:
    """Login, logout, live updates, static files and the acts of passkeys: all but the table."""

    def __init__(
        self, web: Web[ConsoleSources], logins: Logins, pulse: PagePulse, approvals: ApprovalsApi
    ) -> None:
        self._web, self._logins, self._pulse, self._approvals = web, logins, pulse, approvals
        self._files = static_files()
        schema = openapi(SCREENS, ACTS)
        if web.sources.appeals is not None:
            schema = joined(schema, appeal_api.openapi())
        self._schema = msgspec.json.encode(schema)
        self._bounties = Pace(each=12, together=600, window_s=_HOUR_S)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/static/{name}", self.static, methods=["GET"]),
            Route("/favicon.ico", self.icon, methods=["GET"]),
            Route("/login", self.login_page, methods=["GET"]),
            Route("/login/options", self._json_post(self._options), methods=["POST"]),
            Route("/login/passkey", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/enrol", self.enrol_page, methods=["GET"]),
            Route("/api/enrolment/options", self._json_post(self._enrol_options), methods=["POST"]),
            Route("/api/enrolment", self._json_post(self._enrol), methods=["POST"]),
            Route("/api/enrolment/offer", self._json_post(self._offer), methods=["POST"]),
            Route("/bounty/submit", self.bounty_page, methods=["GET"]),
            Route("/bounty/submit", self.bounty_submit, methods=["POST"]),
            Route("/live", self.live, methods=["GET"]),
            Route(API + "/openapi.json", self.schema, methods=["GET"]),
            Route(API + "/grants/{id}", self._signed(self._approvals.show), methods=["GET"]),
            Route(
                API + "/grants/{id}/approve",
                self._signed(self._approvals.approve),
                methods=["POST"],
            ),
            Route(
                API + "/grants/{id}/note/{act}",
                self._signed(self._approvals.note),
                methods=["POST"],
            ),
        ]

    async def static(self, request: Request) -> Response:
        """Return one of our files by its plain name."""
        kind, content = self._files.get(request.path_params["name"], ("", b""))
        if not kind:
            return Response("no such file\n", status_code=404, media_type="text/plain")
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return Response(content, media_type=kind, headers={"etag": tag})

    async def icon(self, request: Request) -> Response:
        """Return the icon where a browser looks for it beside pages that name none."""
        del request
        kind, content = self._files["favicon.svg"]
        return Response(content, media_type=kind)

    async def login_page(self, request: Request) -> Response:
        """Return the page that asks for a name and a passkey."""
        page = self._web.templates.get_template("login.html")
        there = safe_next(request.query_params.get("next", "/"))
        return HTMLResponse(page.render(next=there, demo=self._web.demo))

    async def enrol_page(self, request: Request) -> Response:
        """Return the page that makes a passkey for somebody who has none here yet."""
        token = request.cookies.get(COOKIE, "")
        person = await run_in_threadpool(self._web.logins.person, token) if token else None
        page = self._web.templates.get_template("enrol.html")
        return HTMLResponse(page.render(person=person, demo=self._web.demo and person is not None))

    async def bounty_page(self, request: Request) -> Response:
        """Return the public page of the bounty programme."""
        del request
        return await self._bounty(said="", number=0)

    async def bounty_submit(self, request: Request) -> Response:
        """Take a submission from anybody; it is sealed before it is kept."""
        try:
            wait_s = self._bounties.wait_s(peer_of(request.client.host if request.client else None))
            if wait_s:
                minutes = math.ceil(wait_s / 60)
                raise RefusedPostError(429, f"too many submissions now; try in {minutes} minutes")
            fields = await self._web.open_form(request, most_bytes=_MOST_FORM_BYTES)
            posted = converted(fields, bounty.PublicSubmission)
            number = await run_in_threadpool(bounty.receive, self._web.sources, posted)
        except SafeholdError as error:
            status = 400 if isinstance(error, DataError) else status_of(error)
            return await self._bounty(said=str(error), number=0, status=status)
        return await self._bounty(said="", number=number)

    async def _bounty(self, *, said: str, number: int, status: int = 200) -> Response:
        try:
            shown = await run_in_threadpool(bounty.terms, self._web.sources)
        except SafeholdError:
            return Response("no such page\n", status_code=404, media_type="text/plain")
        page = self._web.templates.get_template("bounty_public.html")
        return HTMLResponse(page.render(v=shown, said=said, number=number), status_code=status)

    async def login(self, request: Request) -> Response:
        """Judge an assertion and give the browser a new token."""
        try:
            body = await json_body(request, self._web.origins)
            posted = msgspec.json.decode(body, type=LoginProof)
            token = await run_in_threadpool(self._web.logins.login, posted)
        except msgspec.DecodeError as error:
            return JSONResponse({"error": f"malformed: {error}"}, status_code=400)
        except SignatureError as error:
            return JSONResponse({"error": str(error)}, status_code=403)
        except SafeholdError as error:
            return JSONResponse({"error": str(error)}, status_code=status_of(error))
        return JSONResponse({"said": "logged in"}, headers={"set-cookie": cookie(token)})

    async def logout(self, request: Request) -> Response:
        """Forget the login."""
        token = request.cookies.get(COOKIE, "")
        try:
            if token:
                await self._web.form(request)
                await run_in_threadpool(self._logins.end, token)
        except RefusedPostError as error:
            return Response(f"{error}\n", status_code=error.status, media_type="text/plain")
        return RedirectResponse(
            "/login", status_code=303, headers={"set-cookie": cookie("", age_s=0)}
        )

    async def live(self, request: Request) -> Response:
        """Return the stream of news for one page."""
        visit = await self._web.visit(request, EVERYONE)
        if not isinstance(visit, PageVisit):
            return visit
        if self._pulse.open >= MOST_STREAMS:
            said = "too many open pages here; this one asks every 15 seconds instead"
            return Response(said, status_code=503, headers={"retry-after": "15"})
        seen = request.headers.get("last-event-id", "0")
        last = int(seen) if seen.isdecimal() and len(seen) <= _DIGITS else 0
        return StreamingResponse(self._pulse.stream(last), media_type="text/event-stream")

    async def schema(self, request: Request) -> Response:
        """Return the API's description."""
        visit = await self._web.visit(request, EVERYONE)
        if not isinstance(visit, PageVisit):
            return visit
        return Response(self._schema, media_type="application/json")

    def _options(self, request: Request, body: bytes) -> object:
        del request
        return self._web.logins.options(msgspec.json.decode(body, type=LoginName))

    def _enrol_options(self, request: Request, body: bytes) -> object:
        return self._approvals.enrolment_options(request, body)

    def _enrol(self, request: Request, body: bytes) -> object:
        return self._approvals.enrolment(request, body)

    def _offer(self, request: Request, body: bytes) -> object:
        return self._approvals.offer(request, body)

    def _json_post(
        self, handler: Callable[[Request, bytes], object]
    ) -> Callable[[Request], "asyncio.Future[Response]"]:
        async def endpoint(request: Request) -> Response:
            try:
                body = b""
                if request.method == "POST":
                    body = await json_body(request, self._web.origins)
                value = await run_in_threadpool(handler, request, body)
            except msgspec.DecodeError as error:
                return JSONResponse({"error": f"malformed: {error}"}, status_code=400)
            except SignatureError as error:
                return JSONResponse({"error": str(error)}, status_code=403)
            except SafeholdError as error:
                return JSONResponse({"error": str(error)}, status_code=status_of(error))
            return Response(msgspec.json.encode(value), media_type="application/json")

        return endpoint  # type: ignore[return-value]

    def _signed(
        self, handler: Callable[[Request, bytes], object]
    ) -> Callable[[Request], "asyncio.Future[Response]"]:
        """Wrap an act of grants: a login opens the door, the act's own signature decides."""
        inner = self._json_post(handler)

        async def endpoint(request: Request) -> Response:
            visit = await self._web.visit(request, EVERYONE)
            if not isinstance(visit, PageVisit):
                return visit
            return await inner(request)

        return endpoint  # type: ignore[return-value]


class Console:
    """The application."""

    def __init__(
        self,
        sources: ConsoleSources,
        logins: Logins,
        *,
        clock: Callable[[], float] = time.time,
        demo: DemoDoor | None = None,
    ) -> None:
        """Take what screens read; `demo` opens the doors of the demo.

        Raises:
            TrustError: the log has no policy yet: it says which origins the page may have.
        """
        origins = frozenset(sources.desk.state.policy.relying_party.origins)
        self._sources, self._clock = sources, clock
        pulse = PagePulse(sources.index.cursor)
        web = Web(
            sources=sources,
            logins=PasskeyLogin(sources.desk, logins),
            templates=environment(),
            origins=origins,
            screens=SCREENS,
            clock=clock,
            badges=_badges,
            demo=demo is not None,
        )
        approvals = ApprovalsApi(sources.desk, logins.enrolments())
        doors = ConsoleDoors(web, logins, pulse, approvals)
        more = [] if demo is None else DemoDoors(web, logins, demo).routes()
        inner = Starlette(
            routes=[*doors.routes(), *more, *_outsiders(sources), *web.routes(ACTS)],
            lifespan=self._lifespan,
            exception_handlers={404: _no_such_page},
        )
        hosts = frozenset(urlsplit(one).netloc.lower() for one in origins)
        secure = all(urlsplit(one).scheme == "https" for one in origins)
        self._app = Hardened(inner, hosts=hosts, secure=secure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's own start and end."""
        await self._app(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        follower = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower

    def _look(self) -> None:
        sources = self._sources
        campaign_watch.watch(sources.index, sources.reader, sources.monitor, now=self._clock())

    async def _follow(self) -> None:
        """Keep the index up with the ledger; a page never waits for it."""
        while True:
            with contextlib.suppress(SafeholdError):  # pages tell how far behind the index is
                await run_in_threadpool(self._sources.index.follow)
                await run_in_threadpool(self._sources.index.refresh_coverage)
                await run_in_threadpool(self._look)
            await asyncio.sleep(_FOLLOW_EVERY_S)


async def _no_such_page(request: Request, error: Exception) -> Response:
    del request, error
    return Response(
        "no such page; the overview is at /\n", status_code=404, media_type="text/plain"
    )


def _outsiders(sources: ConsoleSources) -> list[Route]:
    """Return the routes that people without a login here use: clients' appeals, partners' TAXII."""
    routes = [] if sources.appeals is None else appeal_api.appeal_routes(sources.appeals)
    return routes + ([] if sources.taxii is None else sources.taxii.routes())


def _badges(sources: ConsoleSources) -> dict[str, int]:
    found = {"/review": sum(one.waiting for one in sources.cases.cases())}
    desk = bounty.desk_of(sources)
    if desk is not None:
        found["/bounty"] = sum(one.state is BountyState.NEW for one in desk.book.entries())
    return found


def serve_console(console: Console, *, host: str, port: int) -> None:
    """Serve the console until interrupted.

    Raises:
        ConfigError: the port is none.
    """
    if port not in _PORTS:
        raise ConfigError(f"port: expected 1 to 65535, came {port}")
    uvicorn.run(console, host=host, port=port, log_level="warning", server_header=False)
