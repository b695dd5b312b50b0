"""The ladder: labels step accounts up for a day; longer needs a grant; the file is never half."""

import random
import threading
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.detect.monitoring.account_book import EXEMPT, AccountBook, KeptLabel
from safehold.detect.monitoring.accounts import AccountState, Caps
from safehold.detect.monitoring.ladder import Climb, StateBook, climbed
from safehold.detect.monitoring.tables import MonitorStore
from safehold.guard.accounts.file import check, opened
from safehold.guard.accounts.interface import (
    DAY_S,
    AccountStanding,
    AccountStateError,
    AccountStates,
    LadderStep,
)
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.ledger import NOW
from safehold.testing.monitoring import fill, turned_away

KEY = Ed25519PrivateKey.from_private_bytes(b"monitor!" * 4)
KEYS = {"monitor": KEY.public_key()}
T = 1_800_000_000


def label(account: str = "t/eve", name: str = "search-walk") -> KeptLabel:
    """Return a label of an account."""
    return KeptLabel(
        account=account,
        label=name,
        reason="9 of 20",
        evidence=("d1", "d2"),
        since=T,
        expires=T + 90 * DAY_S,
        queries=20,
    )


def levels(found: tuple[AccountStanding, ...], account: str = "t/eve") -> list[LadderStep]:
    """Return an account's steps, in order."""
    return sorted((one.level for one in found if one.account == account), key=lambda one: one.rank)


def test_a_label_reviews_and_steps_up_and_more_stops_limit() -> None:
    """Each step has the label's reason and evidence; nothing but a review lasts over a day."""
    states = {"t/eve": AccountState(queries=20, blocked=9), "t/ann": AccountState(queries=20)}
    first = climbed((), [label()], states, now=T, stepped_at={}, how=Climb())
    assert levels(first) == [LadderStep.REVIEW, LadderStep.STEP_UP]
    again = climbed(first, [label()], states, now=T + 60, stepped_at={"t/eve": 9}, how=Climb())
    assert again == first
    worse = {"t/eve": AccountState(queries=30, blocked=14)}
    third = climbed(again, [label()], worse, now=T + 90, stepped_at={"t/eve": 9}, how=Climb())
    assert levels(third) == [LadderStep.REVIEW, LadderStep.STEP_UP, LadderStep.RATE_LIMIT]
    assert all(one.reason == "9 of 20" and one.evidence == ("d1", "d2") for one in third)
    check(AccountStates(serial=1, at=T, fresh_until=T + 1, standings=third))
    late = climbed(third, [], {}, now=T + 2 * DAY_S, stepped_at={}, how=Climb())
    assert levels(late) == [LadderStep.REVIEW]


def test_exempt_traffic_is_reviewed_and_never_stepped_up_by_itself() -> None:
    """A label of traffic under a grant opens a review of the account, and no more."""
    found = climbed((), [label("t/eve" + EXEMPT)], {}, now=T, stepped_at={}, how=Climb())
    assert levels(found) == [LadderStep.REVIEW]


@pytest.mark.parametrize(
    "changes",
    [
        {"level": LadderStep.SUSPEND},
        {"expires": T + 2 * DAY_S},
        {"level": LadderStep.REVIEW, "expires": T + 91 * DAY_S},
        {"expires": T},
        {"level": LadderStep.RATE_LIMIT},
        {"requests_per_hour": 5},
        {"level": LadderStep.REVIEW, "grant": "ab" * 32},
    ],
)
def test_a_step_that_is_not_what_it_says_is_refused(changes: dict) -> None:
    """No suspension without a grant, no day without one, no end, no number, a grant too many."""
    good = AccountStanding(
        account="t/eve",
        level=LadderStep.STEP_UP,
        label="x",
        reason="r",
        created=T,
        expires=T + DAY_S,
    )
    check(AccountStates(serial=1, at=T, fresh_until=T + 1, standings=(good,)))
    bad = msgspec.structs.replace(good, **changes)
    with pytest.raises(AccountStateError):
        check(AccountStates(serial=1, at=T, fresh_until=T + 1, standings=(bad,)))


def test_the_file_changes_whole_and_only_forwards(tmp_path: Path) -> None:
    """Each change is the next serial; a refused one leaves the file of before."""
    book = StateBook(tmp_path / "s.json", KEYS, "monitor", KEY)
    book.begin(T)
    step = AccountStanding(
        account="t/eve", level=LadderStep.STEP_UP, label="x", reason="r", created=T, expires=T + 9
    )
    assert book.step(step, T) == 2
    before = (tmp_path / "s.json").read_bytes()
    with pytest.raises(AccountStateError):
        book.step(msgspec.structs.replace(step, level=LadderStep.SUSPEND), T)
    with pytest.raises(AccountStateError):
        book.lift("t/ann", T)
    assert (tmp_path / "s.json").read_bytes() == before
    assert book.lift("t/eve", T) == 3
    assert opened((tmp_path / "s.json").read_bytes(), KEYS).standings == ()
    with pytest.raises(AccountStateError):
        book.begin(T)


def test_no_step_that_two_put_in_the_file_at_once_is_lost(tmp_path: Path) -> None:
    """Six accounts are stepped up at the same moment: each is on its step, each has a serial."""
    book = StateBook(tmp_path / "s.json", KEYS, "monitor", KEY)
    book.begin(T)
    serials: list[int] = []

    def step(account: str) -> None:
        standing = AccountStanding(
            account=account,
            level=LadderStep.STEP_UP,
            label="x",
            reason="r",
            created=T,
            expires=T + 9,
        )
        serials.append(book.step(standing, T))

    threads = [threading.Thread(target=step, args=(f"t/{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(serials) == [2, 3, 4, 5, 6, 7]
    assert {one.account for one in book.content().standings} == {f"t/{n}" for n in range(6)}


def test_requests_turned_away_do_not_dilute_an_accounts_rates(tmp_path: Path) -> None:
    """A limited account that sends on is counted by what was scored, and is labelled as before."""
    chance, url = random.Random(1), str(tmp_path / "l.db")
    words = ["ba", "ko", "ri", "tu", "le", "mo", "sa", "ne", "vi", "du"]
    asked = [("eve", " ".join(chance.choices(words, k=25)), True) for _ in range(12)]
    fill(url, asked)
    turned_away(url, "eve", 500)
    book = AccountBook(MonitorStore.open(str(tmp_path / "m.db")), caps=Caps())
    book.follow(LedgerReader.open(url))
    state = book.states()["eve"]
    assert (state.queries, state.blocked) == (12, 12)
    assert any(one.label == "blocked-often" for one in book.labels(now=NOW + 1000))


def test_a_label_renews_no_day_by_itself_and_more_stops_do(tmp_path: Path) -> None:
    """The day ends; the label alone steps nobody up again, five more stopped exchanges do."""
    states = {"t/eve": AccountState(queries=30, blocked=9)}
    first = climbed((), [label()], states, now=T, stepped_at={}, how=Climb())
    after = T + DAY_S + 1
    calm = climbed(first, [label()], states, now=after, stepped_at={"t/eve": 9}, how=Climb())
    assert levels(calm) == [LadderStep.REVIEW]
    worse = {"t/eve": AccountState(queries=40, blocked=14)}
    again = climbed(calm, [label()], worse, now=after, stepped_at={"t/eve": 9}, how=Climb())
    assert levels(again) == [LadderStep.REVIEW, LadderStep.STEP_UP, LadderStep.RATE_LIMIT]
    url = str(tmp_path / "l.db")
    book = AccountBook(MonitorStore.open(str(tmp_path / "m.db")), caps=Caps())
    fill(url, [("t/eve", f"text {n}", True) for n in range(3)])
    book.follow(LedgerReader.open(url))
    assert book.stepped() == {}
    book.note_steps(first)
    assert book.stepped() == {"t/eve": 3}
