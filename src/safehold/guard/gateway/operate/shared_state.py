"""What all workers and hosts hold in common: closed surfaces, managed keys, the bundle in use.

It lies in the store. Each worker reads it every quarter of a second, and never lets a request in on
a reading that is older than a second. What changes it is answered only when that second is over, so
that whoever closed a surface knows it closed everywhere. A store that forgot is told again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from safehold.errors import LedgerError
from safehold.guard.gateway.access.store import Store

FOLLOW_S = 0.25
STALE_S = 1.0


class Field(msgspec.Struct, frozen=True):
    """One shared field: the higher version counts; of two equal ones the one that closes more.

    None opens most, a word (`revoked`, why a surface is closed) closes most; what describes a key
    or a tenant stands between.
    """

    version: int
    value: Any

    @property
    def rank(self) -> tuple[int, int, str]:
        """The order in which one replaces another."""
        closes = 0 if self.value is None else 1 if isinstance(self.value, dict) else 2
        return self.version, closes, msgspec.json.encode(self.value).decode()


Taker = Callable[[str, Any], Awaitable[None]]
"""Takes a field's name (after its kind) and its value, None where it is lifted."""


class SharedState:
    """The shared fields, as this worker knows them. A field's name is `kind:name`."""

    def __init__(self, store: Store, ticks: Callable[[], float]) -> None:
        self._store = store
        self._ticks = ticks
        self._fields: dict[str, Field] = {}
        self._takers: dict[str, Taker] = {}
        self._overruled: dict[str, int] = {}
        self._read_at: float | None = None
        self._failed_at: float | None = None
        self._reading = asyncio.Lock()

    def on(self, kind: str, taker: Taker) -> None:
        """Call `taker` with every field of a kind that changes."""
        self._takers[kind] = taker

    def of(self, kind: str) -> dict[str, Any]:
        """Return the values of a kind, by name."""
        return {
            name.partition(":")[2]: field.value
            for name, field in self._fields.items()
            if name.startswith(f"{kind}:")
        }

    def overruled(self, kind: str, name: str) -> int:
        """Return how often a reading replaced a field: another host changed it."""
        return self._overruled.get(f"{kind}:{name}", 0)

    async def set(self, kind: str, name: str, value: object) -> None:
        """Change a field here and everywhere; it holds here even where the store is away.

        Raises:
            LedgerError: The store did not take it; it is told again as soon as it answers.
        """
        full = f"{kind}:{name}"
        before = self._fields.get(full)
        field = Field(version=before.version + 1 if before else 1, value=value)
        await self._take(full, field)
        await self._store.set_state(full, msgspec.json.encode(field))

    async def everywhere(self) -> None:
        """Return when no worker lets a request in that has not read what was set before."""
        if self._store.shared:
            await asyncio.sleep(STALE_S + FOLLOW_S)

    async def fresh(self) -> None:
        """Return at once after a reading of the last second, else read.

        Who waits for another's reading takes what that one found, its failure too: while the store
        is away, nobody stands in a queue behind the others' attempts.

        Raises:
            LedgerError: The store can't be reached; the caller must refuse.
        """
        if not self._store.shared or self._is_fresh():
            return
        came = self._ticks()
        async with self._reading:
            if self._is_fresh():
                return
            if self._failed_at is not None and self._failed_at >= came:
                raise LedgerError("store: it did not answer those who asked meanwhile")
            await self._read()

    async def read(self) -> None:
        """Read all fields, and tell the store again what it forgot.

        Raises:
            LedgerError: The store can't be reached.
        """
        async with self._reading:
            await self._read()

    async def follow(self) -> None:
        """Read for ever."""
        while self._store.shared:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self.read()
            except LedgerError:
                continue  # `fresh` refuses meanwhile

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._ticks() - self._read_at <= STALE_S

    async def _read(self) -> None:
        began = self._ticks()
        found: dict[str, Field] = {}
        try:
            held = await self._store.state()
        except LedgerError:
            self._failed_at = self._ticks()
            raise
        for name, value in held.items():
            try:
                found[name] = msgspec.json.decode(value, type=Field)
            except msgspec.DecodeError:
                continue  # no field of ours
        for name, field in found.items():
            known = self._fields.get(name)
            if known is None or field.rank > known.rank:
                self._overruled[name] = self._overruled.get(name, 0) + 1
                await self._take(name, field)
        for name, known in list(self._fields.items()):
            if name not in found or found[name].rank < known.rank:
                await self._store.set_state(name, msgspec.json.encode(known))
        self._read_at = began

    async def _take(self, name: str, field: Field) -> None:
        self._fields[name] = field
        kind, _, rest = name.partition(":")
        taker = self._takers.get(kind)
        if taker is not None:
            await taker(rest, field.value)
