"""Vetting: who reviewed did not approve, nobody with a stake decides, and the log names nobody."""

from pathlib import Path

import msgspec
import pytest

from safehold.canonical import canonical
from safehold.errors import TrustError
from safehold.testing.trust import Enclave, person_id, vetted
from safehold.trust.exemptions import (
    CHECKLIST,
    Admitted,
    Application,
    Caller,
    CaseOverrun,
    Evidence,
    ExemptionAction,
    ExemptionError,
    ExemptionTerms,
    Relaxation,
    Renewal,
    Ruling,
    SeatMeter,
    Subject,
    SubjectKind,
    UseCount,
    VettingTier,
    check_application,
    check_clauses,
    check_terms,
    salted,
)
from safehold.trust.exemptions.seat_file import SeatFile
from safehold.trust.exemptions.vetting import Conflict, tier_of
from safehold.trust.grants.approval_text import in_words
from safehold.trust.grants.interface import Reason, Refused, RefusedError
from safehold.trust.log.dsse import open_envelope
from safehold.trust.people.statement import Act

HIGH = vetted(VettingTier.HIGH)
TERMS = ExemptionTerms(
    subject=Subject(SubjectKind.ORGANISATION, "org-1"),
    relaxations=(Relaxation("beer", ExemptionAction.AUDIT),),
    surfaces=("openai.chat",),
    use_case="brewing-school",
    seats=2,
    rate_per_hour=3,
    vetting=vetted(),
)
APPLICATION = salted(
    Application(
        who="Ada Example",
        contact="ada@school.example",
        institution="The school",
        use_case="brewing-school",
        why="A course",
        evidence=TERMS.vetting.evidence,
        conflicts=(Conflict(person_id("sec-two"), "teaches there"),),
    )
)


def terms(**changes: object) -> ExemptionTerms:
    """Return the terms with members of the vetting changed."""
    return msgspec.structs.replace(TERMS, vetting=msgspec.structs.replace(TERMS.vetting, **changes))


def reason(enclave: Enclave, request: str) -> Reason:
    """Return why a request is refused."""
    decision = enclave.desk.state.decide(request, enclave.time)
    assert isinstance(decision, Refused)
    return decision.reason


def asked_for(enclave: Enclave, wanted: ExemptionTerms, by: str = "dev-one") -> str:
    """File a request for an exemption."""
    asked = enclave.ask(by, "exemption.give", details=wanted)
    return enclave.file(asked)


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    """Return an enclave whose rule for exemptions has one approval."""
    return Enclave(tmp_path / "log")


def test_the_reviewer_never_approves(enclave: Enclave) -> None:
    """Who answers for the checks signs the request, and nobody approves their own."""
    asked = enclave.ask("dev-one", "exemption.give", details=TERMS)
    enclave.file(asked)
    with pytest.raises(TrustError, match="own request"):
        enclave.approve(asked, "dev-one")
    enclave.approve(asked, "sec-one")
    assert [one.terms for one in enclave.desk.state.exemptions()] == [TERMS]


def test_a_person_with_a_stake_neither_reviews_nor_approves(enclave: Enclave) -> None:
    """A declared conflict bars from both sides; anybody else may."""
    wanted = terms(conflicts=(person_id("sec-two"), person_id("dev-two")))
    asked = enclave.ask("dev-one", "exemption.give", details=wanted)
    enclave.file(asked)
    with pytest.raises(TrustError, match="declared stake"):
        enclave.approve(asked, "sec-two")
    enclave.approve(asked, "sec-one")
    assert len(enclave.desk.state.exemptions()) == 1
    own = asked_for(enclave, wanted, "dev-two")
    assert reason(enclave, own) is Reason.CONFLICT


def test_a_service_does_not_vet(enclave: Enclave) -> None:
    """A review by a machine is none, however many approve it."""
    asked = enclave.ask("keyd", "exemption.give", details=TERMS)
    enclave.file(asked)
    enclave.approve(asked, "sec-one", "sec-two", "dev-one")
    assert reason(enclave, asked.sha256) is Reason.REQUESTER
    assert enclave.desk.state.exemptions() == ()


def test_the_higher_tier_takes_two_approvers_whatever_the_rule_says(enclave: Enclave) -> None:
    """One approval is enough for the lower tier only."""
    asked = enclave.ask("dev-one", "exemption.give", details=terms(**_members(HIGH)))
    enclave.file(asked)
    enclave.approve(asked, "sec-one")
    assert reason(enclave, asked.sha256) is Reason.QUORUM
    enclave.approve(asked, "sec-two")
    assert len(enclave.desk.state.exemptions()) == 1


def _members(vetting: object) -> dict[str, object]:
    return {name: getattr(vetting, name) for name in ("tier", "evidence", "checks")}


@pytest.mark.parametrize("tier", list(VettingTier))
def test_every_check_of_the_tier_is_needed(tier: VettingTier) -> None:
    """Each missing check refuses, by name; so do one too many and one twice."""
    full = tuple(CHECKLIST[tier])
    check_terms(terms(tier=tier, checks=full))
    for item in full:
        with pytest.raises(ExemptionError, match=item):
            check_terms(terms(tier=tier, checks=tuple(one for one in full if one != item)))
    with pytest.raises(ExemptionError, match="once and no other"):
        check_terms(terms(tier=tier, checks=(*full, "horoscope")))
    with pytest.raises(ExemptionError, match="once and no other"):
        check_terms(terms(tier=tier, checks=(*full, full[0])))


def test_evidence_is_counted_by_kind_and_once() -> None:
    """Two pieces of one kind are one kind; one piece twice is none more."""
    one, two = Evidence("licence", "aa" * 32), Evidence("licence", "bb" * 32)
    high = {"tier": VettingTier.HIGH, "checks": tuple(CHECKLIST[VettingTier.HIGH])}
    with pytest.raises(ExemptionError, match="2 kind"):
        check_terms(terms(**high, evidence=(one, two)))
    with pytest.raises(ExemptionError, match="once"):
        check_terms(terms(evidence=(one, Evidence("letter", "aa" * 32))))
    with pytest.raises(ExemptionError, match="kind"):
        check_terms(terms(evidence=()))
    check_terms(terms(**high, evidence=(one, Evidence("letter", "bb" * 32))))


def test_the_tier_is_computed_from_the_constitution() -> None:
    """Terms vetted low for a clause of the high tier count nowhere; an unknown tier is high."""
    for tier in ("high-risk-dual-use", "something-new"):
        with pytest.raises(ExemptionError, match="checks of tier"):
            check_clauses(TERMS, {"beer": tier})
        check_clauses(terms(**_members(HIGH)), {"beer": tier})
    check_clauses(TERMS, {"beer": "low-risk-dual-use"})
    assert tier_of({}, ("beer",)) is VettingTier.HIGH


def test_no_incomplete_vetting_takes_effect(enclave: Enclave) -> None:
    """The log judges the checks again: a request around the command line is refused at its use."""
    asked = enclave.ask("dev-one", "exemption.give", details=terms(checks=("identity",)))
    enclave.file(asked)
    with pytest.raises(RefusedError, match="every check"):
        enclave.approve(asked, "sec-one")
    assert enclave.desk.state.exemptions() == ()


def test_a_renewal_is_of_an_exemption_of_the_same_subject_and_use_case(enclave: Enclave) -> None:
    """Counts of another grant, or of one that was never given, carry nothing."""
    old = enclave.carry("exemption.give", TERMS)
    use = (UseCount("beer", "audit", 41), UseCount("beer", "seats", 2))
    renewal = Renewal(of=old.sha256, since=0, until=9, use=use)
    fresh = enclave.carry("exemption.give", terms(renewal=renewal))
    assert fresh.sha256 in {one.grant for one in enclave.desk.state.exemptions()}
    words = dict(in_words(fresh, enclave.desk.state.roster))
    assert words["Renews"] == old.sha256
    assert words["Use: beer"] == "seats, 2 exchanges"
    other = msgspec.structs.replace(terms(renewal=renewal), use_case="pub")
    never = terms(renewal=msgspec.structs.replace(renewal, of="00" * 32))
    for wanted in (other, never):
        with pytest.raises(RefusedError, match="renew an exemption of this subject"):
            enclave.carry("exemption.give", wanted)
    with pytest.raises(ExemptionError, match="one count"):
        check_terms(terms(renewal=msgspec.structs.replace(renewal, use=(use[0], use[0]))))


def test_the_log_holds_no_word_of_the_application(enclave: Enclave) -> None:
    """Who, contact, institution and reason are in no leaf; two like applications differ."""
    wanted = terms(application_sha256=APPLICATION.sha256, conflicts=(person_id("sec-two"),))
    check_application(wanted, APPLICATION)
    asked = enclave.carry("exemption.give", wanted)
    note = enclave.note(asked, "licence ended")
    enclave.desk.revoke(note, enclave.keys["dev-two"].sign(Act.REVOKE, note))
    emitters = enclave.desk.store.keys.emitter_keys()
    leaves = b"".join(
        canonical(open_envelope(entry, emitters)[0]) for _, entry in enclave.desk.store.entries(0)
    )
    assert b"licence ended" in leaves
    leaves += canonical(in_words(asked, enclave.desk.state.roster))
    for text in (APPLICATION.who, APPLICATION.contact, APPLICATION.institution, APPLICATION.salt):
        assert text.encode() not in leaves
    assert salted(APPLICATION).sha256 != APPLICATION.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"use_case": "pub"},
        {"evidence": (Evidence("licence", "00" * 32),)},
        {"conflicts": ()},
        {"who": "Somebody else"},
    ],
)
def test_another_application_is_not_the_reviewed_one(change: dict[str, object]) -> None:
    """Each member of an application is bound: by the digest, and by what the log repeats."""
    wanted = terms(application_sha256=APPLICATION.sha256, conflicts=(person_id("sec-two"),))
    changed = msgspec.structs.replace(APPLICATION, **change)
    with pytest.raises(ExemptionError):
        check_application(wanted, changed)
    bound = terms(application_sha256=changed.sha256, conflicts=(person_id("sec-two"),))
    if "who" not in change:
        with pytest.raises(ExemptionError):
            check_application(bound, changed)


@pytest.mark.parametrize("name", ["ada@school.example", "Ada Example", "", "ид"])
def test_a_subject_is_an_id_and_no_name_or_address(name: str) -> None:
    """Personal data can't be written where an id belongs."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "user", "id": name}, Subject)


@pytest.mark.parametrize("shared", [False, True])
def test_a_session_has_one_use_case(tmp_path: Path, *, shared: bool) -> None:
    """A key that declares another use case in its session is not exempt; after it, it is."""
    meter = SeatFile(tmp_path / "seats") if shared else SeatMeter()
    ruling = Ruling(ExemptionAction.AUDIT, "g1", seats=9, rate_per_hour=99, session_s=600)
    school, pub = (Caller("org-1", "ann", "key-1", case) for case in ("school", "pub"))
    assert meter.admit(ruling, school, 1000) == Admitted()
    assert meter.admit(ruling, pub, 1300) == CaseOverrun("g1", "school")
    assert meter.admit(ruling, school, 1599) == Admitted()
    other = msgspec.structs.replace(pub, key="key-2")
    assert meter.admit(ruling, other, 1300) == Admitted()
    assert meter.admit(ruling, pub, 1600) == Admitted()
    assert meter.admit(ruling, school, 1601) == CaseOverrun("g1", "pub")
