"""Follows a signed file while the gateway runs: its bytes, the memory of what was seen, and rows.

What the file says, and which of it holds, is for who asked for it: account states and hot rules.
A file that can't be used changes nothing, and an alarm says so, once for each reason.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from safehold.errors import BundleError, LedgerError, TrustError
from safehold.guard.ledger.interface import Detail, EventKind, EventRow, RowSink
from safehold.trust.log.files import change_whole


class SignedFile:
    """A file whose writer replaces it, and a smaller one where its readers keep what they saw."""

    def __init__(self, file: Path, memory: Path) -> None:
        """Take where both lie; nothing is read yet."""
        self.name = file.name
        self._file, self._memory = file, memory
        self._stamp: tuple[int, int, int] | None = None
        self._found: tuple[int, int, int] | None = None

    def fresh(self) -> bytes | None:
        """Return the file's bytes; None where it is the one that was taken.

        Raises:
            OSError: It can't be read.
        """
        stat = self._file.stat()
        self._found = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return None if self._found == self._stamp else self._file.read_bytes()

    def taken(self) -> None:
        """Note that what `fresh` returned last is in force: it is not read again."""
        self._stamp = self._found

    def seen(self) -> bytes | None:
        """Return what readers kept; None where there was none yet.

        Raises:
            OSError: It can't be read.
        """
        try:
            return self._memory.read_bytes()
        except FileNotFoundError:
            return None

    def remember(self, after: Callable[[bytes | None], bytes]) -> None:
        """Keep what `after` makes of what readers kept: another worker may have seen more.

        Raises:
            OSError: It can't be written.
        """
        change_whole(self._memory, after)


class FileRow(msgspec.Struct, frozen=True):
    """What is told of a file; with the kind of an alarm, or none."""

    detail: Detail
    alarm: str = ""


class FollowedFile(Protocol):
    """What reads the file, and says what there is to tell."""

    def refresh(self) -> bool:
        """Take in what changed; tell whether anything did.

        Raises:
            SafeholdError: It can't be used; what was in force stays.
        """
        ...

    def changed(self) -> Iterable[FileRow]:
        """Say what is in force now."""
        ...

    def looked(self) -> Iterable[FileRow]:
        """Say what is to be told though nothing changed."""
        ...


class FileWatch:
    """Looks at the file again and again; a change or a refusal is a row."""

    def __init__(
        self,
        file: FollowedFile,
        *,
        kind: EventKind,
        refused: type[BundleError],
        reload_s: float,
        ledger: RowSink,
        alarm: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """Take the file, the kind of its rows, what it raises, and where to tell."""
        self._file = file
        self._kind = kind
        self._refused = refused
        self._reload_s = reload_s
        self._ledger = ledger
        self._alarm = alarm
        self._clock = clock
        self._told = ""

    async def follow(self) -> None:
        """Follow the file until cancelled."""
        await self._tell(self._file.changed())
        while True:
            await asyncio.sleep(self._reload_s)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        try:
            changed = await asyncio.to_thread(self._file.refresh)
        except (self._refused, TrustError) as error:
            if str(error) != self._told:
                self._told = str(error)
                kind = f"{self._kind.value}_refused"
                detail: Detail = {
                    "alarm": kind.replace("_", "-"),
                    "reason": self._told[:200],
                }
                await self._tell([FileRow(detail, kind)])
            return
        if changed:
            self._told = ""
            await self._tell(self._file.changed())
        await self._tell(self._file.looked())

    async def _tell(self, rows: Iterable[FileRow]) -> None:
        for row in rows:
            if row.alarm:
                self._alarm(row.alarm)
            kind = EventKind.ALARM if row.alarm else self._kind
            try:
                await self._ledger.append(EventRow(at=self._clock(), kind=kind, detail=row.detail))
            except LedgerError:
                self._alarm("ledger")
