"""A case goes on where a killed step stood; an approval that never comes lets nothing act."""

from pathlib import Path

import pytest

from safehold.guard.bundle.overlay_file import approve
from safehold.guard.overlay.interface import OverlayError, RuleState
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.hotrule import MeasuredRule
from safehold.improve.response.interface import ResponseError, Variant
from safehold.improve.response.rule_book import RuleBook, acting_in, renewed
from safehold.stats import Rate
from safehold.testing.response import DRESS, hot_rule, incident, quorum_of, signing_keys

KEYS = signing_keys("anna", "bela")
QUORUM = quorum_of(KEYS)
INCIDENT = incident()
RULE = hot_rule()


@pytest.fixture
def book(tmp_path: Path) -> RuleBook:
    """An empty file of hot rules that Anna signs."""
    found = RuleBook(tmp_path / "hot.json", QUORUM, "anna", KEYS["anna"])
    found.begin(1_000)
    return found


def test_each_step_stands_alone_and_repeats(tmp_path: Path) -> None:
    """A step that was not done says so; done twice, it is as done once; a torn draft is not it."""
    case = IncidentCase(tmp_path / "case")
    for step in (case.incident, case.dress, case.variants, case.rule, case.report):
        with pytest.raises(ResponseError, match="not done yet"):
            step()
    for _ in range(2):
        case.begin(INCIDENT, DRESS)
        case.keep_variants([Variant("t", restricted=True, held_out=False)])
        case.keep_rule(MeasuredRule(RULE, Rate(9, 10), Rate(0, 10)))
    (tmp_path / "case" / ".report.123").write_bytes(b'{"champion": "torn')
    assert list(IncidentCase(tmp_path / "case").done()) == ["incident", "dress", "variants", "rule"]
    assert IncidentCase(tmp_path / "case").rule() == RULE
    assert case.approvals() == ()


def test_another_incident_does_not_take_a_case_over(tmp_path: Path) -> None:
    """What stands in the folder is answered first."""
    case = IncidentCase(tmp_path / "case")
    case.begin(INCIDENT, DRESS)
    other = incident(id="c2")
    with pytest.raises(ResponseError):
        case.begin(other, DRESS)


def test_a_torn_step_is_an_error_of_one_line(tmp_path: Path) -> None:
    """A file that somebody broke is named, and nothing goes on from it."""
    case = IncidentCase(tmp_path / "case")
    case.begin(INCIDENT, DRESS)
    (tmp_path / "case" / "rule.json").write_bytes(b"{")
    with pytest.raises(ResponseError, match=r"rule\.json"):
        case.rule()


def test_a_rule_waits_in_shadow_for_an_approval_that_never_comes(book: RuleBook) -> None:
    """With one approval, or one person's twice, the file stays as it is and the rule in shadow."""
    book.shadow(RULE, 1_001)
    one = approve(RULE, "anna", KEYS["anna"])
    for approvals in ((), (one,), (one, one)):
        with pytest.raises(OverlayError):
            book.act(RULE.id, approvals, 1_002)
    content = book.content()
    assert content.serial == 2
    assert [placed.state for placed in content.rules] == [RuleState.SHADOW]
    book.act(RULE.id, (one, approve(RULE, "bela", KEYS["bela"])), 1_003)
    assert [placed.state for placed in book.content().rules] == [RuleState.ACTING]


def test_only_the_rule_that_acts_now_is_counted_on(book: RuleBook, tmp_path: Path) -> None:
    """In shadow, another rule of its name, expired, no file, strangers' keys: each is refused."""
    file = tmp_path / "hot.json"
    with pytest.raises(OverlayError, match="is not in"):
        acting_in(file, QUORUM, RULE, 1_001)
    book.shadow(RULE, 1_001)
    with pytest.raises(OverlayError, match="in shadow"):
        acting_in(file, QUORUM, RULE, 1_002)
    signed = tuple(approve(RULE, name, key) for name, key in KEYS.items())
    book.act(RULE.id, signed, 1_003)
    assert acting_in(file, QUORUM, RULE, 1_004) == RULE
    assert acting_in(file, QUORUM, RULE, RULE.expires - 1) == RULE
    with pytest.raises(OverlayError, match="its time is over"):
        acting_in(file, QUORUM, RULE, RULE.expires)
    with pytest.raises(OverlayError, match="is not in"):
        acting_in(file, QUORUM, renewed(RULE, now=1_001, days=1), 1_004)
    with pytest.raises(OverlayError, match="expected a file"):
        acting_in(tmp_path / "none.json", QUORUM, RULE, 1_004)
    strangers = quorum_of(signing_keys("carl"))
    with pytest.raises(OverlayError, match="no configured person"):
        acting_in(file, strangers, RULE, 1_004)


def test_approvals_do_not_hold_for_a_renewed_rule(book: RuleBook) -> None:
    """A longer life is another rule: two persons must look again."""
    fresh = renewed(RULE, now=1_500, days=2)
    book.shadow(fresh, 1_501)
    signed = tuple(approve(RULE, name, key) for name, key in KEYS.items())
    with pytest.raises(OverlayError):
        book.act(fresh.id, signed, 1_502)


def test_a_new_rule_drops_the_approvals_of_the_old_one(tmp_path: Path) -> None:
    """An approval is of one rule; the case forgets it with that rule."""
    case = IncidentCase(tmp_path / "case")
    case.begin(INCIDENT, DRESS)
    case.keep_rule(MeasuredRule(RULE, Rate(9, 10), Rate(0, 10)))
    case.keep_approval(approve(RULE, "anna", KEYS["anna"]))
    case.keep_approval(approve(RULE, "anna", KEYS["anna"]))
    assert len(case.approvals()) == 1
    case.keep_rule(MeasuredRule(renewed(RULE, now=2_000, days=1), Rate(9, 10), Rate(0, 10)))
    assert case.approvals() == ()


def test_the_book_never_takes_a_serial_twice_and_forgets_what_ended(book: RuleBook) -> None:
    """Each change is one serial more; a rule that ended is gone with the next change."""
    book.shadow(RULE, 1_001)
    assert book.shadow(RULE, 1_001) == 3
    with pytest.raises(OverlayError):
        book.shadow(renewed(RULE, now=1_400, days=1), 1_401)
    with pytest.raises(OverlayError):
        book.end("unknown", 1_500)
    assert book.end(RULE.id, 1_500) == 4
    assert book.content().rules == ()


def test_a_file_that_a_stranger_wrote_is_not_signed_anew(book: RuleBook, tmp_path: Path) -> None:
    """A change starts from what verifies, never from what merely stands there."""
    (tmp_path / "hot.json").write_bytes(b"{}")
    with pytest.raises(OverlayError):
        book.shadow(RULE, 1_001)
    assert (tmp_path / "hot.json").read_bytes() == b"{}"
