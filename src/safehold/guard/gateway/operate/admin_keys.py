"""Keys and tenants over the admin API: for all workers and hosts at once.

A key is printed once, when it is made or rotated; what is kept, in the store, is its digest. A key
or a tenant of the configuration can be shut out here and let in again, never changed: its file
says what it may do.
"""

import asyncio
import contextlib
import re
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from safehold.errors import ConfigError, LedgerError, WireError
from safehold.guard.gateway.access.admission import Gate
from safehold.guard.gateway.access.key_ring import Former
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.key_settings import Budget, Tenant, check_name, moment
from safehold.guard.gateway.operate.managed_access import BLOCKED, FORMER, KEY, REVOKED, TENANT
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Key, digest_key
from safehold.guard.gateway.protocols.json_border import decode_request
from safehold.guard.gateway.settings_check import check_values
from safehold.guard.ledger.interface import EventKind, EventRow, RowSink

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_PLACE = re.compile(r"/+admin/(keys|tenants)/([^/]+)(?:/([a-z]+))?/*")
MOST_GRACE_S = 30 * 86_400.0
_ENFORCED = (
    "this gateway takes only released settings, and a key that may do more is none: release it "
    "(docs/change.md)"
)
_TRIES = 5
Reply = tuple[int, dict[str, Any]]
_Act = Callable[[str, bytes, Key], Awaitable[Reply]]


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key may do; empty surfaces or models are all of them."""

    id: str
    tenant: str = "default"
    surfaces: tuple[Surface, ...] = ()
    models: tuple[str, ...] = ()
    budget: Budget = Budget()
    expires_at: str | None = None

    def key(self, sha256: str) -> Key:
        """Return the key, under the digest that it is recognised by."""
        return Key(
            id=self.id,
            sha256=sha256,
            tenant=self.tenant,
            surfaces=self.surfaces,
            models=self.models,
            budget=self.budget,
            expires_at=self.expires_at,
        )


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long, in seconds, the key before still opens."""

    grace_s: float = 0.0


class AdminAccess:
    """Answers `/admin/keys`, `/admin/tenants` and what is below them."""

    def __init__(
        self,
        *,
        gate: Gate,
        state: SharedState,
        ledger: RowSink,
        clock: Callable[[], float],
        enforced: bool,
    ) -> None:
        """Take where keys are known; `enforced` is a gateway that takes only what was released."""
        self._gate = gate
        self._state = state
        self._ledger = ledger
        self._clock = clock
        self._enforced = enforced
        self._changing = asyncio.Lock()
        self._acts: dict[tuple[str, str, str | None], _Act] = {
            ("GET", "keys", None): self._show,
            ("PUT", "keys", None): self._change,
            ("PATCH", "keys", None): self._amend,
            ("POST", "keys", "revoke"): self._revoke,
            ("POST", "keys", "restore"): self._restore,
            ("POST", "keys", "rotate"): self._rotate,
            ("GET", "tenants", None): self._show_tenant,
            ("PUT", "tenants", None): self._bound,
            ("PATCH", "tenants", None): self._amend_tenant,
            ("POST", "tenants", "remove"): self._unbound,
            ("POST", "tenants", "block"): self._block,
            ("POST", "tenants", "unblock"): self._unblock,
        }
        """What is done to one key or tenant."""

    async def answer(self, method: str, path: str, body: bytes, who: Key) -> Reply:
        """Do what an administrator asks; every change is a ledger row.

        The row stands before what lets somebody in, and after what shuts somebody out.

        `path` has its escapes: a name is one part of it, whatever letters it holds.

        Raises:
            WireError: The request is malformed.
            LedgerError: The change can't be kept, or the store does not answer.
        """
        match method, path.rstrip("/"):
            case "GET", "/admin/keys":
                return 200, {"keys": self._listed()}
            case "POST", "/admin/keys":
                return await self._make(decode_request(_REQUEST, body), who)
            case "GET", "/admin/tenants":
                return 200, {"tenants": self._listed_tenants()}
        place = _PLACE.fullmatch(path)
        if place is None:
            known = path.rstrip("/") in ("/admin/keys", "/admin/tenants")
            return (405 if known else 404), {"error": "expected another method or path"}
        kind, name, verb = place.groups()
        act = self._acts.get((method, kind, verb))
        if act is None:
            known = any(one[1:] == (kind, verb) for one in self._acts)
            return (405 if known else 404), {"error": "expected another method or path"}
        return await act(urllib.parse.unquote(name), body, who)

    # -- keys ------------------------------------------------------------------------------------

    def _managed(self) -> dict[str, Any]:
        return {name: value for name, value in self._state.of(KEY).items() if value is not None}

    def _listed(self) -> list[dict[str, Any]]:
        keys = [self._told(key) for key in self._gate.ring.keys]
        for name, value in self._managed().items():
            if value == REVOKED:
                keys.append({"id": name, "state": REVOKED})
        return keys

    def _told(self, key: Key) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.to_builtins(key)
        told.pop("sha256")
        told.pop("policies")
        ring = self._gate.ring
        where = "configuration" if ring.configured(key.id) else "admin"
        state = "active"
        if key.expires_at is not None and self._clock() >= moment(key.expires_at):
            state = "run out"
        elif key.tenant in ring.blocked and not key.admin:
            state = "tenant blocked"
        return told | {"from": where, "state": state}

    async def _show(self, name: str, body: bytes, who: Key) -> Reply:
        del body, who
        for key in self._gate.ring.keys:
            if key.id == name:
                used = await self._gate.used(key.budget, "", key.id)
                return 200, self._told(key) | {"used": used}
        if self._managed().get(name) == REVOKED:
            return 200, {"id": name, "state": REVOKED}
        return 404, {"error": "expected the id of a key"}

    async def _make(self, asked: KeyRequest, who: Key) -> Reply:
        if self._enforced:
            return 409, {"error": _ENFORCED}
        if re.fullmatch(_NAME, asked.id) is None:
            raise WireError("id: expected up to 64 of A-Z, a-z, 0-9 and ._-")
        secret = _secret()
        key = self._checked(asked, digest_key(secret))
        async with self._changing:
            if self._managed().get(asked.id) == REVOKED:
                return 409, {"error": "a key of this id was revoked; an id is used once"}
            if self._gate.ring.configured(asked.id) or asked.id in self._managed():
                return 409, {"error": "there is a key of this id; change or revoke it"}
            await self._row({"key": key.id, "change": "added", "by": who.id})
            await self._write({KEY: msgspec.to_builtins(key)}, key.id)
        return await self._told_everywhere(KEY, key.id, {"key": secret, "id": key.id})

    def _own(self, name: str) -> Key | None:
        """Return an active key that this API made."""
        found = self._managed().get(name)
        if found is None or found == REVOKED or self._gate.ring.configured(name):
            return None
        return msgspec.convert(found, Key)

    async def _change(self, name: str, body: bytes, who: Key) -> Reply:
        if self._enforced:
            return 409, {"error": _ENFORCED}
        asked = decode_request(_REQUEST, body)
        if asked.id != name:
            raise WireError("id: expected the id of the path")
        async with self._changing:
            own = self._own(name)
            if own is None:
                return 404, {"error": _NOT_OURS}
            await self._put(self._checked(asked, own.sha256, own), who)
        return await self._told_everywhere(KEY, name, {"id": name})

    async def _amend(self, name: str, body: bytes, who: Key) -> Reply:
        """Change the fields that are named; the others stay as they are now."""
        if self._enforced:
            return 409, {"error": _ENFORCED}
        given = decode_request(_FIELDS, body)
        async with self._changing:
            own = self._own(name)
            if own is None:
                return 404, {"error": _NOT_OURS}
            before = {field: getattr(own, field) for field in KeyRequest.__struct_fields__}
            asked = _amended(before, given, KeyRequest)
            if asked.id != name:
                raise WireError("id: expected the id of the path")
            await self._put(self._checked(asked, own.sha256, own), who)
        return await self._told_everywhere(KEY, name, {"id": name})

    async def _put(self, key: Key, who: Key) -> None:
        await self._row({"key": key.id, "change": "changed", "by": who.id})
        await self._write({KEY: msgspec.to_builtins(key)}, key.id)

    async def _rotate(self, name: str, body: bytes, who: Key) -> Reply:
        if self._enforced:
            return 409, {"error": _ENFORCED}
        asked = decode_request(_ROTATION, body or b"{}")
        if not 0 <= asked.grace_s <= MOST_GRACE_S:
            raise WireError("grace_s: expected 0 to 2592000 seconds (30 days)")
        async with self._changing:
            own = self._own(name)
            if own is None:
                return 404, {"error": _NOT_OURS}
            secret = _secret()
            key = msgspec.structs.replace(own, sha256=digest_key(secret))
            former = Former(sha256=own.sha256, until=self._clock() + asked.grace_s)
            kept = msgspec.to_builtins(former) if asked.grace_s else None
            await self._row({"key": name, "change": "rotated", "by": who.id})
            await self._write({FORMER: kept, KEY: msgspec.to_builtins(key)}, name)
        return await self._told_everywhere(KEY, name, {"key": secret, "id": name})

    async def _revoke(self, name: str, body: bytes, who: Key) -> Reply:
        del body
        if name == who.id:
            return 409, {"error": "an administrator can't revoke the key that is asking"}
        if not (self._gate.ring.configured(name) or name in self._managed()):
            return 404, {"error": "expected the id of a key"}
        async with self._told_after({"key": name, "change": REVOKED, "by": who.id}):
            await self._shut(KEY, name, REVOKED)
        return 200, {"id": name, "state": REVOKED}

    async def _restore(self, name: str, body: bytes, who: Key) -> Reply:
        del body
        if self._enforced:
            return 409, {"error": _ENFORCED}
        async with self._changing:
            if self._managed().get(name) != REVOKED or not self._gate.ring.configured(name):
                return 404, {"error": "expected the id of a configured key that was revoked"}
            await self._row({"key": name, "change": "restored", "by": who.id})
            await self._write({KEY: None}, name)
        return await self._told_everywhere(KEY, name, {"id": name, "state": "active"})

    # -- tenants ---------------------------------------------------------------------------------

    def _listed_tenants(self) -> list[dict[str, Any]]:
        ring = self._gate.ring
        names = {*ring.tenants, *ring.blocked, *(key.tenant for key in ring.keys if not key.admin)}
        return [self._told_tenant(name) for name in sorted(names)]

    def _told_tenant(self, name: str) -> dict[str, Any]:
        ring = self._gate.ring
        told = msgspec.to_builtins(ring.tenants.get(name, Tenant()))
        where = "configuration" if ring.configured_tenant(name) else "admin"
        return {
            "id": name,
            **told,
            "from": where if name in ring.tenants else None,
            "state": "blocked" if name in ring.blocked else "active",
            "keys": sorted(key.id for key in ring.keys if key.tenant == name and not key.admin),
        }

    async def _show_tenant(self, name: str, body: bytes, who: Key) -> Reply:
        del body, who
        if all(one["id"] != name for one in self._listed_tenants()):
            return 404, {"error": "expected the name of a tenant"}
        budget = self._gate.ring.tenants.get(name, Tenant()).budget
        used = await self._gate.used(budget, "tenant-", name)
        return 200, self._told_tenant(name) | {"used": used}

    async def _bound(self, name: str, body: bytes, who: Key) -> Reply:
        """Give a tenant bounds, in the place of those that this API gave it before."""
        if self._enforced:
            return 409, {"error": _ENFORCED}
        tenant = decode_request(_TENANT, body)
        async with self._changing:
            refused = await self._put_tenant(name, tenant, who)
        return refused or await self._told_everywhere(TENANT, name, {"id": name})

    async def _amend_tenant(self, name: str, body: bytes, who: Key) -> Reply:
        """Change the bounds that are named; the others stay as they are now."""
        if self._enforced:
            return 409, {"error": _ENFORCED}
        given = decode_request(_FIELDS, body)
        async with self._changing:
            before = self._gate.ring.tenants.get(name, Tenant())
            fields = {field: getattr(before, field) for field in Tenant.__struct_fields__}
            refused = await self._put_tenant(name, _amended(fields, given, Tenant), who)
        return refused or await self._told_everywhere(TENANT, name, {"id": name})

    async def _put_tenant(self, name: str, tenant: Tenant, who: Key) -> Reply | None:
        """Write a tenant's bounds; return why they may not be."""
        _named("tenant", name)
        _check(tenant)
        if self._gate.ring.configured_tenant(name):
            return 409, {"error": "the configuration bounds this tenant: change it and reload"}
        await self._row({"tenant": name, "change": "bounded", "by": who.id})
        await self._write({TENANT: msgspec.to_builtins(tenant)}, name)
        return None

    async def _unbound(self, name: str, body: bytes, who: Key) -> Reply:
        del body
        if self._enforced:
            return 409, {"error": _ENFORCED}
        async with self._changing:
            if self._state.of(TENANT).get(name) is None:
                return 404, {"error": "expected a tenant that this API gave bounds"}
            await self._row({"tenant": name, "change": "bounds removed", "by": who.id})
            await self._write({TENANT: None}, name)
        return await self._told_everywhere(TENANT, name, {"id": name})

    async def _block(self, name: str, body: bytes, who: Key) -> Reply:
        del body
        _named("tenant", name)
        async with self._told_after({"tenant": name, "change": "blocked", "by": who.id}):
            await self._shut(BLOCKED, name, True)
        return 200, {"id": name, "state": "blocked"}

    async def _unblock(self, name: str, body: bytes, who: Key) -> Reply:
        del body
        if self._enforced:
            return 409, {"error": _ENFORCED}
        async with self._changing:
            if not self._state.of(BLOCKED).get(name):
                return 404, {"error": "expected a tenant that is blocked"}
            await self._row({"tenant": name, "change": "unblocked", "by": who.id})
            await self._write({BLOCKED: None}, name)
        return await self._told_everywhere(BLOCKED, name, {"id": name, "state": "active"})

    @contextlib.asynccontextmanager
    async def _told_after(self, detail: dict[str, str]) -> AsyncIterator[None]:
        """Shut out first, then tell: a ledger that is away keeps nobody in.

        Raises:
            LedgerError: It holds here; the row or the other workers lack it.
        """
        try:
            yield
        finally:
            await self._row(detail)

    async def _row(self, detail: dict[str, str]) -> None:
        at = self._clock()
        await self._ledger.append(EventRow(at=at, kind=EventKind.POLICY, detail={**detail}))

    async def _write(self, values: dict[str, object], name: str) -> None:
        for kind, value in values.items():
            await self._state.set(kind, name, value)

    async def _told_everywhere(self, kind: str, name: str, done: dict[str, Any]) -> Reply:
        """Return when every worker knows what was written, unless another host overruled it."""
        before = self._state.overruled(kind, name)
        await self._state.everywhere()
        if self._state.overruled(kind, name) == before:
            return 200, done
        return 409, {"error": "another administrator changed it at the same time: look at it again"}

    async def _shut(self, kind: str, name: str, value: object) -> None:
        """Keep a key or a tenant out everywhere, whatever is asked for it at the same time.

        Raises:
            LedgerError: Others let it in again and again.
        """
        for _ in range(_TRIES):
            async with self._changing:
                await self._write({kind: value}, name)
            await self._state.everywhere()
            if self._state.of(kind).get(name) == value:
                return
        raise LedgerError("expected no change of this name meanwhile: ask again")

    def _checked(self, asked: KeyRequest, sha256: str, before: Key | None = None) -> Key:
        """Return the key that is asked for.

        Raises:
            WireError: Its values or names are none, or it would have ended already.
        """
        try:
            key = asked.key(sha256)
        except ConfigError as error:
            raise WireError(str(error)) from error
        _check(key)
        stays = before is not None and before.expires_at == key.expires_at
        if not stays and key.expires_at is not None and moment(key.expires_at) <= self._clock():
            raise WireError("expires_at: expected a time to come; revoke a key that is to end now")
        return key


_REQUEST = msgspec.json.Decoder(KeyRequest)
_FIELDS = msgspec.json.Decoder(dict[str, Any])
_Asked = TypeVar("_Asked", bound=msgspec.Struct)
_ROTATION = msgspec.json.Decoder(Rotation)
_TENANT = msgspec.json.Decoder(Tenant)
_NOT_OURS = "expected the id of an active key that this API made"


def _secret() -> str:
    return f"sk-safehold-{secrets.token_urlsafe(32)}"


def _amended(before: dict[str, Any], given: dict[str, Any], of: type[_Asked]) -> _Asked:
    """Return what was before with the fields that are given, a budget's limits one by one.

    Raises:
        WireError: A field is unknown, or its value is none.
    """
    plain = msgspec.to_builtins(before) | given
    if isinstance(given.get("budget"), dict):
        plain["budget"] = msgspec.to_builtins(before["budget"]) | given["budget"]
    return decode_request(msgspec.json.Decoder(of), msgspec.json.encode(plain))


def _named(what: str, name: str) -> None:
    """Refuse a name that the configuration would refuse too.

    Raises:
        WireError: The message says what was expected.
    """
    try:
        check_name(what, name)
    except ConfigError as error:
        raise WireError(str(error)) from error


def _check(of: msgspec.Struct) -> None:
    """Refuse numbers and texts that the configuration would refuse too.

    Raises:
        WireError: The message names the field.
    """
    try:
        check_values(of)
    except ConfigError as error:
        raise WireError(str(error)) from error
