"""Who may ask: keys by digest, surfaces per key, and budgets in a shared store."""

import hashlib
import re
from collections.abc import Sequence

import msgspec

from safehold.errors import TrustError, WireError
from safehold.guard.gateway.access.store import Store
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.policy import Key

_USE_CASE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MINUTE = 60
_DAY = 86_400


class HttpRefusal(msgspec.Struct, frozen=True):
    """Why a request is not admitted, as HTTP tells it."""

    status: int
    message: str
    retry_after_s: int | None = None


class Gate:
    """Checks keys and budgets. Without client keys everybody on loopback is welcome."""

    def __init__(self, keys: Sequence[Key], store: Store) -> None:
        self._clients = {key.sha256: key for key in keys if not key.admin}
        self._admins = {key.sha256: key for key in keys if key.admin}
        self._store = store

    @property
    def needs_key(self) -> bool:
        """Whether clients must show a key."""
        return bool(self._clients)

    def client(self, token: str | None) -> Key | None:
        """Return whose key this is; None where none is needed.

        Raises:
            TrustError: A key is needed, and this is none.
        """
        if not self._clients:
            return None
        key = self._clients.get(_digest(token))
        if key is None:
            raise TrustError("expected a valid API key")
        return key

    def admin(self, token: str | None) -> Key:
        """Return the administrator whose key this is.

        Raises:
            TrustError: It is no administrator's.
        """
        key = self._admins.get(_digest(token))
        if key is None:
            raise TrustError("expected an administrator's key")
        return key

    async def admit(self, key: Key | None, surface: Surface) -> HttpRefusal | None:
        """Count a request against its key's budgets; return why it may not go on, or None.

        Raises:
            LedgerError: The store can't be reached (the caller must refuse).
        """
        if key is None:
            return None
        if key.surfaces and surface not in key.surfaces:
            return HttpRefusal(403, "this key may not use this surface")
        budget = key.budget
        if budget.flags_per_day is not None:
            flags = await self._store.add(f"flags:{key.id}", 0, _DAY)
            if flags >= budget.flags_per_day:
                return HttpRefusal(403, "this key is suspended: its daily budget of flags is spent")
        if budget.tokens_per_day is not None:
            tokens = await self._store.add(f"tokens:{key.id}", 0, _DAY)
            if tokens >= budget.tokens_per_day:
                return HttpRefusal(429, "this key's daily budget of tokens is spent", 3600)
        if budget.requests_per_minute is not None:
            count = await self._store.add(f"requests:{key.id}", 1, _MINUTE)
            if count > budget.requests_per_minute:
                return HttpRefusal(429, "this key's requests per minute are spent", _MINUTE)
        return None

    async def charge(self, key: Key | None, *, flagged: bool, tokens: int) -> None:
        """Count what an exchange used."""
        if key is None:
            return
        if flagged and key.budget.flags_per_day is not None:
            await self._store.add(f"flags:{key.id}", 1, _DAY)
        if tokens and key.budget.tokens_per_day is not None:
            await self._store.add(f"tokens:{key.id}", tokens, _DAY)


def use_case(value: str | None) -> str | None:
    """Return the `x-safehold-use-case` header's value.

    Raises:
        WireError: It is no short plain name.
    """
    if value is not None and _USE_CASE.fullmatch(value) is None:
        raise WireError("x-safehold-use-case: expected up to 64 of A-Z, a-z, 0-9 and _.:-")
    return value


def bearer(authorization: str | None, api_key: str | None) -> str | None:
    """Return the token of an `Authorization: Bearer` or `x-api-key` header."""
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
    return api_key


def _digest(token: str | None) -> str:
    return hashlib.sha256((token or "").encode("utf-8", "surrogateescape")).hexdigest()
