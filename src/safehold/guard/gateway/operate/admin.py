"""The admin API: JSON in, JSON out, behind an administrator's key. See docs/gateway.md."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from safehold.errors import BundleError, LedgerError, WireError
from safehold.guard.gateway.bundles.active_guard import GuardHolder
from safehold.guard.gateway.bundles.classes import Classes
from safehold.guard.gateway.bundles.swap import Swapper
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.operate.admin_keys import AdminAccess
from safehold.guard.gateway.operate.admin_schema import admin_schema
from safehold.guard.gateway.operate.canary import Canaries
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Key
from safehold.guard.gateway.protocols.json_border import decode_request, encode
from safehold.guard.ledger.interface import EventKind, EventRow, RowSink

if TYPE_CHECKING:
    from safehold.guard.gateway.surfaces import Surfaces

_SURFACE = re.compile(r"/admin/surfaces/([a-z.]{1,40})/(open|close)")
Reply = tuple[int, dict[str, Any]]


class SwapRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which bundle to put to use: a folder's name inside the gateway's folder of bundles."""

    bundle: str


class Admin:
    """Answers the paths below `/admin/`."""

    def __init__(
        self,
        *,
        holder: GuardHolder,
        swapper: Swapper,
        canaries: Canaries,
        surfaces: "Surfaces",
        ledger: RowSink,
        clock: Callable[[], float],
        bundles: Path | None,
        state: SharedState,
        access: AdminAccess,
        settings: str = "",
        classes: Classes | None = None,
    ) -> None:
        self._classes = classes
        self._holder = holder
        self._swapper = swapper
        self._canaries = canaries
        self._surfaces = surfaces
        self._ledger = ledger
        self._clock = clock
        self._bundles = bundles
        self._state = state
        self._access = access
        self.settings = settings
        self._routes: dict[tuple[str, str], Callable[[bytes], Awaitable[Reply]]] = {
            ("GET", "/admin/openapi.json"): self._schema,
            ("GET", "/admin/status"): self._status,
            ("POST", "/admin/bundle"): self._swap,
            ("POST", "/admin/bundle/rollback"): self._roll_back,
            ("POST", "/admin/canaries"): self._run_canaries,
        }

    async def answer(
        self, method: str, path: str, body: bytes, who: Key, *, raw_path: str = ""
    ) -> tuple[int, bytes]:
        """Do what an administrator asks; every change is a ledger row.

        The row stands before what lets more through, and after what shuts out: a ledger that is
        away keeps nothing open.

        `raw_path` is the path before its escapes were read: a name may hold a slash.

        Raises:
            WireError: The request is malformed.
        """
        place = _SURFACE.fullmatch(path)
        try:
            if place is not None and method == "POST":
                status, answer = await self._surface(place.group(1), place.group(2), who)
            elif path.startswith(("/admin/keys", "/admin/tenants")):
                status, answer = await self._access.answer(method, raw_path or path, body, who)
            else:
                route = self._routes.get((method, path))
                known = place is not None or any(path == known for _, known in self._routes)
                if route is None:
                    status = 405 if known else 404
                    answer = {"error": "expected another method or path"}
                else:
                    status, answer = await route(body)
        except BundleError as error:
            status, answer = 409, {"error": str(error)}
        except LedgerError as error:
            status, answer = 503, {"error": str(error)}
        return status, encode(answer)

    async def _status(self, body: bytes) -> Reply:
        del body
        previous = self._holder.previous
        return 200, {
            "bundle": self._holder.current.digest,
            "previous": previous.digest if previous else None,
            "settings": self.settings,
            "classes": {} if self._classes is None else self._classes.states(),
            "surfaces": {str(s): self._surfaces.reason(s) or "open" for s in Surface},
        }

    async def _schema(self, body: bytes) -> Reply:
        del body
        return 200, admin_schema()

    async def _swap(self, body: bytes) -> Reply:
        asked = decode_request(msgspec.json.Decoder(SwapRequest), body)
        if self._bundles is None:
            return 409, {"error": "this gateway has no folder of bundles (setting: bundles)"}
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", asked.bundle) is None:
            raise WireError("bundle: expected a plain folder name")
        held = await self._swapper.swap(self._bundles / asked.bundle)
        await self._share_bundle(held.name)
        return 200, {"bundle": held.digest}

    async def _roll_back(self, body: bytes) -> Reply:
        del body
        held = await self._swapper.roll_back()
        await self._share_bundle(held.name)
        return 200, {"bundle": held.digest}

    async def _share_bundle(self, name: str) -> None:
        """Name the bundle in use for the other hosts, where it lies in the folder of bundles."""
        if self._bundles is not None and Path(name).parent == self._bundles:
            await self._state.set("bundle", "current", Path(name).name)

    async def _run_canaries(self, body: bytes) -> Reply:
        del body
        results = await self._canaries.run_all()
        return 200, {"blocked": {str(surface): caught for surface, caught in results.items()}}

    async def _surface(self, name: str, verb: str, who: Key) -> Reply:
        if name not in tuple(Surface):
            return 404, {"error": "expected the name of a surface"}
        surface = Surface(name)
        opened = verb == "open"
        if opened and self._surfaces.configured(surface):
            return 409, {"error": "the configuration closes this surface: change it and reload"}
        kind = EventKind.SURFACE_OPENED if opened else EventKind.SURFACE_CLOSED
        row = EventRow(at=self._clock(), kind=kind, surface=name, detail={"by": who.id})
        if opened:
            await self._ledger.append(row)
            await self._state.set("surface", name, None)
        else:
            try:
                await self._state.set("surface", name, "closed by an administrator")
            finally:  # it holds here even where the store is away
                await self._ledger.append(row)
        await self._state.everywhere()
        return 200, {"surface": name, "state": "open" if opened else "closed"}
