"""Seats and rates: who really uses an exemption, against what was approved.

An exemption was once inherited by four times the approved seats, and nobody noticed for months.
Here the seat after the last one is not exempt, and raises an alarm.
"""

import threading
from collections import deque
from typing import assert_never

import msgspec

from safehold.trust.exemptions.exemption_book import NO_EXEMPTION, Caller, Ruling

_HOUR_S = 3600


class Admitted(msgspec.Struct, frozen=True):
    """The caller has a seat, and its rate is within the cap."""


class SeatOverrun(msgspec.Struct, frozen=True):
    """One seat more than approved: the exemption does not apply, and somebody must look.

    `first` is true once for each grant and seat: then an alarm is due.
    """

    grant: str
    seats: int
    asked: int
    first: bool


class RateOverrun(msgspec.Struct, frozen=True):
    """More exempted exchanges in the last hour than approved."""

    grant: str
    rate_per_hour: int


class CaseOverrun(msgspec.Struct, frozen=True):
    """The key's session is for another use case: one session has one."""

    grant: str
    bound: str
    """The use case that the session has."""


Admission = Admitted | SeatOverrun | RateOverrun | CaseOverrun


class SeatMeter:
    """Counts seats (distinct users) and exempted exchanges of each grant, in this process.

    Seats are remembered until `forget`; feed `remember` from the ledger at start-up so that a
    restart frees no seat. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seats: dict[str, set[str]] = {}
        self._refused: dict[str, set[str]] = {}
        self._times: dict[str, deque[int]] = {}
        self._sessions: dict[str, tuple[str, int]] = {}

    def remember(self, grant: str, user: str) -> None:
        """Take a seat that was taken before a restart."""
        with self._lock:
            self._seats.setdefault(grant, set()).add(user)

    def forget(self, grant: str, user: str) -> None:
        """Free the seat of somebody who left."""
        with self._lock:
            self._seats.get(grant, set()).discard(user)

    def admit(self, ruling: Ruling, caller: Caller, now: int) -> Admission:
        """Count one exempted exchange, or say why it is not exempt.

        Args:
            ruling: What the book said; it names a grant.
            caller: Who sent the exchange; `user` is the seat.
            now: POSIX seconds.
        """
        with self._lock:
            bound, until = self._sessions.get(caller.key, ("", 0))
            if now < until and bound != caller.use_case:
                return CaseOverrun(ruling.grant, bound)
            seats = self._seats.setdefault(ruling.grant, set())
            if caller.user not in seats and len(seats) >= ruling.seats:
                refused = self._refused.setdefault(ruling.grant, set())
                first = caller.user not in refused
                refused.add(caller.user)
                asked = len(seats) + len(refused)
                return SeatOverrun(ruling.grant, ruling.seats, asked, first)
            times = self._times.setdefault(ruling.grant, deque())
            while times and times[0] <= now - _HOUR_S:
                times.popleft()
            if len(times) >= ruling.rate_per_hour:
                return RateOverrun(ruling.grant, ruling.rate_per_hour)
            if now >= until:
                self._sessions[caller.key] = (caller.use_case, now + ruling.session_s)
            seats.add(caller.user)
            times.append(now)
            return Admitted()


def settle(ruling: Ruling, admission: Admission) -> Ruling:
    """Return the ruling that stands: without a seat or above the rate, it blocks as ever."""
    match admission:
        case Admitted():
            return ruling
        case SeatOverrun() | RateOverrun() | CaseOverrun():
            return NO_EXEMPTION
        case _:
            assert_never(admission)
