"""Keys over the admin API: made, changed and revoked for all workers and hosts at once.

A key is printed once, when it is made; what is kept, in the store, is its digest. A key of the
configuration can be revoked here and given back, never changed: its file says what it may do.
"""

import re
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from safehold.errors import ConfigError, WireError
from safehold.guard.gateway.access.admission import Gate
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Budget, Key, digest_key
from safehold.guard.gateway.protocols.json_border import decode_request
from safehold.guard.ledger.interface import EventKind, EventRow, RowSink

KEY_PATH = re.compile(r"/admin/keys/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:/(revoke|restore))?")
REVOKED = "revoked"
_KIND = "key"
_ENFORCED = (
    "this gateway takes only released settings, and a key that may do more is none: release it "
    "(docs/change.md)"
)
Reply = tuple[int, dict[str, Any]]


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key may do; empty surfaces or models are all of them."""

    id: str
    tenant: str = "default"
    surfaces: tuple[Surface, ...] = ()
    models: tuple[str, ...] = ()
    budget: Budget = Budget()

    def key(self, sha256: str) -> Key:
        """Return the key, under the digest that it is recognised by."""
        return Key(
            id=self.id,
            sha256=sha256,
            tenant=self.tenant,
            surfaces=self.surfaces,
            models=self.models,
            budget=self.budget,
        )


class AdminKeys:
    """Answers `/admin/keys` and what is below it."""

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

    async def answer(self, method: str, path: str, body: bytes, who: Key) -> Reply:
        """Do what an administrator asks; every change is a ledger row first.

        Raises:
            WireError: The request is malformed.
            LedgerError: The change can't be kept.
        """
        place = KEY_PATH.fullmatch(path)
        match method, place:
            case "GET", None if path == "/admin/keys":
                return 200, {"keys": self._listed()}
            case "POST", None if path == "/admin/keys":
                return await self._make(decode_request(_REQUEST, body), who)
            case "PUT", re.Match() if not place.group(2):
                return await self._change(place.group(1), decode_request(_REQUEST, body), who)
            case "POST", re.Match() if place.group(2) == "revoke":
                return await self._revoke(place.group(1), who)
            case "POST", re.Match() if place.group(2) == "restore":
                return await self._restore(place.group(1), who)
            case _:
                known = path == "/admin/keys" or place is not None
                return (405 if known else 404), {"error": "expected another method or path"}

    def _managed(self) -> dict[str, Any]:
        return {name: value for name, value in self._state.of(_KIND).items() if value is not None}

    def _listed(self) -> list[dict[str, Any]]:
        keys = []
        for key in self._gate.keys:
            told = msgspec.to_builtins(key)
            told.pop("sha256")
            told.pop("policies")
            where = "configuration" if self._gate.configured(key.id) else "admin"
            keys.append(told | {"from": where, "state": "active"})
        for name, value in self._managed().items():
            if value == REVOKED:
                keys.append({"id": name, "state": REVOKED})
        return keys

    async def _make(self, asked: KeyRequest, who: Key) -> Reply:
        if self._enforced:
            return 409, {"error": _ENFORCED}
        if KEY_PATH.fullmatch(f"/admin/keys/{asked.id}") is None:
            raise WireError("id: expected up to 64 of A-Z, a-z, 0-9 and ._-")
        if self._gate.configured(asked.id) or asked.id in self._managed():
            return 409, {"error": "there is a key of this id; change or revoke it"}
        secret = f"sk-safehold-{secrets.token_urlsafe(32)}"
        key = _checked(asked, digest_key(secret))
        await self._set(key.id, msgspec.to_builtins(key), "added", who)
        return 200, {"key": secret, "id": key.id}

    async def _change(self, name: str, asked: KeyRequest, who: Key) -> Reply:
        if self._enforced:
            return 409, {"error": _ENFORCED}
        if asked.id != name:
            raise WireError("id: expected the id of the path")
        found = self._managed().get(name)
        if found is None or found == REVOKED:
            return 404, {"error": "expected the id of an active key that this API made"}
        key = _checked(asked, found["sha256"])
        await self._set(name, msgspec.to_builtins(key), "changed", who)
        return 200, {"id": name}

    async def _revoke(self, name: str, who: Key) -> Reply:
        if name == who.id:
            return 409, {"error": "an administrator can't revoke the key that is asking"}
        if not (self._gate.configured(name) or name in self._managed()):
            return 404, {"error": "expected the id of a key"}
        await self._set(name, REVOKED, REVOKED, who)
        return 200, {"id": name, "state": REVOKED}

    async def _restore(self, name: str, who: Key) -> Reply:
        if self._enforced:
            return 409, {"error": _ENFORCED}
        if self._managed().get(name) != REVOKED or not self._gate.configured(name):
            return 404, {"error": "expected the id of a configured key that was revoked"}
        await self._set(name, None, "restored", who)
        return 200, {"id": name, "state": "active"}

    async def _set(self, name: str, value: object, change: str, who: Key) -> None:
        row = {"key": name, "change": change, "by": who.id}
        await self._ledger.append(EventRow(at=self._clock(), kind=EventKind.POLICY, detail={**row}))
        await self._state.set(_KIND, name, value)
        await self._state.everywhere()


_REQUEST = msgspec.json.Decoder(KeyRequest)


def managed_key(value: object) -> Key | None:
    """Return a key as the store keeps it; None is a revoked one, or one that can't be read."""
    try:
        return None if value == REVOKED else msgspec.convert(value, Key)
    except msgspec.ValidationError:
        return None


def _checked(asked: KeyRequest, sha256: str) -> Key:
    try:
        return asked.key(sha256)
    except ConfigError as error:
        raise WireError(str(error)) from error
