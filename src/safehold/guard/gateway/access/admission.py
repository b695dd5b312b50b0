"""Who may ask: keys by digest, surfaces per key, and budgets in a shared store."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from safehold.errors import WireError
from safehold.guard.accounts.interface import LadderStep
from safehold.guard.accounts.live import StateSource, StepInForce, no_states
from safehold.guard.gateway.access.key_ring import KeyRing
from safehold.guard.gateway.access.steady import SteadyCounters
from safehold.guard.gateway.access.store import Store
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.key_settings import Budget, Tenant, TenantBudget
from safehold.guard.gateway.policy import Key

_USE_CASE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MINUTE = 60
_HOUR = 3_600
_DAY = 86_400
_NO_TENANTS: Mapping[str, Tenant] = MappingProxyType({})
_COUNTERS = {
    "requests_per_minute": ("requests", _MINUTE),
    "tokens_per_minute": ("tokens-minute", _MINUTE),
    "tokens_per_day": ("tokens", _DAY),
    "flags_per_day": ("flags", _DAY),
    "unreadable_per_day": ("unreadable", _DAY),
}
"""The counter and the window, in seconds, of each budget."""


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
        self.ring = KeyRing(clock)
        self.use(keys)

    def use(
        self, keys: Sequence[Key], tenants: Mapping[str, Tenant] = MappingProxyType({})
    ) -> None:
        """Take the configuration's keys and tenants from now on, in the place of those before."""
        self.ring.use(keys, tenants)

    @property
    def needs_key(self) -> bool:
        """Whether clients must show a key."""
        return self.ring.needed

    def client(self, token: str | None) -> Key | None:
        """Return whose key this is; None where none is needed.

        Raises:
            TrustError: A key is needed, and this is none.
        """
        return self.ring.client(token)

    def admin(self, token: str | None) -> Key:
        """Return the administrator whose key this is.

        Raises:
            TrustError: It is no administrator's.
        """
        return self.ring.admin(token)

    def standing(self, key: Key | None) -> StepInForce | None:
        """Return the account's step of the ladder that is in force."""
        return None if key is None else self._states(account_of(key), self._clock())

    def suspended(self, key: Key | None) -> HttpRefusal | None:
        """Return why this account is at no door admitted, or None."""
        if key is not None and key.tenant in self.ring.blocked:
            return HttpRefusal(403, "this key's tenant is blocked: ask the operator")
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
        if not self.ring.may_use(key, surface):
            return HttpRefusal(403, "this key may not use this surface")
        return await self._on_its_step(key) or await self._in_its_budget(key)

    async def _on_its_step(self, key: Key) -> HttpRefusal | None:
        suspended = self.suspended(key)
        standing = self.standing(key)
        if standing is None or suspended is not None:
            return suspended
        if standing.requests_per_hour is None:
            return None
        count = await self.counters.add(f"standing:{account_of(key)}", 1, _HOUR)
        if count <= standing.requests_per_hour:
            return None
        left = _HOUR - int(self._clock()) % _HOUR
        return HttpRefusal(429, "this account's requests of this hour are spent", left)

    async def _in_its_budget(self, key: Key) -> HttpRefusal | None:
        for budget, prefix, name, who in self._purses(key):
            refusal = await self._spent(budget, prefix, name, who)
            if refusal is not None:
                return refusal
        return None

    def _purses(self, key: Key) -> tuple[tuple[Budget | TenantBudget, str, str, str], ...]:
        """Return the budgets that a request counts against, and the names of their counters."""
        own = (key.budget, "", key.id, "this key")
        return (own, (self.ring.tenant(key).budget, "tenant-", key.tenant, "this key's tenant"))

    async def _spent(
        self, budget: Budget | TenantBudget, prefix: str, name: str, who: str
    ) -> HttpRefusal | None:
        counted = self.counters.add
        if budget.flags_per_day is not None:
            flags = await counted(f"{prefix}flags:{name}", 0, _DAY)
            if flags >= budget.flags_per_day:
                return HttpRefusal(403, f"{who} is suspended: its daily budget of flags is spent")
        if budget.tokens_per_day is not None:
            tokens = await counted(f"{prefix}tokens:{name}", 0, _DAY)
            if tokens >= budget.tokens_per_day:
                return HttpRefusal(429, f"{who}'s daily budget of tokens is spent", _HOUR)
        if budget.tokens_per_minute is not None:
            tokens = await counted(f"{prefix}tokens-minute:{name}", 0, _MINUTE)
            if tokens >= budget.tokens_per_minute:
                return HttpRefusal(429, f"{who}'s tokens per minute are spent", _MINUTE)
        if budget.requests_per_minute is not None:
            count = await counted(f"{prefix}requests:{name}", 1, _MINUTE)
            if count > budget.requests_per_minute:
                return HttpRefusal(429, f"{who}'s requests per minute are spent", _MINUTE)
        return None

    async def used(self, budget: Budget | TenantBudget, prefix: str, name: str) -> dict[str, int]:
        """Return what was used of each budget that is set; `prefix` is `tenant-` for a tenant's.

        Raises:
            LedgerError: The store can't be reached.
        """
        return {
            field: await self.counters.add(f"{prefix}{counter}:{name}", 0, window_s)
            for field, (counter, window_s) in _COUNTERS.items()
            if getattr(budget, field, None) is not None
        }

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
        for budget, prefix, name, _ in self._purses(key):
            if flagged and budget.flags_per_day is not None:
                await self.counters.charge(f"{prefix}flags:{name}", 1, _DAY)
            if tokens and budget.tokens_per_day is not None:
                await self.counters.charge(f"{prefix}tokens:{name}", tokens, _DAY)
            if tokens and budget.tokens_per_minute is not None:
                await self.counters.charge(f"{prefix}tokens-minute:{name}", tokens, _MINUTE)
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
