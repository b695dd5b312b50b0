"""The demo's own doors: its link logs in, its colleagues enrol a passkey and approve at a click.

A console without the demo has no such routes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from safehold.console.shell.access import EVERYONE, PageVisit
from safehold.console.shell.logins import Logins
from safehold.console.shell.web import Web, cookie, json_body, status_of
from safehold.console.sources import ConsoleSources
from safehold.errors import SafeholdError
from safehold.trust.grants.details import AddKey
from safehold.trust.grants.interface import GrantError


class AskedColleague(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which request a colleague of the demo is asked to approve."""

    request: str


@dataclass(frozen=True, slots=True)
class DemoDoor:
    """The token of the demo's link, whom it logs in, and what its colleagues do."""

    token: str
    person: str
    add_passkey: Callable[[AddKey], None]
    """Has the colleagues enrol a passkey that signed its own enrolment."""
    second: Callable[[str, str], str]
    """Has one more colleague approve a request, never this person; returns their name."""


class DemoDoors:
    """The routes of the demo."""

    def __init__(self, web: Web[ConsoleSources], logins: Logins, door: DemoDoor) -> None:
        self._web, self._logins, self._door = web, logins, door

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/login/demo", self.login, methods=["GET"]),
            Route("/login/demo/passkey", self.passkey, methods=["POST"]),
            Route("/login/demo/second", self.second, methods=["POST"]),
        ]

    async def login(self, request: Request) -> Response:
        """Log in by the link that the demo printed."""
        given = request.query_params.get("token", "")
        if not given or given != self._door.token:
            return Response("no such page\n", status_code=404, media_type="text/plain")
        token = await run_in_threadpool(self._logins.begin, self._door.person, "")
        return RedirectResponse("/", status_code=303, headers={"set-cookie": cookie(token)})

    async def passkey(self, request: Request) -> Response:
        """Have the colleagues enrol the passkey of who is logged in."""

        def do(visit: PageVisit[ConsoleSources], body: bytes) -> str:
            offer = msgspec.json.decode(body, type=AddKey)
            if offer.person_id != visit.person.id:
                raise GrantError("expected a passkey for who is logged in, got another person's")
            self._door.add_passkey(offer)
            return "Two colleagues of the demo approved your passkey: it counts from now on."

        return await self._acted(request, do)

    async def second(self, request: Request) -> Response:
        """Have a colleague approve a request."""

        def do(visit: PageVisit[ConsoleSources], body: bytes) -> str:
            asked = msgspec.json.decode(body, type=AskedColleague)
            return f"{self._door.second(asked.request, visit.person.id)} approved it."

        return await self._acted(request, do)

    async def _acted(
        self, request: Request, do: Callable[[PageVisit[ConsoleSources], bytes], str]
    ) -> Response:
        visit = await self._web.visit(request, EVERYONE)
        if not isinstance(visit, PageVisit):
            return visit
        try:
            body = await json_body(request, self._web.origins)
            said = await run_in_threadpool(do, visit, body)
        except msgspec.DecodeError as error:
            return JSONResponse({"error": f"malformed: {error}"}, status_code=400)
        except SafeholdError as error:
            return JSONResponse({"error": str(error)}, status_code=status_of(error))
        return JSONResponse({"said": said})
