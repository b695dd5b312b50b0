"""Each test is an attack that a real approval system once let through, or its near miss."""

import msgspec
import pytest

from safehold.canonical import sha256_hex
from safehold.errors import TrustError
from safehold.testing.trust import (
    GOVERNING,
    POLICY,
    Enclave,
    SoftPasskey,
    SoftSsh,
    person_id,
)
from safehold.trust.clock import SKEW_S
from safehold.trust.grants.details import (
    AddTeam,
    AssignPerson,
    ChangePolicy,
    RemoveKey,
    RemovePerson,
)
from safehold.trust.grants.evaluate import evaluate
from safehold.trust.grants.events import Approved, Released, Used
from safehold.trust.grants.interface import (
    Approval,
    Granted,
    PolicyError,
    Reason,
    Refused,
    RefusedError,
    SignedRequest,
)
from safehold.trust.grants.policy import load_policy
from safehold.trust.log.dsse import sign_envelope
from safehold.trust.log.log_entries import statement_of
from safehold.trust.people.interface import Kind, Person, SignatureError, Team
from safehold.trust.people.statement import Act

QUORUM = ("dev-two", "dev-three", "sec-one")


def refusal(enclave: Enclave, request: str) -> Reason:
    """Return why a request is refused right now."""
    decision = enclave.desk.state.decide(request, enclave.time)
    assert isinstance(decision, Refused)
    return decision.reason


def test_full_quorum_is_granted(enclave: Enclave) -> None:
    """Two of development and one of security, none the requester, carry the request."""
    asked = enclave.ask()
    enclave.file(asked)
    decision = enclave.approve(asked, *QUORUM)
    assert isinstance(decision, Granted)
    assert set(decision.approvers) == {person_id(name) for name in QUORUM}
    assert enclave.use(asked).uses_left == 0


def test_zero_approvals_are_refused(enclave: Enclave) -> None:
    """A request that nobody approved is refused (OpenBao 3666)."""
    asked = enclave.ask()
    enclave.file(asked)
    assert refusal(enclave, asked.sha256) is Reason.NO_APPROVAL
    with pytest.raises(RefusedError, match="no-approval"):
        enclave.use(asked)


def test_zero_approvals_are_refused_even_by_a_rule_without_thresholds(enclave: Enclave) -> None:
    """A rule object without thresholds, however it came to be, grants nothing."""
    asked = enclave.ask()
    enclave.file(asked)
    state = enclave.desk.state
    rules = tuple(msgspec.structs.replace(rule, thresholds=()) for rule in state.policy.rules)
    policy = msgspec.structs.replace(state.policy, rules=rules)
    signed = state.case(asked.sha256).signed
    view = state.view(asked.sha256, enclave.time)
    decision = evaluate(signed, (), state.roster, policy, enclave.time, view)
    assert isinstance(decision, Refused)
    one = Approval(asked.sha256, enclave.time, enclave.keys["dev-two"].sign(Act.APPROVE, asked))
    decision = evaluate(signed, (one,), state.roster, policy, enclave.time, view)
    assert isinstance(decision, Refused)


@pytest.mark.parametrize(
    "thresholds", ["[]", '[{ team = "t-development", count = 0 }]', '[{ team = "t-development" }]']
)
def test_policy_with_omitted_or_zero_approvals_is_refused(thresholds: str) -> None:
    """A policy file can't ask for no approval (OpenBao 3666)."""
    text = POLICY.replace(
        '[{ team = "t-development", count = 2 }, { team = "t-security", count = 1 }]', thresholds
    )
    assert thresholds in text
    with pytest.raises(PolicyError):
        load_policy(text + GOVERNING)


def test_same_named_team_elsewhere_does_not_count(enclave: Enclave) -> None:
    """No second team is called Security; one with a like id is not Security (OpenBao 3815)."""
    with pytest.raises(RefusedError, match="take for 'Security'"):
        enclave.carry("people.add-team", AddTeam(Team(id="t-security-2", name="Security")))
    enclave.carry("people.add-team", AddTeam(Team(id="t-security-2", name="Security two")))
    move = AssignPerson(person_id("dev-four"), (), ("t-security-2",))
    enclave.carry("people.assign", move)
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-three", "dev-four")
    assert refusal(enclave, asked.sha256) is Reason.QUORUM


def test_member_of_nested_team_counts(enclave: Enclave) -> None:
    """Dev four, of a team inside Development, counts for Development (OpenBao 3814)."""
    asked = enclave.ask()
    enclave.file(asked)
    assert isinstance(enclave.approve(asked, "dev-two", "dev-four", "sec-one"), Granted)


def test_parent_team_membership_does_not_flow_down(enclave: Enclave) -> None:
    """A member of Everybody is no member of Development."""
    enclave.carry("people.assign", AssignPerson(person_id("dev-four"), (), ("t-everybody",)))
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-four", "sec-one")
    assert refusal(enclave, asked.sha256) is Reason.QUORUM


def test_rollback_to_an_old_valid_policy_is_refused(enclave: Enclave) -> None:
    """A policy that was in force once can't be brought back under its old version."""
    old = enclave.desk.state.policy
    text = enclave.policy_text.replace("version = 1\n", "version = 2\n", 1)
    enclave.carry("policy.change", ChangePolicy(text, sha256_hex(text.encode())))
    assert enclave.desk.state.policy.version == 2
    back = ChangePolicy(enclave.policy_text, old.sha256)
    with pytest.raises(TrustError, match="expected policy version 3, got 1"):
        enclave.carry("policy.change", back)
    assert enclave.desk.state.policy.version == 2


def test_evaluation_under_an_old_policy_is_refused(enclave: Enclave) -> None:
    """Whoever still holds the old, validly signed policy object decides nothing with it."""
    old = enclave.desk.state.policy
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    text = enclave.policy_text.replace("version = 1\n", "version = 2\n", 1)
    enclave.carry("policy.change", ChangePolicy(text, sha256_hex(text.encode())))
    state = enclave.desk.state
    case = state.case(asked.sha256)
    view = state.view(asked.sha256, enclave.time)
    decision = evaluate(case.signed, tuple(case.approvals), state.roster, old, enclave.time, view)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.POLICY_VERSION


def test_stricter_policy_reaches_requests_already_approved(enclave: Enclave) -> None:
    """A rule that tightens after the approvals is not ignored (CVE-2026-128035)."""
    asked = enclave.ask()
    enclave.file(asked)
    assert isinstance(enclave.approve(asked, *QUORUM), Granted)
    text = enclave.policy_text.replace("version = 1\n", "version = 2\n", 1).replace(
        '"t-security", count = 1', '"t-security", count = 2'
    )
    # Two of security besides the requester: a third security person must exist first.
    newcomer = SoftSsh(b"sec-three")
    person = Person("p-" + "3" * 16, "sec-three", Kind.HUMAN, (), ("t-security",), (newcomer.key,))
    enclave.carry("people.enrol", enclave.enrolling(person, newcomer))
    enclave.carry("policy.change", ChangePolicy(text, sha256_hex(text.encode())))
    assert refusal(enclave, asked.sha256) is Reason.POLICY_VERSION
    with pytest.raises(RefusedError, match="policy-version"):
        enclave.use(asked)


def test_changed_part_of_a_signed_policy_is_refused(enclave: Enclave) -> None:
    """The digest covers the whole policy: rule text that differs is refused (CVE-2026-128036)."""
    text = enclave.policy_text.replace("version = 1\n", "version = 2\n", 1)
    weaker = text.replace("count = 2", "count = 1")
    with pytest.raises(RefusedError, match="digest"):
        enclave.carry("policy.change", ChangePolicy(weaker, sha256_hex(text.encode())))


def test_approver_outside_the_rule_does_not_count(enclave: Enclave) -> None:
    """Persons of other teams never count towards a quorum (CVE-2026-128037)."""
    enclave.carry("people.assign", AssignPerson(person_id("sec-two"), (), ("t-everybody",)))
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-three", "sec-two")
    assert refusal(enclave, asked.sha256) is Reason.QUORUM
    assert isinstance(enclave.approve(asked, "sec-one"), Granted)


def test_three_of_one_team_are_not_two_and_one(enclave: Enclave) -> None:
    """Three developers do not replace two developers and one of security."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-three", "dev-four")
    assert refusal(enclave, asked.sha256) is Reason.QUORUM


def test_person_of_two_teams_fills_one_place(enclave: Enclave) -> None:
    """Somebody in Development and Security counts for one of them, not for both."""
    both = AssignPerson(person_id("dev-three"), (), ("t-development", "t-security"))
    enclave.carry("people.assign", both)
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-three")
    assert refusal(enclave, asked.sha256) is Reason.QUORUM


def test_replayed_assertion_is_refused(enclave: Enclave) -> None:
    """A passkey assertion for one request approves no other request."""
    key = SoftPasskey(b"dev-two")
    enclave.carry("people.add-key", enclave.adding("dev-two", key))
    first, second = enclave.ask(), enclave.ask(ticket="OPS-2")
    enclave.file(first)
    enclave.file(second)
    proof = key.sign(Act.APPROVE, first)
    enclave.desk.approve(first.sha256, proof)
    with pytest.raises(SignatureError):
        enclave.desk.approve(second.sha256, proof)
    assert not enclave.desk.state.case(second.sha256).approvals


def test_replayed_approval_is_refused_by_the_decision_itself(enclave: Enclave) -> None:
    """`evaluate` refuses an approval relabelled for another request, whoever passes it."""
    first, second = enclave.ask(), enclave.ask(ticket="OPS-2")
    enclave.file(first)
    enclave.file(second)
    state = enclave.desk.state
    stolen = [
        Approval(second.sha256, enclave.time, enclave.keys[name].sign(Act.APPROVE, first))
        for name in QUORUM
    ]
    view = state.view(second.sha256, enclave.time)
    decision = evaluate(
        state.case(second.sha256).signed, stolen, state.roster, state.policy, enclave.time, view
    )
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.APPROVAL_SIGNATURE
    relabelled = [msgspec.structs.replace(one, request_sha256=first.sha256) for one in stolen]
    decision = evaluate(
        state.case(second.sha256).signed,
        relabelled,
        state.roster,
        state.policy,
        enclave.time,
        view,
    )
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.APPROVAL_OF_OTHER_REQUEST


def test_replayed_request_is_refused(enclave: Enclave) -> None:
    """A request that is in the log can't be filed again to be spent again."""
    asked = enclave.ask()
    enclave.file(asked)
    with pytest.raises(TrustError, match="replay"):
        enclave.file(asked)


def test_same_approval_twice_counts_once(enclave: Enclave) -> None:
    """Sending an approval again does not make two of it."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two")
    with pytest.raises(TrustError, match="approved already"):
        enclave.approve(asked, "dev-two")


def test_altered_expiry_is_refused(enclave: Enclave) -> None:
    """Approvals of an hour do not carry the same request with a day."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    longer = msgspec.structs.replace(asked, expires=asked.expires + 3600)
    state = enclave.desk.state
    case = state.case(asked.sha256)
    signed = SignedRequest(longer, enclave.keys["dev-one"].sign(Act.REQUEST, longer))
    approvals = [
        msgspec.structs.replace(one, request_sha256=longer.sha256) for one in case.approvals
    ]
    view = state.view(asked.sha256, enclave.time)
    decision = evaluate(signed, approvals, state.roster, state.policy, enclave.time, view)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.APPROVAL_SIGNATURE


def test_altered_request_without_the_requesters_signature_is_refused(enclave: Enclave) -> None:
    """Nobody can file a changed copy of somebody's request."""
    asked = enclave.ask()
    proof = enclave.keys["dev-one"].sign(Act.REQUEST, asked)
    longer = msgspec.structs.replace(asked, byte_budget=asked.byte_budget * 2)
    with pytest.raises(SignatureError):
        enclave.desk.request(SignedRequest(longer, proof))


def test_content_changed_after_approval_is_refused(enclave: Enclave) -> None:
    """Approvals of one program's digest do not carry another program."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    with pytest.raises(RefusedError, match="workload"):
        enclave.desk.use(asked.sha256, host=asked.host, workload_sha256="cd" * 32)
    with pytest.raises(RefusedError, match="host"):
        enclave.desk.use(asked.sha256, host="gpu-2", workload_sha256=asked.workload_sha256)
    assert enclave.desk.state.case(asked.sha256).uses == 0


def test_approver_removed_between_approval_and_use_does_not_count(enclave: Enclave) -> None:
    """Removal takes effect on grants in flight."""
    asked = enclave.ask()
    enclave.file(asked)
    assert isinstance(enclave.approve(asked, *QUORUM), Granted)
    enclave.carry("people.remove", RemovePerson(person_id("dev-three")))
    with pytest.raises(RefusedError, match="approval-signature"):
        enclave.use(asked)


def test_key_removed_between_approval_and_use_does_not_count(enclave: Enclave) -> None:
    """A lost key's approvals are void once the key is removed, though its person stays."""
    spare = SoftSsh(b"spare")
    enclave.carry("people.add-key", enclave.adding("dev-three", spare))
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    lost = enclave.keys["dev-three"].key.key_id
    enclave.carry("people.remove-key", RemoveKey(person_id("dev-three"), lost))
    with pytest.raises(RefusedError, match="approval-signature"):
        enclave.use(asked)


def test_approver_moved_to_another_team_between_approval_and_use_does_not_count(
    enclave: Enclave,
) -> None:
    """Teams are those of the moment of use."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    enclave.carry("people.assign", AssignPerson(person_id("dev-three"), (), ("t-everybody",)))
    with pytest.raises(RefusedError, match="quorum"):
        enclave.use(asked)


def test_requester_removed_before_use_is_refused(enclave: Enclave) -> None:
    """A grant ends with its requester's enrolment."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    enclave.carry("people.remove", RemovePerson(person_id("dev-one")), requester="dev-two")
    with pytest.raises(RefusedError, match="requester"):
        enclave.use(asked)


def test_two_keys_of_one_person_count_once(enclave: Enclave) -> None:
    """Persons are counted, not keys."""
    second = SoftSsh(b"second key of dev-two")
    enclave.carry("people.add-key", enclave.adding("dev-two", second))
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "sec-one")
    with pytest.raises(TrustError, match="persons count, not keys"):
        enclave.desk.approve(asked.sha256, second.sign(Act.APPROVE, asked))
    # The decision itself counts persons too, whatever it is handed.
    state = enclave.desk.state
    case = state.case(asked.sha256)
    extra = Approval(asked.sha256, enclave.time, second.sign(Act.APPROVE, asked))
    decision = evaluate(
        case.signed,
        [*case.approvals, extra],
        state.roster,
        state.policy,
        enclave.time,
        state.view(asked.sha256, enclave.time),
    )
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.QUORUM


def test_one_key_can_not_belong_to_two_persons(enclave: Enclave) -> None:
    """Enrolling somebody with a key that somebody else holds is refused."""
    person = Person(
        "p-" + "9" * 16, "Twin", Kind.HUMAN, (), ("t-development",), (enclave.keys["dev-two"].key,)
    )
    with pytest.raises(TrustError, match="enrolled before"):
        enclave.carry("people.enrol", enclave.enrolling(person, enclave.keys["dev-two"]))


def test_clock_set_back_is_refused(enclave: Enclave) -> None:
    """The log's newest leaf is a lower bound of now: an expired grant does not come alive."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    enclave.time += 7200
    other = enclave.ask()
    enclave.file(other)
    assert refusal(enclave, asked.sha256) is Reason.WINDOW
    enclave.time -= 7200
    assert refusal(enclave, asked.sha256) is Reason.CLOCK
    with pytest.raises(RefusedError, match="clock"):
        enclave.use(asked)


def test_clock_set_back_can_not_append(enclave: Enclave) -> None:
    """No act goes into the log with a time before its newest leaf, beyond what clocks differ."""
    enclave.time -= SKEW_S + 1
    with pytest.raises(TrustError, match="clock is behind"):
        enclave.file(enclave.ask())


def test_requester_approving_is_refused(enclave: Enclave) -> None:
    """Nobody approves their own request (OpenBao RFC)."""
    asked = enclave.ask()
    enclave.file(asked)
    with pytest.raises(TrustError, match="own request"):
        enclave.approve(asked, "dev-one")


def test_requester_approving_under_another_role_is_refused(enclave: Enclave) -> None:
    """A second hat, a second team and a second key make no second person."""
    key = SoftPasskey(b"the hat")
    enclave.carry("people.add-key", enclave.adding("dev-one", key), requester="dev-two")
    hats = AssignPerson(person_id("dev-one"), ("approver",), ("t-development", "t-security"))
    enclave.carry("people.assign", hats, requester="dev-two")
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-three")
    with pytest.raises(TrustError, match="own request"):
        enclave.desk.approve(asked.sha256, key.sign(Act.APPROVE, asked))
    state = enclave.desk.state
    case = state.case(asked.sha256)
    own = Approval(asked.sha256, enclave.time, key.sign(Act.APPROVE, asked))
    decision = evaluate(
        case.signed,
        [*case.approvals, own],
        state.roster,
        state.policy,
        enclave.time,
        state.view(asked.sha256, enclave.time),
    )
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.APPROVER_IS_REQUESTER


def test_request_filed_in_anothers_name_is_refused(enclave: Enclave) -> None:
    """An approver can't free themselves by filing the request as somebody else."""
    asked = enclave.ask("dev-one")
    with pytest.raises(SignatureError, match="somebody else"):
        enclave.file(asked, by="dev-two")


@pytest.mark.parametrize("name", ["robot", "keyd"])
def test_agents_and_services_never_approve(enclave: Enclave, name: str) -> None:
    """An identity that is no human can't approve, whatever its teams."""
    asked = enclave.ask()
    enclave.file(asked)
    with pytest.raises(TrustError, match="only a human"):
        enclave.approve(asked, name)
    state = enclave.desk.state
    others = [
        Approval(asked.sha256, enclave.time, enclave.keys[one].sign(Act.APPROVE, asked))
        for one in ("dev-two", "dev-three", name)
    ]
    decision = evaluate(
        state.case(asked.sha256).signed,
        others,
        state.roster,
        state.policy,
        enclave.time,
        state.view(asked.sha256, enclave.time),
    )
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.APPROVER


def test_signature_for_another_act_is_no_approval(enclave: Enclave) -> None:
    """A denial's or a request's signature can't be turned into an approval."""
    asked = enclave.ask()
    enclave.file(asked)
    for act in Act:
        if act is Act.APPROVE:
            continue
        with pytest.raises(SignatureError):
            enclave.desk.approve(asked.sha256, enclave.keys["dev-two"].sign(act, asked))


def test_key_kind_outside_the_rule_does_not_count(enclave: Enclave) -> None:
    """Under a rule for passkeys and security keys, a plain SSH key's approval does not count."""
    text = enclave.policy_text.replace("version = 1\n", "version = 2\n", 1).replace(
        'keys = ["passkey", "ssh-sk", "ssh"]', 'keys = ["passkey", "ssh-sk"]', 1
    )
    enclave.carry("policy.change", ChangePolicy(text, sha256_hex(text.encode())))
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    assert refusal(enclave, asked.sha256) is Reason.KEY_KIND


def test_approval_after_the_time_for_approvals_does_not_count(enclave: Enclave) -> None:
    """An approval a day and a second after the request is too late, though the grant runs on."""
    asked = enclave.ask(
        operation="weights.load", not_before=enclave.time + 86_400, expires=enclave.time + 90_000
    )
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "dev-three")
    enclave.time += 86_401
    enclave.approve(asked, "sec-one")
    assert refusal(enclave, asked.sha256) is Reason.APPROVAL_AGE


def test_approval_dated_before_the_request_does_not_count(enclave: Enclave) -> None:
    """An approval that claims to be older than its request is refused by the decision."""
    asked = enclave.ask()
    enclave.file(asked)
    state = enclave.desk.state
    early = [
        Approval(asked.sha256, enclave.time - 1, enclave.keys[one].sign(Act.APPROVE, asked))
        for one in QUORUM
    ]
    decision = evaluate(
        state.case(asked.sha256).signed,
        early,
        state.roster,
        state.policy,
        enclave.time,
        state.view(asked.sha256, enclave.time),
    )
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.APPROVAL_AGE


def test_details_can_not_hide_behind_an_easier_rule(enclave: Enclave) -> None:
    """An enrolment inside a request to load weights is refused."""
    key = SoftSsh(b"x")
    person = Person("p-" + "8" * 16, "Stowaway", Kind.HUMAN, (), ("t-security",), (key.key,))
    asked = enclave.ask(details=enclave.enrolling(person, key))
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    assert refusal(enclave, asked.sha256) is Reason.DETAILS
    with pytest.raises(RefusedError):
        enclave.use(asked)
    assert enclave.desk.state.roster.person(person.id) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"operation": "weights.export"}, Reason.NO_RULE),
        ({"byte_budget": 10**12 + 1}, Reason.SCOPE),
        ({"uses": 4}, Reason.SCOPE),
        ({"expires": 1_800_000_000 + 28_801}, Reason.WINDOW),
        ({"expires": 1_800_000_000}, Reason.WINDOW),
        ({"not_before": 1_800_000_001}, Reason.WINDOW),
        ({"policy_version": 2}, Reason.POLICY_VERSION),
        ({"policy_sha256": "00" * 32}, Reason.POLICY_VERSION),
    ],
)
def test_request_outside_the_policy_is_refused(
    enclave: Enclave, changes: dict[str, object], reason: Reason
) -> None:
    """A fully approved request outside the rule's bounds is refused."""
    asked = enclave.ask(**changes)
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    assert refusal(enclave, asked.sha256) is reason


def test_denied_request_stays_closed(enclave: Enclave) -> None:
    """One denial closes a request, before and after its quorum."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    note = enclave.note(asked)
    enclave.desk.deny(note, enclave.keys["sec-two"].sign(Act.DENY, note))
    assert refusal(enclave, asked.sha256) is Reason.CLOSED


def test_revoked_grant_is_refused(enclave: Enclave) -> None:
    """Revocation closes a grant that has uses left."""
    asked = enclave.ask(uses=2)
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    enclave.use(asked)
    note = enclave.note(asked)
    enclave.desk.revoke(note, enclave.keys["sec-two"].sign(Act.REVOKE, note))
    with pytest.raises(RefusedError, match="closed"):
        enclave.use(asked)


def test_revocation_signed_for_another_grant_is_refused(enclave: Enclave) -> None:
    """A revocation names its grant inside what is signed."""
    asked, other = enclave.ask(), enclave.ask(ticket="OPS-2")
    enclave.file(asked)
    enclave.file(other)
    proof = enclave.keys["sec-two"].sign(Act.REVOKE, enclave.note(other))
    with pytest.raises(SignatureError):
        enclave.desk.revoke(enclave.note(asked), proof)


def test_only_the_requester_gives_a_grant_back(enclave: Enclave) -> None:
    """Ending is the requester's act; anybody else revokes."""
    asked = enclave.ask()
    enclave.file(asked)
    note = enclave.note(asked)
    with pytest.raises(TrustError, match="only the requester"):
        enclave.desk.end(note, enclave.keys["dev-two"].sign(Act.END, note))
    enclave.desk.end(note, enclave.keys["dev-one"].sign(Act.END, note))
    assert refusal(enclave, asked.sha256) is Reason.CLOSED


def test_spent_grant_is_refused_across_two_desks(enclave: Enclave) -> None:
    """Two processes can't both spend the one use of a grant."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    other = enclave.open_desk()
    assert isinstance(other.state.decide(asked.sha256, enclave.time), Granted)
    enclave.use(asked)
    with pytest.raises(RefusedError, match="spent"):
        other.use(asked.sha256, host=asked.host, workload_sha256=asked.workload_sha256)


def forge(enclave: Enclave, *events: Used | Approved | Released) -> None:
    """Append leaves as a compromised service would: signed by its key, judged by nobody."""
    store = enclave.desk.store
    store.append([sign_envelope(statement_of(event), enclave.emitter) for event in events])
    store.publish()


def test_leaves_forged_by_the_service_that_writes_the_log_are_void(enclave: Enclave) -> None:
    """A use, an approval or a release without cause has no effect on any honest reader."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, "dev-two")
    proof = enclave.keys["dev-two"].sign(Act.APPROVE, enclave.ask(ticket="OPS-9"))
    forge(
        enclave,
        Used(enclave.time, asked.sha256, asked.host, asked.workload_sha256),
        Approved(enclave.time, asked.sha256, proof),
        Released(enclave.time, asked.sha256, asked.host, "00" * 32, "loader"),
    )
    state = enclave.open_desk().state
    case = state.case(asked.sha256)
    assert (case.uses, case.releases, len(case.approvals)) == (0, 0, 1)
    assert len(state.voids) == 3


def test_release_without_a_use_is_refused(enclave: Enclave) -> None:
    """No key goes out before a use of the grant is in the log, nor twice for one use."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    where = {"host": asked.host, "header_sha256": "00" * 32, "recipient": "loader"}
    with pytest.raises(TrustError, match="before the release"):
        enclave.desk.release(asked.sha256, **where)
    enclave.use(asked)
    enclave.desk.release(asked.sha256, **where)
    with pytest.raises(TrustError, match="before the release"):
        enclave.desk.release(asked.sha256, **where)


def test_cloned_passkey_is_refused(enclave: Enclave) -> None:
    """An authenticator counter that does not rise marks a copy."""
    key, copy = SoftPasskey(b"k"), SoftPasskey(b"k")
    enclave.carry("people.add-key", enclave.adding("dev-two", key))
    first, second = enclave.ask(), enclave.ask(ticket="OPS-2")
    enclave.file(first)
    enclave.file(second)
    enclave.desk.approve(first.sha256, key.sign(Act.APPROVE, first))
    with pytest.raises(SignatureError):
        enclave.desk.approve(second.sha256, copy.sign(Act.APPROVE, second))


@pytest.mark.parametrize("act", [Act.DENY, Act.REVOKE, Act.END])
def test_a_cloned_passkey_is_refused_whatever_was_signed_last(enclave: Enclave, act: Act) -> None:
    """Every act raises the counter, a grant given back too: a copy of before can sign none."""
    key, copy = SoftPasskey(b"k"), SoftPasskey(b"k")
    enclave.carry("people.add-key", enclave.adding("dev-one", key))
    first, second = enclave.ask(), enclave.ask(ticket="OPS-2")
    enclave.file(first)
    enclave.file(second)
    copy.counter = key.counter
    do = {Act.DENY: enclave.desk.deny, Act.REVOKE: enclave.desk.revoke, Act.END: enclave.desk.end}
    done, undone = enclave.note(first), enclave.note(second)
    do[act](done, key.sign(act, done))
    with pytest.raises(SignatureError):
        do[act](undone, copy.sign(act, undone))
    do[act](undone, key.sign(act, undone))


def test_refusal_is_logged(enclave: Enclave) -> None:
    """Every refused use is a leaf."""
    asked = enclave.ask()
    enclave.file(asked)
    before = enclave.desk.store.size
    with pytest.raises(RefusedError):
        enclave.use(asked)
    assert enclave.desk.store.size == before + 1
