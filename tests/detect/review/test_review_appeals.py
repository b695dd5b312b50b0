"""Appeals: a client's way in, never a score, and an overturned block that teaches."""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from sqlalchemy import insert, select, update
from starlette.applications import Starlette
from starlette.testclient import TestClient

from safehold.detect.bounty.interface import SubmittedTurn
from safehold.detect.bounty.replay import ReplayReply
from safehold.detect.review.appeal_api import appeal_routes, openapi
from safehold.detect.review.appeals import AppealBook
from safehold.detect.review.authority import LedgerHolds
from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.interface import CaseAction, CaseKind, NoAuthority, ReviewVerdict
from safehold.detect.review.permitted import PermittedExample, read_permitted, still_blocked
from safehold.detect.review.tables import APPEALS, CASES
from safehold.errors import DataError, TrustError, UsageError
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import HOLDS
from safehold.testing.bounty import CLEAN_CHAT, holey_door
from safehold.testing.ledger import NOW
from safehold.testing.monitoring import fill


class _Leaves:
    def append(self, kind: str, facts: dict[str, str]) -> None:
        assert kind
        assert facts


class _Place:
    """Ten exchanges of which the first nine are blocked, and one appeal book over them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.now = NOW
        ledger = str(folder / "l.db")
        fill(ledger, [("acme", f"how do I clean kettle {i}?", i < 9) for i in range(10)])
        self.evidence = LedgerReader.open(ledger)
        self.desk = ReviewDesk(
            url,
            evidence=self.evidence,
            leaves=_Leaves(),
            authority=NoAuthority(),
            sampling_key=b"k",
            holds=LedgerHolds(ledger, lambda: self.now),
            examples=folder / "permitted",
            clock=lambda: self.now,
        )
        self.url, self.ledger = url, ledger
        self.book = self.open()

    def open(self) -> AppealBook:
        return AppealBook(self.url, desk=self.desk, evidence=self.evidence, clock=lambda: self.now)

    def judged(self, verdict: ReviewVerdict, case: int = 1) -> None:
        for person in ("ann", "bob"):
            item = self.desk.next(person)
            assert item is not None
            assert item.case == case
            self.desk.reveal(item.item, person, reason="appeal")
            self.desk.verdict(item.item, person, verdict)


@contextmanager
def told_closed(place: _Place, case: int) -> Iterator[None]:
    """Have a case closed by somebody else for a moment."""
    engine = open_engine(place.url, wait_s=5.0, write=True)
    for state, between in (("closed", True), ("open", False)):
        with engine.begin() as connection:
            connection.execute(update(CASES).where(CASES.c.id == case).values(state=state))
        if between:
            yield


@pytest.fixture(params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]
) -> _Place:
    """A desk on each storage."""
    url = str(tmp_path / "r.db") if request.param == "sqlite" else new_database()
    return _Place(tmp_path, url)


def test_a_client_gets_a_date_and_an_answer(place: _Place) -> None:
    """From the block's id to the overturned block; the answer holds no score and no verdict."""
    made = place.book.appeal("d0")
    assert place.book.state(made.token) == {"state": "open", "due": made.due}
    place.judged(ReviewVerdict.PERMITTED)
    place.desk.decide(1, CaseAction.OVERTURN, by="lead")
    assert place.book.state(made.token) == {"state": "answered", "outcome": "overturn"}


def test_an_overturned_block_becomes_an_example_and_a_test(place: _Place, tmp_path: Path) -> None:
    """The guard of today fails the test, a mended one passes it; the file is its owner's alone."""
    place.book.appeal("d0")
    with pytest.raises(TrustError, match="overturned"):
        place.book.permit(1, tmp_path / "p")
    place.judged(ReviewVerdict.PERMITTED)
    left = place.desk.decide(1, CaseAction.OVERTURN, by="lead")
    path = place.book.permit(1, tmp_path / "p")
    assert left == tmp_path / "permitted" / path.name
    assert left.read_bytes() == path.read_bytes()
    assert left.stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o077 == 0
    (example,) = read_permitted(tmp_path / "p")
    assert example.turns == (SubmittedTurn("user", "how do I clean kettle 0?"),)

    async def asked(stops: Callable[[str], bool]) -> Sequence[bool]:
        async with holey_door(stops) as (door, _):
            return [one.stopped for one in await still_blocked([example], door)]

    assert asyncio.run(asked(lambda text: "kettle" in text)) == [True]
    assert asyncio.run(asked(lambda text: text == CLEAN_CHAT)) == [False]


def test_overturning_needs_every_verdict(place: _Place) -> None:
    """A restricted verdict, or a person who can't tell, upholds."""
    place.book.appeal("d0")
    place.judged(ReviewVerdict.CANT_TELL)
    with pytest.raises(TrustError, match="every verdict"):
        place.desk.decide(1, CaseAction.OVERTURN, by="lead")
    place.desk.decide(1, CaseAction.UPHOLD, by="lead")


def test_an_appeal_is_heard_by_others_than_those_who_judged_before(place: _Place) -> None:
    """Ann judged the block in a sample, and lead decided that case: the appeal is for others."""
    sample = place.desk.open_case(CaseKind.SAMPLE, ["d0"], severity=0, opened_by="x")
    item = place.desk.next("ann")
    assert item is not None
    place.desk.reveal(item.item, "ann", reason="sample")
    place.desk.verdict(item.item, "ann", ReviewVerdict.RESTRICTED_HELPFUL)
    if (second := place.desk.next("dora")) is not None:  # chosen for a second review
        place.desk.reveal(second.item, "dora", reason="sample")
        place.desk.verdict(second.item, "dora", ReviewVerdict.RESTRICTED_HELPFUL)
    place.desk.decide(sample, CaseAction.NONE, by="lead")
    place.book.appeal("d0")
    for knew in ("ann", "lead"):
        assert place.desk.next(knew) is None
    for person in ("bob", "cleo"):
        found = place.desk.next(person)
        assert found is not None
        place.desk.reveal(found.item, person, reason="appeal")
        place.desk.verdict(found.item, person, ReviewVerdict.PERMITTED)
    for knew in ("ann", "lead"):
        with pytest.raises(TrustError, match="another person decides"):
            place.desk.decide(2, CaseAction.OVERTURN, by=knew)
    place.desk.decide(2, CaseAction.OVERTURN, by="eve")
    # The twin: the first case's people go on with other appeals.
    place.book.appeal("d1")
    assert place.desk.next("ann") is not None


def test_an_appeal_ends_as_its_verdicts_say(place: _Place) -> None:
    """Nobody upholds, or labels, a block that every verdict calls permitted."""
    place.book.appeal("d0")
    place.judged(ReviewVerdict.PERMITTED)
    for action in (CaseAction.UPHOLD, CaseAction.NONE, CaseAction.LABEL):
        with pytest.raises(TrustError, match="overturn it"):
            place.desk.decide(1, action, by="lead")
    place.desk.decide(1, CaseAction.OVERTURN, by="lead")


def test_a_decided_appeal_is_not_decided_again(place: _Place) -> None:
    """No second decision, no late verdict, and no second appeal of the block, whoever opens it."""
    place.book.appeal("d0")
    item = place.desk.next("ann")
    assert item is not None
    place.desk.reveal(item.item, "ann", reason="appeal")
    place.desk.verdict(item.item, "ann", ReviewVerdict.PERMITTED)
    for person in ("bob", "cleo", "dora"):
        with pytest.raises(UsageError, match="case 1 is open"):
            place.desk.open_case(CaseKind.APPEAL, ["d0"], severity=3, opened_by=person)
    late = place.desk.next("bob")
    assert late is not None
    place.desk.reveal(late.item, "bob", reason="appeal")
    place.desk.verdict(late.item, "bob", ReviewVerdict.CANT_TELL)
    place.desk.decide(1, CaseAction.UPHOLD, by="lead")
    for action in (CaseAction.OVERTURN, CaseAction.UPHOLD):
        with pytest.raises(UsageError, match="no open case 1"):
            place.desk.decide(1, action, by="cleo")
    with pytest.raises(UsageError, match="case 1 is closed"):
        place.desk.open_case(CaseKind.APPEAL, ["d0"], severity=3, opened_by="cleo")
    with pytest.raises(UsageError, match="already"):
        place.book.appeal("d0")
    with pytest.raises(UsageError, match="one decision, came 2"):
        place.desk.open_case(CaseKind.APPEAL, ["d1", "d2"], severity=3, opened_by="cleo")


def test_a_closed_case_takes_no_verdict(place: _Place) -> None:
    """Who still held an item when the case was closed judges it no more."""
    case = place.desk.open_case(CaseKind.FALSE_ALARM, ["d3"], severity=3, opened_by="x")
    place.judged(ReviewVerdict.PERMITTED, case=case)
    item = place.desk.open_case(CaseKind.FALSE_ALARM, ["d4", "d5"], severity=3, opened_by="x")
    held = place.desk.next("ann")
    assert held is not None
    assert held.case == item
    with told_closed(place, item), pytest.raises(TrustError, match="is closed"):
        place.desk.reveal(held.item, "ann", reason="late")
    with told_closed(place, item):
        assert place.desk.next("bob") is None


@pytest.mark.parametrize("action", [CaseAction.OVERTURN, CaseAction.UPHOLD])
def test_only_a_block_is_overturned_or_upheld(place: _Place, action: CaseAction) -> None:
    """A sample, or an account, is neither."""
    case = place.desk.open_case(CaseKind.SAMPLE, ["d9"], severity=3, opened_by="x")
    place.judged(ReviewVerdict.PERMITTED, case=case)
    with pytest.raises(UsageError, match="about no block"):
        place.desk.decide(case, action, by="lead")


def test_of_equal_appeals_at_once_one_is_opened(place: _Place) -> None:
    """The desk itself lets one appeal of a block through, on both storages."""

    def opened(_: int) -> bool:
        try:
            place.desk.open_case(CaseKind.APPEAL, ["d6"], severity=3, opened_by="x")
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(opened, range(4))) == 1


def test_an_upheld_block_leaves_no_example(place: _Place, tmp_path: Path) -> None:
    """The twin: only what people overturned teaches."""
    place.book.appeal("d0")
    place.judged(ReviewVerdict.RESTRICTED_HELPFUL)
    assert place.desk.decide(1, CaseAction.UPHOLD, by="lead") is None
    assert not (tmp_path / "permitted").exists()


def test_whatever_is_done_a_client_learns_upheld_or_overturned(place: _Place) -> None:
    """An account's label is no client's business."""
    made = place.book.appeal("d0")
    place.judged(ReviewVerdict.RESTRICTED_HELPFUL)
    place.desk.decide(1, CaseAction.LABEL, by="lead")
    assert place.book.state(made.token) == {"state": "answered", "outcome": "uphold"}


def test_only_a_block_is_appealed_and_once(place: _Place) -> None:
    """What was served, what never was, and a second appeal."""
    same = set()
    for name in ("d9", "nothing", "", "d0'; drop"):
        with pytest.raises(UsageError) as told:
            place.book.appeal(name)
        same.add(str(told.value))
    assert len(same) == 1
    place.book.appeal("d0")
    with pytest.raises(UsageError, match="already"):
        place.book.appeal("d0")
    with pytest.raises(UsageError, match="no appeal"):
        place.book.state("guessed")


def test_eight_equal_appeals_make_one_case(place: _Place) -> None:
    """One of them wins."""

    def ask(_: int) -> bool:
        try:
            place.open().appeal("d0")
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(ask, range(8)))
    assert sum(won) == 1
    assert [item.case for item in [place.desk.next("ann")] if item] == [1]
    assert place.desk.next("bob") is None or place.desk.next("bob").case == 1


def test_an_appeal_whose_process_died_can_be_made_again(place: _Place) -> None:
    """A row without a case gives way after a minute."""
    row = {"decision_id": "d0", "token": "t", "case_id": 0, "asked_at": place.now}
    with open_engine(place.url, wait_s=5, write=True).begin() as connection:
        connection.execute(insert(APPEALS).values(**row))
    with pytest.raises(UsageError, match="already"):
        place.book.appeal("d0")
    place.now += 61
    assert place.book.appeal("d0").token


def test_holds_end_with_the_case(place: _Place) -> None:
    """The decision is kept while the case is open, and no longer."""

    def held() -> int:
        with open_engine(place.ledger, wait_s=5, write=True).begin() as connection:
            return len(connection.execute(select(HOLDS)).all())

    place.book.appeal("d0")
    assert held() == 1
    place.judged(ReviewVerdict.RESTRICTED_NOT_GIVEN)
    place.desk.decide(1, CaseAction.UPHOLD, by="lead")
    assert held() == 0


def test_the_way_in_over_http(tmp_path: Path) -> None:
    """POST, GET, and nothing else; each wrong request gets its status and one line."""
    place = _Place(tmp_path, str(tmp_path / "r.db"))
    http = TestClient(Starlette(routes=appeal_routes(place.book)))
    made = http.post("/api/v1/appeals", json={"decision_id": "d0"})
    assert made.status_code == 201
    token = made.json()["token"]
    state = http.get(f"/api/v1/appeals/{token}")
    assert state.json()["state"] == "open"
    assert state.headers["cache-control"] == "no-store"
    told = made.text + state.text
    assert not re.search(r"score|0\.9|clause|verdict|ann|acme|kettle", told)
    for body, status in (
        (b"{}", 400),
        (b"\xff", 400),
        (b"[" * 2000, 400),
        (b'{"decision_id": "a b"}', 400),
        (b'{"decision_id": "d1", "x": 1}', 400),
        (b'{"decision_id": "d9"}', 409),
        (b'{"decision_id": "d0"}', 409),
        (b"x" * 5000, 413),
    ):
        answer = http.post("/api/v1/appeals", content=body)
        assert answer.status_code == status, (body[:20], answer.text)
        assert answer.json()["error"]
    assert http.get("/api/v1/appeals/guess").status_code == 404
    assert http.delete(f"/api/v1/appeals/{token}").status_code == 405
    document = http.get("/api/v1/appeals/openapi.json").json()
    assert document == openapi()
    validate(document)


def test_a_folder_without_examples_is_an_error(tmp_path: Path) -> None:
    """No examples is no success."""
    with pytest.raises(DataError, match="there is none"):
        read_permitted(tmp_path)
    (tmp_path / "appeal-1.json").write_text("{}")
    with pytest.raises(DataError, match="permitted example"):
        read_permitted(tmp_path)


def test_an_example_that_could_not_be_asked_is_said() -> None:
    """A gateway that is gone says nothing of the guard."""

    class Dead:
        async def say(self, turns: Sequence[SubmittedTurn]) -> ReplayReply:
            return ReplayReply(error="gone" if turns else "")

    turns = (SubmittedTurn("user", "x"),)
    example = PermittedExample(case=1, decision_id="d", clause=None, turns=turns)
    (found,) = asyncio.run(still_blocked([example], Dead()))
    assert (found.stopped, found.error) == (False, "gone")
