"""Exemptions at the gateway: a client's key, the grants of the transparency log, and seats.

A grant changes the action on named clauses and nothing else. Whatever can't be read, verified or
counted here ends in "not exempt", never in "let it pass".
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

from safehold.constitution.library import load
from safehold.errors import ConfigError, LedgerError, TrustError
from safehold.guard.gateway.exemption_settings import ExemptionSettings
from safehold.guard.gateway.interface import Exempt, NotExempt, Relief
from safehold.guard.ledger.interface import EventKind, EventRow, RowSink
from safehold.trust.exemptions import (
    Admitted,
    Caller,
    CaseOverrun,
    Exemption,
    ExemptionAction,
    ExemptionBook,
    ExemptionError,
    RateOverrun,
    SeatOverrun,
    exemption_book,
)
from safehold.trust.exemptions.seat_file import SeatFile
from safehold.trust.grants.leaf_reader import take_entry
from safehold.trust.grants.state import TrustState
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.interface import LogSource
from safehold.trust.log.keys import LogKeys, read_keys

_DAY_S = 86_400


class LogExemptions:
    """The gateway's `Exemptions`: read from the log, ruled by the book, counted by seats."""

    def __init__(
        self,
        settings: ExemptionSettings,
        *,
        source: LogSource,
        keys: LogKeys,
        relaxable: Mapping[str, str],
        seats: SeatFile,
    ) -> None:
        self.settings = settings
        self.seats = seats
        self.dropped: tuple[str, ...] = ()
        self._keys = keys
        self._emitters = keys.emitter_keys()
        self._relaxable = relaxable
        self._log = Follower(source, keys, at_least=seats.seen(keys.origin))
        self._state = TrustState(keys.origin, keys.founding)
        self.book = ExemptionBook((), frozenset(relaxable))
        self._whole = False
        self._standing: dict[tuple[str, bool], bool] = {}

    @property
    def log_size(self) -> int:
        """How many leaves were read."""
        return self._log.size

    def action_for(
        self, subject: str | None, use_case: str | None, clause: str, surface: str, now: float
    ) -> Exempt | NotExempt:
        """Rule on one blocked clause of one exchange, and count it if it is exempt."""
        member = None if subject is None else self.settings.callers.get(subject)
        if subject is None or member is None:
            return NotExempt()
        caller = Caller(
            organisation=member.organisation,
            user=member.user or subject,
            key=subject,
            use_case=use_case or member.use_case,
        )
        ruling = self.book.action_for(caller, clause, surface, int(now))
        relief = _relief(ruling.action)
        if relief is None:
            return NotExempt()
        try:
            admission = self.seats.admit(ruling, caller, int(now))
        except ExemptionError:
            return NotExempt(grant_id=ruling.grant, overrun="meter", alarm=True)
        if isinstance(admission, Admitted):
            return Exempt(grant_id=ruling.grant, relief=relief)
        return _overrun(ruling.grant, admission)

    def refresh(self) -> bool:
        """Read what is new in the log; tell whether anything was.

        Raises:
            TrustError: the log can't be read or does not verify. Nobody is exempt then, until it
                does again.
        """
        try:
            news = self._log.news() if self._log.head().size != self._log.size else []
            for index, entry in news:
                take_entry(self._state, index, entry, self._emitters)
            if news:
                self.seats.saw(self._keys.origin, self._log.size)
        except TrustError:
            self.book, self._whole = ExemptionBook((), frozenset(self._relaxable)), False
            raise
        # What the log says depends on its leaves alone: without a new one the book is as it was.
        if news or not self._whole:
            given = self._state.exemptions()
            kept = tuple(one for one in given if self._stands(one))
            self.book = ExemptionBook(kept, frozenset(self._relaxable))
            self.dropped = tuple(one.grant for one in given if not self._stands(one))
            self._whole = True
        return bool(news)

    def _stands(self, exemption: Exemption) -> bool:
        """Tell whether the constitution still lets these clauses be relaxed; each is asked once."""
        grant = exemption.grant, exemption.ended
        if grant not in self._standing:
            try:
                exemption_book([exemption], self._relaxable)
            except ExemptionError:
                self._standing[grant] = False
            else:
                self._standing[grant] = True
        return self._standing[grant]


def _overrun(grant: str, admission: SeatOverrun | RateOverrun | CaseOverrun) -> NotExempt:
    match admission:
        case SeatOverrun():
            return NotExempt(grant_id=grant, overrun="seats", alarm=admission.first)
        case RateOverrun():
            return NotExempt(grant_id=grant, overrun="rate")
        case CaseOverrun():
            return NotExempt(grant_id=grant, overrun="use-case", alarm=True)
        case _:
            assert_never(admission)


def _relief(action: ExemptionAction) -> Relief | None:
    match action:
        case ExemptionAction.AUDIT:
            return Relief.DELIVER
        case ExemptionAction.FALLBACK:
            return Relief.FALLBACK
        case ExemptionAction.HOLD:
            return Relief.REVIEW
        case ExemptionAction.BLOCK:
            return None
        case _:
            assert_never(action)


def relaxable_clauses(first: str, classes: Mapping[str, str]) -> dict[str, str]:
    """Return the tier of every clause that grants may relax, of the first class and the others.

    A further class's clauses begin with its name: `soap.lye` is the clause `lye` of class `soap`.

    Raises:
        ConfigError: a constitution can't be read, or two clauses would have one name.
    """
    found = dict(load(first).relaxable_tiers)
    for name, constitution in classes.items():
        tiers = load(constitution).relaxable_tiers
        own = {f"{name}.{clause}": tier for clause, tier in tiers.items()}
        if same := sorted(set(own) & set(found)):
            raise ConfigError(f"classes: {name}: clause {same[0]} has the name of another one")
        found |= own
    return found


def open_exemptions(
    settings: ExemptionSettings, classes: Mapping[str, str] | None = None
) -> LogExemptions:
    """Open the log and the seats, and read every grant.

    `classes` are the constitutions of further classes, by name.

    Raises:
        SafeholdError: the log does not verify, or a file can't be read; the gateway must not start.
    """
    made = LogExemptions(
        settings,
        source=DirectorySource(Path(settings.log)),
        keys=read_keys(Path(settings.log_keys)),
        relaxable=relaxable_clauses(settings.constitution, classes or {}),
        seats=SeatFile(Path(settings.seats)),
    )
    made.refresh()
    return made


class ExemptionWatch:
    """Follows the log while the gateway runs; what changes or nears its end is a ledger row."""

    def __init__(
        self,
        exemptions: LogExemptions,
        *,
        ledger: RowSink,
        alarm: Callable[[str], None],
        days_left: Callable[[str, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._exemptions = exemptions
        self._ledger = ledger
        self._alarm = alarm
        self._days_left = days_left
        self._clock = clock
        self._unreadable = False
        self._reported: frozenset[str] = frozenset()
        self._first = True

    async def follow(self) -> None:
        """Look at the log again and again."""
        while True:
            await self.look()
            await asyncio.sleep(self._exemptions.settings.reload_s)

    async def look(self) -> None:
        """Read what is new, and write the rows that are due."""
        rows: list[EventRow] = []
        try:
            changed = await asyncio.to_thread(self._exemptions.refresh)
        except TrustError as error:
            if not self._unreadable:
                rows.append(self._alarm_row("exemption-log", error=type(error).__name__))
            self._unreadable = True
        else:
            if changed or self._unreadable or self._first:
                rows.append(self._loaded())
            self._unreadable = self._first = False
            rows += self._warnings()
        try:
            if rows:
                await self._ledger.append(rows[0], *rows[1:])
        except LedgerError:
            self._alarm("ledger")

    def _loaded(self) -> EventRow:
        now = int(self._clock())
        in_force = [one for one in self._exemptions.book.exemptions if one.in_force(now)]
        detail = {"in_force": len(in_force), "log_size": self._exemptions.log_size}
        return EventRow(at=self._clock(), kind=EventKind.EXEMPTION, detail={**detail})

    def _warnings(self) -> list[EventRow]:
        now = int(self._clock())
        rows = []
        for one in self._exemptions.book.exemptions:
            left = max(0, one.expires - now) if one.in_force(now) else 0
            self._days_left(one.grant[:12], left / _DAY_S)
        for notice in self._exemptions.book.warnings(now):
            try:
                new = self._exemptions.seats.is_new(notice)
            except ExemptionError:
                new = True
            if new:
                rows.append(
                    self._alarm_row("exemption-expiry", grant=notice.grant, days=notice.days)
                )
        unheard = set(self._exemptions.dropped) - self._reported
        rows += [self._alarm_row("exemption-clause", grant=grant) for grant in unheard]
        self._reported = frozenset(self._exemptions.dropped)
        return rows

    def _alarm_row(self, name: str, **detail: str | int) -> EventRow:
        self._alarm(name)
        return EventRow(at=self._clock(), kind=EventKind.ALARM, detail={"alarm": name, **detail})
