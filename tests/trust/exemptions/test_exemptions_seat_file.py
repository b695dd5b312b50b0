"""Seats in a file: shared by workers, kept over restarts."""

import threading
from pathlib import Path

import pytest

from safehold.trust.exemptions import Admitted, Caller, ExemptionAction, ExemptionError, Ruling
from safehold.trust.exemptions.exemption_book import ExpiryNotice
from safehold.trust.exemptions.seat_file import SeatFile
from safehold.trust.exemptions.seats import RateOverrun, SeatOverrun

RULING = Ruling(action=ExemptionAction.AUDIT, grant="g1", seats=2, rate_per_hour=1000)


def caller(user: str) -> Caller:
    """Return a caller of the organisation."""
    return Caller(organisation="org-1", user=user, key=f"key-{user}", use_case="school")


def test_a_second_worker_grants_no_second_set_of_seats(tmp_path: Path) -> None:
    """Two workers on one file have together the seats that were approved."""
    one, two = SeatFile(tmp_path / "seats"), SeatFile(tmp_path / "seats")
    assert one.admit(RULING, caller("ann"), 100) == Admitted()
    assert two.admit(RULING, caller("bob"), 100) == Admitted()
    assert one.admit(RULING, caller("cat"), 100) == SeatOverrun("g1", 2, 3, first=True)
    assert two.admit(RULING, caller("cat"), 100) == SeatOverrun("g1", 2, 3, first=False)
    assert two.admit(RULING, caller("ann"), 100) == Admitted()


def test_a_restart_frees_no_seat(tmp_path: Path) -> None:
    """Seats are there when the file is opened again; only `forget` frees one."""
    first = SeatFile(tmp_path / "seats")
    for user in ("ann", "bob"):
        first.admit(RULING, caller(user), 100)
    first.close()
    again = SeatFile(tmp_path / "seats")
    assert isinstance(again.admit(RULING, caller("cat"), 999_999), SeatOverrun)
    again.forget("g1", "ann")
    assert again.admit(RULING, caller("cat"), 999_999) == Admitted()


def test_the_largest_size_of_each_log_is_remembered(tmp_path: Path) -> None:
    """Nothing is seen of a log at first; a smaller size later, and another log, change nothing."""
    seats = SeatFile(tmp_path / "seats")
    assert seats.seen("one.test/log") == 0
    for size in (5, 9, 7):
        seats.saw("one.test/log", size)
    assert SeatFile(tmp_path / "seats").seen("one.test/log") == 9
    assert seats.seen("two.test/log") == 0


def test_threads_take_no_more_seats_than_approved(tmp_path: Path) -> None:
    """Many callers at once get exactly the approved seats."""
    files = [SeatFile(tmp_path / "seats") for _ in range(2)]
    got: list[object] = []

    def ask(number: int) -> None:
        got.append(files[number % 2].admit(RULING, caller(f"u{number}"), 100))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 12
    assert got.count(Admitted()) == 2


def test_the_rate_is_counted_over_an_hour(tmp_path: Path) -> None:
    """One exchange more than the rate is not exempt, until an hour has gone."""
    seats = SeatFile(tmp_path / "seats")
    slow = Ruling(action=ExemptionAction.AUDIT, grant="g1", seats=2, rate_per_hour=2)
    assert [seats.admit(slow, caller("ann"), at) for at in (0, 1, 2)] == [
        Admitted(),
        Admitted(),
        RateOverrun("g1", 2),
    ]
    assert seats.admit(slow, caller("ann"), 3600) == Admitted()


def test_a_warning_is_new_once(tmp_path: Path) -> None:
    """The second worker does not warn again; a narrower bound does."""
    one, two = SeatFile(tmp_path / "seats"), SeatFile(tmp_path / "seats")
    notices = [ExpiryNotice("g1", 14), ExpiryNotice("g1", 14), ExpiryNotice("g1", 3)]
    assert [file.is_new(notice) for file, notice in zip((one, two, two), notices, strict=True)] == [
        True,
        False,
        True,
    ]


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """What is no file of seats refuses to open."""
    (tmp_path / "seats").write_bytes(b"no database at all" * 100)
    with pytest.raises(ExemptionError, match="file of seats"):
        SeatFile(tmp_path / "seats")


def test_an_older_copy_of_a_log_is_known_after_a_restart(tmp_path: Path) -> None:
    """The largest size that was ever seen of each log stays; one never seen has none."""
    first = SeatFile(tmp_path / "seats")
    assert first.seen("log.test/a") == 0
    first.saw("log.test/a", 9)
    first.saw("log.test/a", 4)
    first.close()
    again = SeatFile(tmp_path / "seats")
    assert (again.seen("log.test/a"), again.seen("log.test/b")) == (9, 0)
    again.close()
