"""Who may ask: keys by digest, surfaces per key, and budgets in a shared store."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from safehold.errors import TrustError, WireError
from safehold.guard.accounts.interface import LadderStep
from safehold.guard.accounts.live import StateSource, StepInForce, no_states
from safehold.guard.gateway.access.steady import SteadyCounters
from safehold.guard.gateway.access.store import Store
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.policy import Key

_USE_CASE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MINUTE = 60
_HOUR = 3_600
_DAY = 86_400


class HttpRefusal(msgspec.Struct, frozen=True):
    """Why a request is not admitted, as HTTP tells it."""

    status: int
    message: str
    retry_after_s: int | None = None


class Gate:
    """Checks keys and budgets. Without client keys everybody on loopback is welcome."""

    def __init__(
        self,
        keys: Sequence[Key],
        store: Store,
        states: StateSource = no_states,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the keys, the store of budgets, and what is known of accounts."""
        self.counters = SteadyCounters(store)
        self._states = states
        self._clock = clock
        self._configured: tuple[Key, ...] = ()
        self._managed: dict[str, Key | None] = {}
        self.use(keys)

    def use(self, keys: Sequence[Key]) -> None:
        """Take the configuration's keys from now on, in the place of those before."""
        self._configured = tuple(keys)
        self._sort()

    def manage(self, keys: Mapping[str, Key | None]) -> None:
        """Take the keys of the admin API, by id; None is a key that was revoked.

        A revoked id stays out though the configuration names it. A managed key never takes the
        place of a configured one, and never opens the admin API.
        """
        self._managed = dict(keys)
        self._sort()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key that is let in now."""
        return (*self._clients.values(), *self._admins.values())

    def configured(self, name: str) -> bool:
        """Say whether the configuration has a key of this id."""
        return any(key.id == name for key in self._configured)

    def _sort(self) -> None:
        own = {key.id for key in self._configured}
        given = [key for key in self._configured if self._managed.get(key.id, key) is not None]
        given += [
            key
            for name, key in self._managed.items()
            if key is not None and name not in own and not key.admin
        ]
        self._clients = {key.sha256: key for key in given if not key.admin}
        self._admins = {key.sha256: key for key in given if key.admin}
        self._closed = any(not key.admin for key in self._configured) or bool(self._managed)

    @property
    def needs_key(self) -> bool:
        """Whether clients must show a key."""
        return self._closed

    def client(self, token: str | None) -> Key | None:
        """Return whose key this is; None where none is needed.

        Raises:
            TrustError: A key is needed, and this is none.
        """
        if not self._closed:
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

    def standing(self, key: Key | None) -> StepInForce | None:
        """Return the account's step of the ladder that is in force."""
        return None if key is None else self._states(account_of(key), self._clock())

    def suspended(self, key: Key | None) -> HttpRefusal | None:
        """Return why this account is at no door admitted, or None."""
        standing = self.standing(key)
        if standing is None or standing.level is not LadderStep.SUSPEND:
            return None
        return HttpRefusal(403, "this account is suspended: ask the operator to look at it again")

    async def admit(self, key: Key | None, surface: Surface) -> HttpRefusal | None:
        """Count a request against its key's budgets; return why it may not go on, or None.

        Raises:
            LedgerError: The store can't be reached (the caller must refuse).
        """
        if key is None:
            return None
        if key.surfaces and surface not in key.surfaces:
            return HttpRefusal(403, "this key may not use this surface")
        return await self._on_its_step(key) or await self._in_its_budget(key)

    async def _on_its_step(self, key: Key) -> HttpRefusal | None:
        standing = self.standing(key)
        if standing is None or standing.level is LadderStep.SUSPEND:
            return self.suspended(key)
        if standing.requests_per_hour is None:
            return None
        count = await self.counters.add(f"standing:{account_of(key)}", 1, _HOUR)
        if count <= standing.requests_per_hour:
            return None
        left = _HOUR - int(self._clock()) % _HOUR
        return HttpRefusal(429, "this account's requests of this hour are spent", left)

    async def _in_its_budget(self, key: Key) -> HttpRefusal | None:
        budget = key.budget
        if budget.flags_per_day is not None:
            flags = await self.counters.add(f"flags:{key.id}", 0, _DAY)
            if flags >= budget.flags_per_day:
                return HttpRefusal(403, "this key is suspended: its daily budget of flags is spent")
        if budget.tokens_per_day is not None:
            tokens = await self.counters.add(f"tokens:{key.id}", 0, _DAY)
            if tokens >= budget.tokens_per_day:
                return HttpRefusal(429, "this key's daily budget of tokens is spent", 3600)
        if budget.requests_per_minute is not None:
            count = await self.counters.add(f"requests:{key.id}", 1, _MINUTE)
            if count > budget.requests_per_minute:
                return HttpRefusal(429, "this key's requests per minute are spent", _MINUTE)
        return None

    async def unreadable_left(self, key: Key | None) -> int | None:
        """Return how many characters that nobody can read its key has left today; None: no limit.

        Raises:
            LedgerError: The store can't be reached (the caller must refuse).
        """
        if key is None or key.budget.unreadable_per_day is None:
            return None
        used = await self.counters.add(f"unreadable:{key.id}", 0, _DAY)
        return max(0, key.budget.unreadable_per_day - used)

    async def charge(
        self, key: Key | None, *, flagged: bool, tokens: int, unreadable: int = 0
    ) -> None:
        """Count what an exchange used."""
        if key is None:
            return
        if flagged and key.budget.flags_per_day is not None:
            await self.counters.charge(f"flags:{key.id}", 1, _DAY)
        if tokens and key.budget.tokens_per_day is not None:
            await self.counters.charge(f"tokens:{key.id}", tokens, _DAY)
        if unreadable and key.budget.unreadable_per_day is not None:
            await self.counters.charge(f"unreadable:{key.id}", unreadable, _DAY)


def account_of(key: Key) -> str:
    """Return the account's name, as the ledger joins it: tenant and key."""
    return "/".join(name for name in (key.tenant, key.id) if name)


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
