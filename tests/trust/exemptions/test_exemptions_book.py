"""An exemption changes the action for one subject, clause, surface and time, and nothing else."""

from pathlib import Path

import msgspec
import pytest

from safehold.testing.trust import Enclave, person_id, vetted
from safehold.trust.exemptions import (
    NO_EXEMPTION,
    Admitted,
    Caller,
    Exemption,
    ExemptionAction,
    ExemptionBook,
    ExemptionError,
    ExemptionTerms,
    RateOverrun,
    Relaxation,
    SeatMeter,
    SeatOverrun,
    Subject,
    SubjectKind,
    check_terms,
    exemption_book,
    settle,
)
from safehold.trust.grants.details import RemovePerson
from safehold.trust.grants.interface import RefusedError
from safehold.trust.people.statement import Act

DAY = 86_400
TERMS = ExemptionTerms(
    subject=Subject(SubjectKind.ORGANISATION, "org-1"),
    relaxations=(Relaxation("brewing.process", ExemptionAction.AUDIT),),
    surfaces=("api",),
    use_case="brewing-school",
    seats=2,
    rate_per_hour=3,
    vetting=vetted(),
)
CALLER = Caller(organisation="org-1", user="u-1", key="k-1", use_case="brewing-school")
RELAXABLE = dict.fromkeys(("brewing.process", "brewing.recipe"), "low-risk-dual-use")
EXEMPTION = Exemption(grant="g", terms=TERMS, not_before=1000, expires=1000 + 30 * DAY)


def ruling(
    *,
    exemption: Exemption = EXEMPTION,
    caller: Caller = CALLER,
    clause: str = "brewing.process",
    surface: str = "api",
    now: int = 2000,
) -> ExemptionAction:
    """Return the action in one situation."""
    book = ExemptionBook((exemption,), frozenset(RELAXABLE))
    return book.action_for(caller, clause, surface, now).action


def test_exempt_caller_gets_the_approved_action() -> None:
    """Inside its terms the exemption's action applies."""
    assert ruling() is ExemptionAction.AUDIT


@pytest.mark.parametrize(
    "caller",
    [
        Caller("org-2", "u-1", "k-1", "brewing-school"),
        Caller("", "org-1", "org-1", "brewing-school"),
        Caller("org-1", "u-1", "k-1", "something else"),
        Caller("org-1", "u-1", "k-1", ""),
    ],
)
def test_others_and_other_use_cases_are_blocked(caller: Caller) -> None:
    """Another organisation, an id of another kind, or another use case is not exempt."""
    assert ruling(caller=caller) is ExemptionAction.BLOCK


def test_empty_id_matches_nobody() -> None:
    """A caller without an id is not exempt under a subject without one."""
    terms = msgspec.structs.replace(TERMS, subject=Subject(SubjectKind.USER, ""))
    nobody = Caller("", "", "", "brewing-school")
    assert ruling(exemption=msgspec.structs.replace(EXEMPTION, terms=terms), caller=nobody) is (
        ExemptionAction.BLOCK
    )


def test_other_clause_surface_and_time_are_blocked() -> None:
    """Outside its clause, its surface or its dates the exemption does nothing."""
    assert ruling(clause="brewing.recipe") is ExemptionAction.BLOCK
    assert ruling(surface="chat") is ExemptionAction.BLOCK
    assert ruling(now=999) is ExemptionAction.BLOCK
    assert ruling(now=EXEMPTION.expires - 1) is ExemptionAction.AUDIT
    assert ruling(now=EXEMPTION.expires) is ExemptionAction.BLOCK


def test_ended_exemption_is_blocked() -> None:
    """A revoked exemption does nothing."""
    assert ruling(exemption=msgspec.structs.replace(EXEMPTION, ended=True)) is ExemptionAction.BLOCK


def test_prohibited_clause_blocks_under_every_grant() -> None:
    """A clause that may not be relaxed blocks even if a grant names it."""
    terms = msgspec.structs.replace(
        TERMS, relaxations=(Relaxation("brewing.prohibited", ExemptionAction.AUDIT),)
    )
    exemption = msgspec.structs.replace(EXEMPTION, terms=terms)
    assert ruling(exemption=exemption, clause="brewing.prohibited") is ExemptionAction.BLOCK
    with pytest.raises(ExemptionError, match="prohibited"):
        exemption_book([exemption], RELAXABLE)


def test_there_is_no_off() -> None:
    """No action of an exemption means that nothing happens."""
    assert {action.value for action in ExemptionAction} == {"block", "hold", "fallback", "audit"}


@pytest.mark.parametrize(
    "changes",
    [
        {"relaxations": ()},
        {"relaxations": (Relaxation("a", ExemptionAction.BLOCK),)},
        {
            "relaxations": (
                Relaxation("a", ExemptionAction.AUDIT),
                Relaxation("a", ExemptionAction.HOLD),
            )
        },
        {"surfaces": ()},
        {"surfaces": ("*",)},
    ],
)
def test_empty_double_or_sweeping_terms_are_refused(changes: dict[str, object]) -> None:
    """Terms name clauses and surfaces, each once, and an action that is not blocking."""
    with pytest.raises(ExemptionError):
        check_terms(msgspec.structs.replace(TERMS, **changes))


@pytest.mark.parametrize(
    ("left", "days"),
    [
        (15 * DAY, None),
        (14 * DAY, 14),
        (3 * DAY + 1, 14),
        (3 * DAY, 3),
        (DAY, 1),
        (1, 1),
        (0, None),
    ],
)
def test_expiry_is_announced(left: int, days: int | None) -> None:
    """Warnings come at 14, 3 and 1 days, and none after the end."""
    book = ExemptionBook((EXEMPTION,), frozenset(RELAXABLE))
    notices = [notice.days for notice in book.warnings(EXEMPTION.expires - left)]
    assert notices == ([] if days is None else [days])


def test_seat_beyond_the_approved_number_is_not_exempt_and_alarms_once() -> None:
    """The third user of a two-seat exemption blocks as ever, and raises one alarm."""
    meter = SeatMeter()
    given = ExemptionBook((EXEMPTION,), frozenset(RELAXABLE)).action_for(
        CALLER, "brewing.process", "api", 2000
    )
    for user in ("u-1", "u-2"):
        caller = msgspec.structs.replace(CALLER, user=user)
        assert meter.admit(given, caller, 2000) == Admitted()
    third = msgspec.structs.replace(CALLER, user="u-3")
    overrun = meter.admit(given, third, 2000)
    assert overrun == SeatOverrun(grant="g", seats=2, asked=3, first=True)
    assert settle(given, overrun) == NO_EXEMPTION
    again = meter.admit(given, third, 2000)
    assert isinstance(again, SeatOverrun)
    assert not again.first
    assert meter.admit(given, CALLER, 2001) == Admitted()


def test_restart_frees_no_seat() -> None:
    """Seats taken before a restart stay taken."""
    meter = SeatMeter()
    given = ExemptionBook((EXEMPTION,), frozenset(RELAXABLE)).action_for(
        CALLER, "brewing.process", "api", 2000
    )
    meter.remember("g", "u-8")
    meter.remember("g", "u-9")
    assert isinstance(meter.admit(given, CALLER, 2000), SeatOverrun)


def test_rate_above_the_cap_is_not_exempt() -> None:
    """The fourth exchange within an hour blocks; an hour later the next is exempt again."""
    meter = SeatMeter()
    given = ExemptionBook((EXEMPTION,), frozenset(RELAXABLE)).action_for(
        CALLER, "brewing.process", "api", 2000
    )
    assert all(meter.admit(given, CALLER, 2000 + i) == Admitted() for i in range(3))
    over = meter.admit(given, CALLER, 2003)
    assert isinstance(over, RateOverrun)
    assert settle(given, over) == NO_EXEMPTION
    assert meter.admit(given, CALLER, 2000 + 3600) == Admitted()


def test_exemption_is_a_grant(tmp_path: Path) -> None:
    """An exemption takes effect by two-party approval, and ends by revocation."""
    enclave = Enclave(tmp_path / "log")
    asked = enclave.ask(operation="exemption.give", details=TERMS, byte_budget=0)
    enclave.file(asked)
    assert enclave.desk.state.exemptions() == ()
    enclave.approve(asked, "sec-one")
    (given,) = enclave.desk.state.exemptions()
    assert given.terms == TERMS
    assert not given.ended
    note = enclave.note(asked)
    enclave.desk.revoke(note, enclave.keys["dev-two"].sign(Act.REVOKE, note))
    assert enclave.desk.state.exemptions()[0].ended


def test_exemption_ends_with_its_approvers_enrolment(tmp_path: Path) -> None:
    """When a person who carried it is removed, the exemption must be approved again."""
    enclave = Enclave(tmp_path / "log")
    asked = enclave.ask(operation="exemption.give", details=TERMS, byte_budget=0)
    enclave.file(asked)
    enclave.approve(asked, "sec-one")
    _remove(enclave, "sec-one")
    assert enclave.desk.state.exemptions()[0].ended


def _remove(enclave: Enclave, name: str) -> None:
    asked = enclave.ask("dev-one", "people.remove", details=RemovePerson(person_id(name)))
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-three")


def test_terms_that_block_nothing_never_take_effect(tmp_path: Path) -> None:
    """Empty terms are refused at the moment they would take effect."""
    enclave = Enclave(tmp_path / "log")
    empty = msgspec.structs.replace(TERMS, relaxations=())
    asked = enclave.ask(operation="exemption.give", details=empty, byte_budget=0)
    enclave.file(asked)
    with pytest.raises(RefusedError, match="at least one clause"):
        enclave.approve(asked, "sec-one")
    assert enclave.desk.state.exemptions() == ()


def test_lookup_looks_at_the_callers_own_exemptions_only() -> None:
    """Ten thousand exemptions of others are not gone through for one caller."""
    others = [
        msgspec.structs.replace(
            EXEMPTION,
            grant=f"g{number}",
            terms=msgspec.structs.replace(
                TERMS, subject=Subject(SubjectKind.ORGANISATION, f"other-{number}")
            ),
        )
        for number in range(10_000)
    ]
    book = ExemptionBook((*others, EXEMPTION), frozenset(RELAXABLE))
    assert book.action_for(CALLER, "brewing.process", "api", 2000).grant == "g"
    assert [one.grant for one in book._of(CALLER)] == ["g"]


def test_subject_without_an_id_is_nobody() -> None:
    """A caller whose user is not known is not taken for an exemption of an empty name."""
    nobody = msgspec.structs.replace(CALLER, organisation="", user="", key="")
    empty = msgspec.structs.replace(
        EXEMPTION, terms=msgspec.structs.replace(TERMS, subject=Subject(SubjectKind.USER, ""))
    )
    book = ExemptionBook((empty,), frozenset(RELAXABLE))
    assert book.action_for(nobody, "brewing.process", "api", 2000) == NO_EXEMPTION
