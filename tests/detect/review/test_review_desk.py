"""The desk: one person per item, blind first, a leaf before every look, two for a suspension."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from safehold.detect.review.desk import LOCK_S, ReviewDesk
from safehold.detect.review.interface import (
    BY_TWO,
    CaseAction,
    CaseKind,
    NoAuthority,
    ReviewVerdict,
)
from safehold.detect.review.reading import PAUSE_AFTER_S, ReviewReading
from safehold.errors import LedgerError, TrustError
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.ledger import NOW
from safehold.testing.monitoring import fill

_BAD = ReviewVerdict.RESTRICTED_HELPFUL


class _Leaves:
    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.broken = False

    def append(self, kind: str, facts: dict[str, str]) -> None:
        if self.broken:
            raise LedgerError("the log is full")
        assert all(isinstance(value, str) for value in facts.values())
        self.kinds.append(kind)


class _Grants:
    def __init__(self) -> None:
        self.spent: list[str] = []

    def spend(
        self,
        action: CaseAction,
        *,
        case: int,
        account: str | None,
        grant_id: str,
        judges: frozenset[str],
    ) -> None:
        assert judges
        assert account
        if grant_id in self.spent:
            raise TrustError(f"grant {grant_id} is spent: {action} on {case}")
        self.spent.append(grant_id)


class _Place:
    """A desk over a ledger with forty stopped exchanges, and a clock to turn."""

    def __init__(self, ledger: str, url: str) -> None:
        fill(ledger, [("a", f"question {i}", True) for i in range(40)])
        self.now, self.leaves, self.grants = NOW, _Leaves(), _Grants()
        self.judged: set[int] = set()
        self.reading = lambda: ReviewReading(url, lambda: self.now)
        self.open = lambda: ReviewDesk(
            url,
            evidence=LedgerReader.open(ledger),
            leaves=self.leaves,
            authority=self.grants,
            sampling_key=b"k",
            clock=lambda: self.now,
        )
        self.desk = self.open()

    def judge(self, person: str, verdict: ReviewVerdict = _BAD) -> int:
        """Let a person take, see and judge the next item."""
        item = self.desk.next(person)
        assert item is not None
        self.desk.reveal(item.item, person, reason="queue")
        self.desk.verdict(item.item, person, verdict)
        return item.item


@pytest.fixture(params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]
) -> _Place:
    """A desk on each storage."""
    url = str(tmp_path / "r.db") if request.param == "sqlite" else new_database()
    return _Place(str(tmp_path / "l.db"), url)


def test_sixteen_reviewers_race_and_no_item_is_taken_twice(place: _Place) -> None:
    """Sixteen people ask at once, on connections of their own."""
    place.desk.open_case(CaseKind.SAMPLE, [f"d{i}" for i in range(40)], severity=0, opened_by="x")
    with ThreadPoolExecutor(16) as threads:
        taken = list(threads.map(lambda i: place.open().next(f"p{i}"), range(16)))
    items = [one.item for one in taken if one is not None]
    assert len(items) == len(set(items)) == 16


def test_sixteen_reviewers_judge_a_whole_queue_and_nothing_too_often(place: _Place) -> None:
    """Each item gets exactly the verdicts that it needs, of different people, whatever the race."""
    place.desk.open_case(CaseKind.ACCOUNT, [f"d{i}" for i in range(12)], severity=4, opened_by="x")
    place.desk.open_case(
        CaseKind.SAMPLE, [f"d{i}" for i in range(12, 40)], severity=0, opened_by="x"
    )

    def work(person: str) -> list[int]:
        desk, done = place.open(), []
        while (item := desk.next(person)) is not None:
            desk.reveal(item.item, person, reason="queue")
            desk.verdict(item.item, person, _BAD)
            done.append(item.item)
        return done

    people = [f"p{i}" for i in range(16)]
    with ThreadPoolExecutor(16) as threads:
        judged = list(threads.map(work, people))
    for number, person in enumerate(people):  # what was locked when somebody asked last
        judged[number] += work(person)
    assert all(len(one) == len(set(one)) for one in judged)
    given = {item: person for person, one in zip(people, judged, strict=True) for item in one}
    assert len(given) == 40
    for item, person in given.items():
        case = place.reading().case(place.reading().case_of(item), person)
        (found,) = [one for one in case.items if one.item == item]
        assert found.given == found.needed == sum(item in one for one in judged)
    assert place.desk.next("late") is None


def test_a_third_reviewer_does_not_learn_that_two_disagree(place: _Place) -> None:
    """Before one's own verdict an item looks as it did to the first; after it, as it is."""
    place.desk.open_case(CaseKind.ACCOUNT, ["d0"], severity=4, opened_by="x")
    (first,) = place.reading().case(1, "cas").items
    place.judge("ann", _BAD)
    place.judge("bob", ReviewVerdict.PERMITTED)
    (third,) = place.reading().case(1, "cas").items
    assert third == first
    assert place.reading().case(1, "ann").items[0].needed == 3
    place.judge("cas", _BAD)
    assert place.reading().case(1, "cas").items[0].given == 3


def test_a_lock_is_kept_longer_by_its_holder_alone(place: _Place) -> None:
    """Asking in time gives fifteen minutes more; nobody else's asking and no late one does."""
    place.desk.open_case(CaseKind.SAMPLE, ["d0"], severity=0, opened_by="x")
    item = place.desk.next("ann")
    assert item is not None
    place.now += LOCK_S - 1
    assert place.desk.keep(item.item, "ann") == place.now + LOCK_S
    with pytest.raises(TrustError, match="take it with next"):
        place.desk.keep(item.item, "bob")
    place.now += LOCK_S + 1
    with pytest.raises(TrustError, match="take it with next"):
        place.desk.keep(item.item, "ann")


def test_who_reads_for_ninety_minutes_is_told_to_rest(place: _Place) -> None:
    """Looks a few minutes apart add up; a quarter of an hour without one begins anew."""
    place.desk.open_case(CaseKind.SAMPLE, [f"d{i}" for i in range(12)], severity=0, opened_by="x")
    for _ in range(11):
        place.judge("ann")
        place.now += 600
    assert place.reading().reading_for("ann") == 6_600 > PAUSE_AFTER_S
    assert place.reading().reading_for("bob") == 0
    place.now += 900
    place.desk.open_case(CaseKind.SAMPLE, ["d20"], severity=0, opened_by="x")
    place.judge("ann")
    assert place.reading().reading_for("ann") == 0


@pytest.mark.parametrize("action", [one for one in CaseAction if one not in BY_TWO])
def test_each_action_of_the_vocabulary_ends_a_judged_case(place: _Place, action: str) -> None:
    """With consent where the action needs it, and with verdicts that bear it."""
    said = ReviewVerdict.PERMITTED if action == CaseAction.OVERTURN else _BAD
    place.desk.open_case(CaseKind.FALSE_ALARM, ["d0"], severity=0, opened_by="x")
    with pytest.raises(TrustError, match=r"verdict|consent"):
        place.desk.decide(1, CaseAction(action), by="lead")
    while (item := place.desk.next("ann") or place.desk.next("bob")) is not None:
        person = "ann" if item.item not in place.judged else "bob"
        place.judged.add(item.item)
        place.desk.reveal(item.item, person, reason="queue")
        place.desk.verdict(item.item, person, said)
    if action == CaseAction.TRAINING_EXAMPLE:
        with pytest.raises(TrustError, match="consent"):
            place.desk.decide(1, CaseAction(action), by="lead", consent=" ")
    assert place.desk.decide(1, CaseAction(action), by="lead", consent="contract 7, §3") is None


def test_nothing_that_a_scorer_or_a_person_said_leaves_before_the_verdict(place: _Place) -> None:
    """Neither score, clause, verdict nor outcome is in any answer until one's own verdict."""
    place.desk.open_case(CaseKind.ACCOUNT, ["d0"], severity=4, opened_by="x", account="a")
    first = place.judge("ann")
    item = place.desk.next("bob")
    assert item is not None
    shown = place.desk.reveal(item.item, "bob", reason="queue")
    told = (msgspec.json.encode(item) + msgspec.json.encode(shown)).decode()
    assert not re.search(r"score|0\.9|clause|verdict|outcome|block|\"ann\"|restricted", told)
    with pytest.raises(TrustError, match="own verdict first"):
        place.desk.context(item.item, "bob")
    place.desk.verdict(item.item, "bob", ReviewVerdict.PERMITTED)
    after = place.desk.context(first, "bob")
    assert (after.score, after.clause) == (0.9, "c")
    assert {one.person for one in after.verdicts} == {"ann", "bob"}


def test_a_broken_log_shows_nothing(place: _Place) -> None:
    """The leaf comes first; without it no content is returned."""
    place.desk.open_case(CaseKind.SAMPLE, ["d0"], severity=0, opened_by="x")
    item = place.desk.next("ann")
    assert item is not None
    place.leaves.broken = True
    with pytest.raises(LedgerError):
        place.desk.reveal(item.item, "ann", reason="queue")
    place.leaves.broken = False
    with pytest.raises(TrustError, match="look first"):
        place.desk.verdict(item.item, "ann", _BAD)
    place.desk.reveal(item.item, "ann", reason="queue")
    assert place.leaves.kinds == ["review-open"]


def test_a_reviewer_who_leaves_loses_nothing(place: _Place) -> None:
    """Their item comes back when the lock runs out, and their late verdict is refused."""
    place.desk.open_case(CaseKind.SAMPLE, ["d0"], severity=0, opened_by="x")
    left = place.desk.next("ann")
    assert left is not None
    assert place.desk.next("bob") is None
    place.now += LOCK_S + 1
    again = place.desk.next("bob")
    assert again is not None
    assert again.item == left.item
    with pytest.raises(TrustError, match="is not ann's"):
        place.desk.verdict(left.item, "ann", _BAD)


def test_a_verdict_unseen_is_refused(place: _Place) -> None:
    """Nobody judges what they have not looked at."""
    place.desk.open_case(CaseKind.SAMPLE, ["d0"], severity=0, opened_by="x")
    item = place.desk.next("ann")
    assert item is not None
    with pytest.raises(TrustError, match="look first"):
        place.desk.verdict(item.item, "ann", _BAD)


def test_a_suspension_needs_two_people_and_a_grant(place: _Place) -> None:
    """One person, no grant, or a spent grant: refused each; two who agree and a grant: done."""
    case = place.desk.open_case(CaseKind.ACCOUNT, ["d0"], severity=4, opened_by="x", account="a")
    place.judge("ann")
    assert place.desk.next("ann") is None
    with pytest.raises(TrustError, match="two people"):
        place.desk.decide(case, CaseAction.SUSPEND, by="ann", grant_id="g")
    place.judge("bob")
    with pytest.raises(TrustError, match="needs a grant"):
        place.desk.decide(case, CaseAction.SUSPEND, by="ann")
    place.grants.spent.append("old")
    with pytest.raises(TrustError, match="spent"):
        place.desk.decide(case, CaseAction.SUSPEND, by="ann", grant_id="old")
    place.desk.decide(case, CaseAction.SUSPEND, by="ann", grant_id="g")
    assert place.leaves.kinds[-1] == "case-close"


def test_two_people_who_disagree_suspend_nobody(place: _Place) -> None:
    """A permitted and a restricted verdict are no agreement."""
    case = place.desk.open_case(CaseKind.ACCOUNT, ["d0"], severity=4, opened_by="x", account="a")
    place.judge("ann")
    place.judge("bob", ReviewVerdict.PERMITTED)
    with pytest.raises(TrustError, match="two people"):
        place.desk.decide(case, CaseAction.SUSPEND, by="ann", grant_id="g")


def test_an_old_item_of_low_severity_is_not_starved(place: _Place) -> None:
    """After five weeks a severity of 0 comes before a fresh one of 4."""
    place.desk.open_case(CaseKind.SAMPLE, ["d0"], severity=0, opened_by="x")
    place.now += 5 * 7 * 86_400
    place.desk.open_case(CaseKind.ACCOUNT, ["d1"], severity=4, opened_by="x")
    item = place.desk.next("ann")
    assert item is not None
    assert item.kind is CaseKind.SAMPLE


def test_an_appeal_tells_a_date_and_an_outcome_only(place: _Place) -> None:
    """A client learns neither score nor verdict."""
    case = place.desk.open_case(CaseKind.APPEAL, ["d0"], severity=3, opened_by="client")
    assert set(place.desk.appeal_state(case)) == {"state", "due"}
    with pytest.raises(TrustError, match="still need a verdict"):
        place.desk.decide(case, CaseAction.OVERTURN, by="ann")
    place.judge("ann", ReviewVerdict.PERMITTED)
    place.judge("bob", ReviewVerdict.PERMITTED)
    place.desk.decide(case, CaseAction.OVERTURN, by="ann")
    assert place.desk.appeal_state(case) == {"state": "answered", "outcome": "overturn"}


def test_without_a_grant_service_nothing_is_granted() -> None:
    """The default authority refuses."""
    with pytest.raises(TrustError, match="no grant service"):
        NoAuthority().spend(
            CaseAction.SUSPEND, account="a", case=1, grant_id="g", judges=frozenset()
        )
