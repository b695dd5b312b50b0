"""The second at which something begins or ends, on both sides of it."""

from pathlib import Path

import msgspec
import pytest

from safehold.testing.trust import Enclave, vetted
from safehold.trust.clock import SKEW_S
from safehold.trust.exemptions import (
    Application,
    Evidence,
    ExemptionAction,
    ExemptionError,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
    check_terms,
)
from safehold.trust.grants.approval_text import utc
from safehold.trust.grants.evaluate import MAX_AHEAD_S
from safehold.trust.grants.interface import Granted, GrantError, GrantRequest, Reason, Refused
from safehold.trust.grants.policy import lint_policy, load_policy
from safehold.trust.people.statement import Act

QUORUM = ("dev-two", "dev-three", "sec-one")


@pytest.fixture
def house(tmp_path: Path) -> Enclave:
    """Return an enclave."""
    return Enclave(tmp_path / "log")


def carried(house: Enclave, **changes: int) -> GrantRequest:
    """Return a request that its quorum approved."""
    asked = house.ask(**changes)
    house.file(asked)
    house.approve(asked, *QUORUM)
    return asked


def said(house: Enclave, asked: GrantRequest, now: int) -> Reason | None:
    """Return why the request does not hold at this second; None: it does."""
    decision = house.desk.state.decide(asked.sha256, now)
    return decision.reason if isinstance(decision, Refused) else None


def test_a_grant_holds_to_its_last_second_and_not_at_its_end(house: Enclave) -> None:
    """At `expires` it has expired; one second before it holds."""
    asked = carried(house)
    assert said(house, asked, asked.expires - 1) is None
    assert said(house, asked, asked.expires) is Reason.WINDOW


def test_a_grant_begins_at_its_first_second(house: Enclave) -> None:
    """At `not_before` it holds; one second before it does not."""
    asked = carried(house, not_before=house.time + 600, expires=house.time + 1200)
    assert said(house, asked, asked.not_before) is None
    assert said(house, asked, asked.not_before - 1) is Reason.WINDOW


def test_a_window_is_as_long_as_the_rule_has_it_and_no_second_longer(house: Enclave) -> None:
    """28,800 s are given, 28,801 s are not."""
    longest = carried(house, expires=house.time + 28_800)
    assert said(house, longest, house.time) is None
    longer = carried(house, expires=house.time + 28_801)
    assert said(house, longer, house.time) is Reason.WINDOW


def test_a_grant_begins_no_second_later_than_may_be(house: Enclave) -> None:
    """A window may begin so long after its request, and not one second more."""
    far = house.time + MAX_AHEAD_S
    lawful = carried(house, not_before=far, expires=far + 60)
    late = carried(house, not_before=far + 1, expires=far + 60)
    # The approvals are in time for a rule whose approvals last as long.
    decision = house.desk.state.decide(late.sha256, far + 1)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.WINDOW
    assert said(house, lawful, far) is not Reason.WINDOW


def test_an_approval_counts_to_the_last_second_of_its_time(house: Enclave) -> None:
    """86,400 s after the request an approval counts; one second later it does not."""
    for late, reason in ((0, None), (1, Reason.APPROVAL_AGE)):
        asked = house.ask(not_before=house.time + 86_000, expires=house.time + 90_000)
        house.file(asked)
        house.time += 86_400 + late
        house.approve(asked, *QUORUM)
        assert said(house, asked, house.time) is reason


def test_a_clock_may_be_behind_by_the_skew_and_no_second_more(house: Enclave) -> None:
    """120 s behind the log are forgiven, 121 s are not."""
    asked = carried(house)
    last = house.desk.state.last_time
    assert isinstance(house.desk.state.decide(asked.sha256, last - SKEW_S), Granted)
    assert said(house, asked, last - SKEW_S - 1) is Reason.CLOCK


def test_a_budget_and_uses_are_given_to_the_rules_own_number(house: Enclave) -> None:
    """A terabyte and three uses are given; a byte or a use more is not."""
    assert said(house, carried(house, byte_budget=10**12, uses=3), house.time) is None
    for more in ({"byte_budget": 10**12 + 1}, {"uses": 4}):
        assert said(house, carried(house, **more), house.time) is Reason.SCOPE


def test_an_application_has_forty_pieces_of_evidence_at_most() -> None:
    """Forty are read, forty-one are not; a conflict is declared once."""
    terms = ExemptionTerms(
        subject=Subject(SubjectKind.USER, "u"),
        relaxations=(Relaxation("c", ExemptionAction.AUDIT),),
        surfaces=("openai.chat",),
        use_case="u",
        seats=1,
        rate_per_hour=1,
        vetting=vetted(conflicts=("p-0123456789abcdef",) * 2),
    )
    with pytest.raises(ExemptionError, match="conflict once"):
        check_terms(terms)
    pieces = [{"kind": "letter", "sha256": f"{number:064x}"} for number in range(41)]
    rest = {"who": "w", "contact": "c", "institution": "i", "use_case": "u", "why": "y"}
    given = msgspec.convert({**rest, "evidence": pieces[:40]}, Application)
    assert given.evidence[0] == Evidence("letter", "0" * 64)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**rest, "evidence": pieces}, Application)


def test_the_last_second_that_a_date_can_name_is_named() -> None:
    """An approver reads a date up to the end of year 9999, and a plain number beyond it."""
    last = 253_402_300_799
    assert utc(last) == "9999-12-31 23:59:59 UTC"
    assert utc(last + 1) == f"second {last + 1}"


def test_the_lint_names_a_rule_below_the_stock_policy(house: Enclave) -> None:
    """One approval fewer than stock is a line; as many as stock is none."""
    text = house.policy_text
    assert not any(one.startswith("weights.shred:") for one in lint_policy(load_policy(text)))
    shred = "count = 2 }]\nmax_duration_s = 28800\n"
    low = text.replace(shred, shred.replace("2 }", "1 }"))
    assert low != text
    assert "weights.shred: 1 approval(s), the stock policy has 2" in lint_policy(load_policy(low))


def test_nobody_approves_a_request_that_was_denied(house: Enclave) -> None:
    """An approval of a closed request is not even recorded."""
    asked = house.ask()
    house.file(asked)
    note = house.note(asked)
    house.desk.deny(note, house.keys["sec-one"].sign(Act.DENY, note))
    with pytest.raises(GrantError, match="is closed"):
        house.approve(asked, "dev-two")
