"""Which classes a grant of the transparency log has switched off, as one worker knows it.

A switch that can't be read, does not verify, has ended or was revoked is none: the class guards.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from safehold.errors import LedgerError, TrustError
from safehold.guard.gateway.class_settings import ClassSwitchSettings
from safehold.guard.gateway.grant_log import GrantLog
from safehold.guard.ledger.interface import Detail, EventKind, EventRow, RowSink
from safehold.trust.grants.details import SWITCH_CLASS_OFF, ClassOff
from safehold.trust.grants.state import TrustState


class Off(msgspec.Struct, frozen=True):
    """A class is off by a grant, until then (POSIX seconds)."""

    grant: str
    until: int


def switched_off(state: TrustState) -> dict[str, Off]:
    """Return the classes that grants in force switch off, each with the longest such grant."""
    found: dict[str, Off] = {}
    for digest, case in state.cases.live():
        request = case.signed.request
        details = request.details
        if case.used_at is None or case.closed or not isinstance(details, ClassOff):
            continue
        if request.operation != SWITCH_CLASS_OFF:
            continue
        off = Off(digest, min(details.until, request.expires))
        known = found.get(details.guard_class)
        if known is None or known.until < off.until:
            found[details.guard_class] = off
    return found


class ClassSwitches:
    """Follows the log; says of a class whether it is off now."""

    def __init__(
        self,
        settings: ClassSwitchSettings,
        *,
        names: Iterable[str],
        ledger: RowSink,
        alarm: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """Read the log for the first time.

        Raises:
            TrustError: It does not verify; the gateway must not start.
        """
        self._settings = settings
        self._names = frozenset(names)
        self._ledger = ledger
        self._alarm = alarm
        self._clock = clock
        self._log = GrantLog(Path(settings.log), Path(settings.log_keys), at_least=0)
        self._off: Mapping[str, Off] = {}
        self._said: dict[str, Off] = {}
        self._unreadable = ""
        self._log.refresh()
        self._off = switched_off(self._log.state)

    def off(self, name: str) -> Off | None:
        """Return the grant that has switched a class off; None while it guards."""
        found = self._off.get(name)
        return found if found is not None and self._clock() < found.until else None

    async def follow(self) -> None:
        """Follow the log until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._settings.reload_s)

    async def look(self) -> None:
        """Look once; each class that goes off or comes back is a row and an alarm."""
        try:
            if await asyncio.to_thread(self._log.refresh) or self._unreadable:
                self._off = switched_off(self._log.state)
            self._unreadable = ""
        except TrustError as error:
            self._off = {}  # whatever was switched off guards again
            if self._unreadable != str(error):
                self._unreadable = str(error)
                await self._row({"alarm": "class-switch-log", "reason": str(error)[:200]})
        for name in sorted(self._names):
            now, before = self.off(name), self._said.get(name)
            if now == before:
                continue
            if now is None:
                self._said.pop(name)
                await self._row({"class": name, "state": "back", "grant": ""})
            else:
                self._said[name] = now
                self._alarm("class_off")
                row: Detail = {"class": name, "state": "off", "grant": now.grant}
                await self._row({**row, "until": now.until})

    async def _row(self, detail: Detail) -> None:
        kind = EventKind.ALARM if "alarm" in detail else EventKind.CLASS_SWITCH
        if kind is EventKind.ALARM:
            self._alarm("class_switch_log")
        try:
            await self._ledger.append(EventRow(at=self._clock(), kind=kind, detail=detail))
        except LedgerError:
            self._alarm("ledger")
