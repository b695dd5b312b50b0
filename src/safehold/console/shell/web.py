"""From the route table to an application: every page, act and API call goes through here.

1. Who is it? A login that holds, of a person who is enrolled now.
2. May they? One table says which roles; what it does not name is refused.
3. Is it our own page that asks (for acts)? Origin, form token, size, type.
4. Then the screen's or act's own function runs, and a template or JSON shows what it returns.
"""

import csv
import hmac
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import jinja2
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from safehold.canonical import CanonicalError
from safehold.console.shell.access import (
    ConsoleRole,
    Done,
    PageAct,
    PageVisit,
    Screen,
    SourcesT,
    roles_of,
)
from safehold.console.shell.hardening import HOSTILE, MAX_BODY_BYTES, foreign
from safehold.console.shell.logins import LONGEST_S, form_token
from safehold.console.shell.passkey_login import PasskeyLogin
from safehold.errors import SafeholdError, TrustError, UsageError

COOKIE = "__Host-safehold-login"
API = "/api/v1"
FormT = TypeVar("FormT", bound=msgspec.Struct)
_MOST_FIELDS = 60
_MOST_QUERY = 30


class NotFoundError(UsageError):
    """There is no such thing; look at the list it should be in."""


class RefusedPostError(SafeholdError):
    """A post that no page of ours sends."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@dataclass(frozen=True, slots=True)
class Web(Generic[SourcesT]):
    """What endpoints need: the sources, the logins, the templates and the origins."""

    sources: SourcesT
    logins: PasskeyLogin
    templates: jinja2.Environment
    origins: frozenset[str]
    screens: Sequence[Screen[SourcesT]]
    clock: Callable[[], float]
    badges: Callable[[SourcesT], dict[str, int]]
    demo: bool = False

    def routes(self, acts: Sequence[PageAct[SourcesT]]) -> list[Route]:
        """Return a page route and an API route for every screen and act."""
        made: list[Route] = []
        for screen in self.screens:
            made.append(Route(screen.path, self._page(screen), methods=["GET"]))
            path = API + (screen.path if screen.path != "/" else "/overview")
            made.append(Route(path, self._json(screen), methods=["GET"]))
        for act in acts:
            made.append(Route(act.path, self._posted(act), methods=["POST"]))
            made.append(Route(API + act.path, self._posted_json(act), methods=["POST"]))
        return made

    # ---- who and whether -----------------------------------------------------------------

    async def visit(
        self, request: Request, roles: frozenset[ConsoleRole]
    ) -> PageVisit[SourcesT] | Response:
        """Return the visit of a person who may, or the answer to one who may not."""
        token = request.cookies.get(COOKIE, "")
        person = await run_in_threadpool(self.logins.person, token) if token else None
        api = request.url.path.startswith(API + "/")
        if person is None:
            if api:
                return JSONResponse({"error": "log in first"}, status_code=401)
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            back = f"?next={quote(asked)}" if request.method == "GET" and asked != "/" else ""
            return RedirectResponse(f"/login{back}", status_code=303)
        mine = roles_of(person)
        if not mine & roles:
            needed = ", ".join(sorted(roles))
            said = f"this needs one of the roles {needed}; the roster gives them"
            if api:
                return JSONResponse({"error": said}, status_code=403)
            known = PageVisit(person, mine, self.sources, self.clock())
            return await self._html("refused.html", request, known, said=said, status=403)
        return PageVisit(
            person=person,
            roles=mine,
            sources=self.sources,
            now=self.clock(),
            params={name: str(value) for name, value in request.path_params.items()},
            query=dict(list(request.query_params.items())[:_MOST_QUERY]),
        )

    # ---- reading -------------------------------------------------------------------------

    def _page(self, screen: Screen[SourcesT]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            visit = await self.visit(request, screen.roles)
            if isinstance(visit, Response):
                return visit
            if screen.hostile:
                request.scope[HOSTILE] = True
            try:
                value = await run_in_threadpool(screen.read, visit)
            except SafeholdError as error:
                return await self._html(
                    "problem.html", request, visit, said=str(error), status=status_of(error)
                )
            if screen.csv and visit.query.get("format") == "csv":
                return _csv(screen.path.strip("/") or "overview", value)
            part = request.headers.get("hx-request") == "true"
            return await self._html(
                screen.template, request, visit, v=value, screen=screen, part=part
            )

        return endpoint

    def _json(self, screen: Screen[SourcesT]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            visit = await self.visit(request, screen.roles)
            if isinstance(visit, Response):
                return visit
            try:
                value = await run_in_threadpool(screen.read, visit)
            except SafeholdError as error:
                return JSONResponse({"error": str(error)}, status_code=status_of(error))
            return Response(msgspec.json.encode(value), media_type="application/json")

        return endpoint

    async def _html(
        self,
        template: str,
        request: Request,
        visit: PageVisit[SourcesT],
        *,
        status: int = 200,
        **values: object,
    ) -> Response:
        def draw() -> str:
            token = request.cookies.get(COOKIE, "")
            given = {"screen": None, "part": False, "said": "", "v": None, **values}
            shared = {
                "visit": visit,
                "nav": navigation(self.screens, visit),
                "badges": self.badges(self.sources),
                "csrf": form_token(token),
                "told": visit.query.get("told", ""),
                "here": request.url.path,
                # An act lies below its page.
                "back": (
                    request.url.path
                    if request.method == "GET"
                    else request.url.path.rpartition("/")[0] or "/"
                ),
                "demo": self.demo,
            }
            return self.templates.get_template(template).render(**shared, **given)

        return HTMLResponse(await run_in_threadpool(draw), status_code=status)

    # ---- acting --------------------------------------------------------------------------

    def _posted(self, act: PageAct[SourcesT]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            visit = await self.visit(request, act.roles)
            if isinstance(visit, Response):
                return visit
            try:
                fields = await self.form(request)
                done = await run_in_threadpool(act.do, visit, converted(fields, act.form))
            except SafeholdError as error:
                return await self._html(
                    "problem.html", request, visit, said=str(error), status=status_of(error)
                )
            if not isinstance(done, Done):
                if act.hostile:
                    request.scope[HOSTILE] = True
                return await self._html(act.template, request, visit, v=done)
            mark = "&" if "?" in done.then else "?"
            there = f"{done.then}{mark}told={quote(done.said)}" if done.said else done.then
            return RedirectResponse(there, status_code=303)

        return endpoint

    def _posted_json(self, act: PageAct[SourcesT]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            visit = await self.visit(request, act.roles)
            if isinstance(visit, Response):
                return visit
            try:
                body = await json_body(request, self.origins)
                posted = msgspec.json.decode(body, type=act.form)
                done = await run_in_threadpool(act.do, visit, posted)
            except msgspec.DecodeError as error:
                return JSONResponse({"error": f"malformed: {error}"}, status_code=400)
            except SafeholdError as error:
                return JSONResponse({"error": str(error)}, status_code=status_of(error))
            return Response(msgspec.json.encode(done), media_type="application/json")

        return endpoint

    async def form(self, request: Request) -> dict[str, str]:
        """Return the fields of a form that our own page sent with this login's token.

        Raises:
            RefusedPostError: it is another page's, another login's, too large or malformed.
        """
        fields = await self.open_form(request)
        given = fields.pop("csrf", "")
        if not _same(given, form_token(request.cookies.get(COOKIE, ""))):
            raise RefusedPostError(403, "this form is of another login: load the page again")
        return fields

    async def open_form(
        self, request: Request, *, most_bytes: int = MAX_BODY_BYTES
    ) -> dict[str, str]:
        """Return the fields of a form of our own page; who sent it need not have a login.

        Raises:
            RefusedPostError: it is another page's, too large or malformed.
        """
        said = foreign(dict(request.headers), self.origins)
        if said is not None:
            raise RefusedPostError(403, said)
        kind = request.headers.get("content-type", "").split(";")[0]
        if kind != "application/x-www-form-urlencoded":
            raise RefusedPostError(415, "expected a form of our own page")
        body = await bounded_body(request, most_bytes)
        try:
            pairs = parse_qsl(
                body.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=bool(body),
                max_num_fields=_MOST_FIELDS,
            )
        except ValueError as error:
            raise RefusedPostError(400, "expected a form of our own page") from error
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise RefusedPostError(400, "expected each field once")
        return fields


def navigation(
    screens: Sequence[Screen[SourcesT]], visit: PageVisit[SourcesT]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return groups of (path, title) that this person may open, in the table's order."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for screen in screens:
        if screen.group and visit.roles & screen.roles:
            groups.setdefault(screen.group, []).append((screen.path, screen.title))
    return list(groups.items())


async def bounded_body(request: Request, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return a request's body.

    Raises:
        RefusedPostError: it is larger than the form may be.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise RefusedPostError(413, f"expected at most {most_bytes:,} bytes")
    return body


async def json_body(request: Request, origins: frozenset[str]) -> bytes:
    """Return the body of a JSON post that another site's page can't have sent.

    Raises:
        RefusedPostError: it may be another site's, or is too large.
    """
    # Another origin can't send this type without asking first, and none is let.
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise RefusedPostError(415, "expected application/json")
    said = foreign(dict(request.headers), origins)
    if said is not None:
        raise RefusedPostError(403, said)
    return await bounded_body(request)


def status_of(error: SafeholdError) -> int:
    """Return the HTTP status of one of our errors."""
    if isinstance(error, RefusedPostError):
        return error.status
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, UsageError | CanonicalError):
        return 400
    return 409 if isinstance(error, TrustError) else 503


def safe_next(path: str) -> str:
    """Return where to go after a login: a page of ours, or the overview."""
    parts = urlsplit(path)
    ours = path.startswith("/") and not path.startswith("//") and "\\" not in path
    plain = ours and not parts.scheme and not parts.netloc and path.isprintable()
    return path if plain and not path.startswith(("/login", "/logout")) else "/"


def cookie(token: str, *, age_s: float = LONGEST_S) -> str:
    """Return the header that keeps a login in the browser, for our own pages alone."""
    return f"{COOKIE}={token}; Path=/; Max-Age={age_s:.0f}; Secure; HttpOnly; SameSite=Strict"


def converted(fields: dict[str, str], form: type[FormT]) -> FormT:
    """Return a form's value.

    Raises:
        RefusedPostError: a field is missing, unknown or of another type.
    """
    try:
        return msgspec.convert(fields, form, strict=False)
    except msgspec.ValidationError as error:
        raise RefusedPostError(400, f"malformed: {error}") from error


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _csv(name: str, value: msgspec.Struct) -> Response:
    """Return a value's `rows` as CSV; a cell that a spreadsheet would run is quoted as text."""
    rows = [msgspec.to_builtins(row) for row in getattr(value, "rows", ())]
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows({key: _cell(cell) for key, cell in row.items()} for row in rows)
    head = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8", headers=head)


def _cell(cell: object) -> object:
    # OWASP "CSV Injection": a formula begins with one of these.
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") else cell
