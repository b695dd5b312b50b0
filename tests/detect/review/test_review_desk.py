"""The desk: one person per item, blind first, a leaf before every look, two for a suspension."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from safehold.detect.review.desk import LOCK_S, ReviewDesk
from safehold.detect.review.interface import CaseAction, CaseKind, NoAuthority, ReviewVerdict
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
        self, action: CaseAction, *, case: int, grant_id: str, judges: frozenset[str]
    ) -> None:
        assert judges
        if grant_id in self.spent:
            raise TrustError(f"grant {grant_id} is spent: {action} on {case}")
        self.spent.append(grant_id)


class _Place:
    """A desk over a ledger with forty stopped exchanges, and a clock to turn."""

    def __init__(self, ledger: str, url: str) -> None:
        fill(ledger, [("a", f"question {i}", True) for i in range(40)])
        self.now, self.leaves, self.grants = NOW, _Leaves(), _Grants()
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
        NoAuthority().spend(CaseAction.SUSPEND, case=1, grant_id="g", judges=frozenset())
