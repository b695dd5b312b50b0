"""Follows the signed file of account states and tells admission what is in force.

A file that can't be read, does not verify, is stale or older than one seen before changes nothing:
the states in force stay until each ends by itself, and an alarm says so. A step whose grant does
not hold (any more) is not in force, whoever signed the file.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from safehold.canonical import sha256_hex
from safehold.guard.accounts.file import keys_of, opened
from safehold.guard.accounts.interface import AccountStateError, AccountStates, LadderStep
from safehold.guard.accounts.live import States, StateSource, StepInForce, holding, no_states
from safehold.guard.gateway.account_settings import AccountStateSettings
from safehold.guard.gateway.grant_log import GrantLog
from safehold.guard.gateway.signed_file import FileRow, FileWatch, SignedFile
from safehold.guard.ledger.interface import EventKind, RowSink

_FUTURE_S = 300


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    serial: int = 0
    digest: str = ""
    log_size: int = 0


class AccountStateFile:
    """The file as one worker sees it."""

    def __init__(self, settings: AccountStateSettings, clock: Callable[[], float]) -> None:
        """Read the file for the first time.

        Raises:
            AccountStateError: it can't be used: a gateway that shall know suspended accounts does
                not start without them.
            ConfigError: a key can't be read.
            TrustError: the log does not verify.
        """
        self._file = SignedFile(Path(settings.file), Path(settings.memory))
        self._keys = keys_of(settings.keys)
        self._clock = clock
        self._log = None
        if settings.log is not None and settings.log_keys is not None:
            size = self._seen().log_size
            self._log = GrantLog(Path(settings.log), Path(settings.log_keys), at_least=size)
        self._states = States()
        self.content = AccountStates(serial=1, at=0, fresh_until=0)
        self.ungranted = 0
        self.refresh()

    def of(self, account: str, now: float) -> StepInForce | None:
        """Return what is in force for an account (tenant/key)."""
        return self._states.of(account, now)

    def counts(self) -> dict[LadderStep, int]:
        """Return how many accounts stand on each step now."""
        return self._states.counts(self._clock())

    @property
    def stale(self) -> bool:
        """Whether the file's writer should have written another one by now."""
        return self._clock() >= self.content.fresh_until

    def refresh(self) -> bool:
        """Take in what changed; tell whether anything did.

        Raises:
            AccountStateError: the file can't be used; the states in force stay.
            TrustError: the log can't be used; the states in force stay.
        """
        news = self._log is not None and self._log.refresh()
        try:
            fresh = self._file.fresh()
        except OSError as error:
            raise AccountStateError(f"{self._file.name}: can't be read") from error
        content = self.content if fresh is None else self._opened(fresh)
        if fresh is None and not news:
            return False
        held = holding(content, None if self._log is None else self._log.state)
        self._remember(content, 0 if self._log is None else self._log.size)
        self._file.taken()
        self.content, self._states = content, States(held)
        self.ungranted = len(content.standings) - len(held)
        return True

    def _opened(self, data: bytes) -> AccountStates:
        content, now = opened(data, self._keys), self._clock()
        _follows(content, self._seen())
        if now >= content.fresh_until:
            raise AccountStateError(f"serial {content.serial} was fresh until a time that is past")
        if content.at > now + _FUTURE_S:
            raise AccountStateError(f"serial {content.serial} is from the future")
        return content

    def _seen(self) -> _Seen:
        try:
            return self._decoded(self._file.seen())
        except OSError as error:
            raise AccountStateError(f"{self._file.name}: the memory is lost") from error

    def _decoded(self, seen: bytes | None) -> _Seen:
        try:
            return _Seen() if seen is None else msgspec.json.decode(seen, type=_Seen)
        except msgspec.DecodeError as error:
            raise AccountStateError(f"{self._file.name}: the memory is lost") from error

    def _remember(self, content: AccountStates, log_size: int) -> None:
        def after(data: bytes | None) -> bytes:
            seen = self._decoded(data)
            if content is not self.content:
                _follows(content, seen)  # Another worker may have read a later file.
            if content.serial >= seen.serial:
                seen = msgspec.structs.replace(seen, serial=content.serial, digest=_digest(content))
            seen = msgspec.structs.replace(seen, log_size=max(log_size, seen.log_size))
            return msgspec.json.encode(seen)

        try:
            self._file.remember(after)
        except OSError as error:
            raise AccountStateError(f"{self._file.name}: the memory can't be written") from error


def _follows(content: AccountStates, seen: _Seen) -> None:
    if content.serial < seen.serial:
        raise AccountStateError(f"serial {content.serial} is older than {seen.serial}, seen before")
    if content.serial == seen.serial and seen.digest not in {"", _digest(content)}:
        raise AccountStateError(f"serial {content.serial} has said something else before")


def _digest(content: AccountStates) -> str:
    return sha256_hex(msgspec.json.encode(content))


class AccountStateNews:
    """What is told of the file: how many accounts stand on each step, and what is amiss."""

    def __init__(self, states: AccountStateFile, count: Callable[[dict[str, int]], None]) -> None:
        """Take the file, and who hears of the counts."""
        self._states = states
        self._count = count
        self._stale = False

    def refresh(self) -> bool:
        """Take in what changed; tell whether anything did.

        Raises:
            AccountStateError: the file can't be used; the states in force stay.
            TrustError: the log can't be used; the states in force stay.
        """
        return self._states.refresh()

    def changed(self) -> Iterator[FileRow]:
        """Say what is in force now."""
        counts = {level.value: count for level, count in self._states.counts().items()}
        self._count(counts)
        if self._states.ungranted:
            yield FileRow(
                {"alarm": "account-states-ungranted", "steps": self._states.ungranted},
                "account_states_ungranted",
            )
        yield FileRow({"serial": self._states.content.serial, **counts})

    def looked(self) -> Iterator[FileRow]:
        """Say, once, that the file's writer should have written another one by now."""
        stale, before = self._states.stale, self._stale
        self._stale = stale
        if stale and not before:
            serial = self._states.content.serial
            yield FileRow(
                {"alarm": "account-states-stale", "serial": serial}, "account_states_stale"
            )


async def open_states(
    settings: AccountStateSettings | None,
    ledger: RowSink,
    *,
    alarm: Callable[[str], None],
    count: Callable[[dict[str, int]], None],
) -> tuple[StateSource, tuple[Callable[[], Awaitable[None]], ...]]:
    """Return what says which states are in force, and what follows the file in the background.

    Raises:
        SafeholdError: the file or the log can't be used; the gateway must not start.
    """
    if settings is None:
        return no_states, ()
    states = await asyncio.to_thread(AccountStateFile, settings, time.time)
    watch = FileWatch(
        AccountStateNews(states, count),
        kind=EventKind.ACCOUNT_STATES,
        refused=AccountStateError,
        reload_s=settings.reload_s,
        ledger=ledger,
        alarm=alarm,
        clock=time.time,
    )
    return states.of, (watch.follow,)
