"""The founding, break-glass, Cedar, lockout, and the words that an approver reads."""

from pathlib import Path

import msgspec
import pytest

from safehold.canonical import canonical
from safehold.errors import TrustError
from safehold.testing.trust import (
    CAST,
    GOVERNING,
    POLICY,
    TEAMS,
    Enclave,
    FakePager,
    person_id,
)
from safehold.trust.grants.approval_text import in_words
from safehold.trust.grants.details import RemovePerson
from safehold.trust.grants.events import Founding
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.interface import (
    Granted,
    GrantError,
    GrantRequest,
    PolicyError,
    Reason,
    Refused,
    RefusedError,
    SignedRequest,
)
from safehold.trust.grants.policy import check_achievable, load_policy
from safehold.trust.log import LogKeys, LogStore, create_log, read_keys, write_keys
from safehold.trust.people.interface import Kind, PeopleError, Roster
from safehold.trust.people.statement import Act


def empty_desk(enclave: Enclave, root: Path) -> Desk:
    """Return a desk on a new log with the enclave's keys and no founding."""
    keys = LogKeys(
        "enclave.test/log", str(enclave.log_key.verifier), (str(enclave.emitter.verifier),)
    )
    create_log(root, enclave.log_key, keys)
    return Desk(LogStore(root, enclave.log_key), enclave.emitter, lambda: enclave.time)


def test_founding_needs_every_founder(enclave: Enclave, tmp_path: Path) -> None:
    """One missing signature, or one person twice, founds nothing."""
    desk = empty_desk(enclave, tmp_path / "new")
    proofs = tuple(enclave.keys[name].sign(Act.FOUND, enclave.founding) for name in CAST)
    for some in ((), proofs[:1], proofs[:-1], (*proofs[:-1], proofs[0])):
        with pytest.raises(GrantError, match="founders"):
            desk.found(enclave.founding, some)
    desk.found(enclave.founding, proofs)
    with pytest.raises(GrantError, match="already"):
        desk.found(enclave.founding, proofs)


def test_one_founder_alone_is_refused(enclave: Enclave, tmp_path: Path) -> None:
    """An enclave is never one person's."""
    desk = empty_desk(enclave, tmp_path / "new")
    roster = Roster(persons=(enclave.person("dev-one"),), teams=TEAMS)
    alone = Founding("enclave.test/log", roster, enclave.policy_text)
    with pytest.raises(TrustError):
        desk.found(alone, (enclave.keys["dev-one"].sign(Act.FOUND, alone),))


def test_founding_of_another_log_is_refused(enclave: Enclave, tmp_path: Path) -> None:
    """A founding is for one origin, so it can't be replayed into a second log."""
    desk = empty_desk(enclave, tmp_path / "new")
    other = msgspec.structs.replace(enclave.founding, origin="other.test/log")
    proofs = tuple(enclave.keys[name].sign(Act.FOUND, other) for name in CAST)
    with pytest.raises(GrantError, match="another log"):
        desk.found(other, proofs)


def test_pinned_founding_refuses_other_founders(enclave: Enclave) -> None:
    """Who holds the log's keys can't found it again with their own people unnoticed."""
    keys = read_keys(enclave.root / "log.json")
    write_keys(enclave.root / "log.json", msgspec.structs.replace(keys, founding="00" * 32))
    with pytest.raises(GrantError, match="founded"):
        _ = enclave.open_desk().state.policy
    digest = enclave.founding_sha256()
    write_keys(enclave.root / "log.json", msgspec.structs.replace(keys, founding=digest))
    assert enclave.open_desk().state.policy.version == 1


def test_nothing_happens_before_the_founding(enclave: Enclave, tmp_path: Path) -> None:
    """A log without a founding takes no request."""
    desk = empty_desk(enclave, tmp_path / "new")
    asked = enclave.ask()
    proof = enclave.keys["dev-one"].sign(Act.REQUEST, asked)
    with pytest.raises(GrantError, match="founding"):
        desk.request(SignedRequest(asked, proof))


def test_removal_that_would_lock_everybody_out_is_refused(tmp_path: Path) -> None:
    """With three people left, none can be removed: nobody could approve anything again."""
    cast = {
        "dev-one": (Kind.HUMAN, ("t-everybody",)),
        "sec-one": (Kind.HUMAN, ("t-everybody",)),
        "sec-two": (Kind.HUMAN, ("t-everybody",)),
    }
    policy = 'version = 1\nrp_id = "localhost"\norigins = ["http://localhost:8443"]\n' + GOVERNING
    enclave = Enclave(tmp_path / "log", cast=cast, policy=policy)
    asked = enclave.ask("dev-one", "people.remove", details=RemovePerson(person_id("sec-one")))
    enclave.file(asked)
    enclave.approve(asked, "sec-two")
    with pytest.raises(RefusedError, match="put right"):
        enclave.approve(asked, "sec-one")
    assert enclave.desk.state.roster.person(person_id("sec-one")) is not None


def break_glass(enclave: Enclave, **changes: object) -> GrantRequest:
    """File sec-one's break-glass request."""
    asked = enclave.ask("sec-one", break_glass=True, **changes)
    enclave.file(asked)
    return asked


def act(enclave: Enclave, asked: GrantRequest, name: str = "sec-one") -> Granted:
    """Break the glass."""
    proof = enclave.keys[name].sign(Act.BREAK_GLASS, asked)
    return enclave.desk.break_glass(asked.sha256, proof)


def review(enclave: Enclave, asked: GrantRequest, name: str) -> None:
    """Review it."""
    note = enclave.note(asked, "looked at it")
    enclave.desk.review(note, enclave.keys[name].sign(Act.REVIEW, note))


def test_break_glass_pages_before_it_grants(enclave: Enclave) -> None:
    """One person of the rule's team acts alone, after somebody was told."""
    asked = break_glass(enclave)
    granted = act(enclave, asked)
    assert granted.break_glass
    assert len(enclave.pager.pages) == 1
    assert enclave.use(asked).break_glass


def test_break_glass_without_a_pager_is_refused(enclave: Enclave) -> None:
    """Nobody to tell, nothing to break."""
    asked = break_glass(enclave)
    desk = Desk(enclave.desk.store, enclave.emitter, lambda: enclave.time)
    with pytest.raises(GrantError, match="pager"):
        desk.break_glass(asked.sha256, enclave.keys["sec-one"].sign(Act.BREAK_GLASS, asked))
    with pytest.raises(RefusedError):
        enclave.use(asked)


class DeafPager(FakePager):
    """Reaches nobody."""

    def page(self, subject: str, detail: str) -> str:
        """Fail."""
        del subject, detail
        raise TrustError("nobody answers")


def test_break_glass_with_a_failing_pager_is_refused(enclave: Enclave) -> None:
    """If the page fails, the glass stays whole."""
    asked = break_glass(enclave)
    desk = Desk(enclave.desk.store, enclave.emitter, lambda: enclave.time, DeafPager())
    with pytest.raises(TrustError, match="nobody answers"):
        desk.break_glass(asked.sha256, enclave.keys["sec-one"].sign(Act.BREAK_GLASS, asked))
    with pytest.raises(RefusedError, match="no-approval"):
        enclave.use(asked)


def test_break_glass_of_others_is_refused(enclave: Enclave) -> None:
    """Only the requester, only of the rule's team, only by the act of its own name."""
    asked = break_glass(enclave)
    with pytest.raises(TrustError):
        act(enclave, asked, "sec-two")
    with pytest.raises(TrustError):
        enclave.desk.break_glass(asked.sha256, enclave.keys["sec-one"].sign(Act.APPROVE, asked))
    other = enclave.ask("dev-one", break_glass=True)
    enclave.file(other)
    with pytest.raises(RefusedError, match="no break-glass"):
        act(enclave, other, "dev-one")
    assert not enclave.pager.pages


def test_break_glass_of_an_ordinary_request_is_refused(enclave: Enclave) -> None:
    """A request that was not made as break-glass can't become one."""
    asked = enclave.ask("sec-one")
    enclave.file(asked)
    with pytest.raises(GrantError, match="break-glass"):
        act(enclave, asked)


def test_break_glass_is_short_and_rare(enclave: Enclave) -> None:
    """Longer than the rule's time, or a second one in a week, is refused."""
    long = break_glass(enclave, expires=enclave.time + 3601)
    with pytest.raises(RefusedError, match="3600"):
        act(enclave, long)
    act(enclave, break_glass(enclave, ticket="A"))
    with pytest.raises(RefusedError, match="a week"):
        act(enclave, break_glass(enclave, ticket="B"))


def test_break_glass_is_for_a_need_that_begins_now(enclave: Enclave) -> None:
    """A window in the days to come is no emergency, however rare; one within the rule's time is."""
    later = enclave.time + 3_601
    with pytest.raises(RefusedError, match="begins now"):
        act(enclave, break_glass(enclave, not_before=later, expires=later + 600))
    soon = enclave.time + 3_600
    act(enclave, break_glass(enclave, not_before=soon, expires=soon + 600))


def test_glass_broken_today_counts_against_a_window_of_next_week(enclave: Enclave) -> None:
    """Rarity counts breakings at the time of the breaking, not only at the window's own time."""
    act(enclave, break_glass(enclave, ticket="A"))
    other = break_glass(enclave, ticket="B")
    state, week = enclave.desk.state, 8 * 86_400
    later = state.view(other.sha256, enclave.time + week, breaking_at=enclave.time)
    assert later.break_glass_recent == 1
    assert state.view(other.sha256, enclave.time + week).break_glass_recent == 0


def test_glass_counts_for_a_week_to_the_second(enclave: Enclave) -> None:
    """A glass that was broken a week ago, and whose window ended a week ago, counts no more."""
    first = break_glass(enclave, ticket="A", expires=enclave.time + 600)
    act(enclave, first)
    other = break_glass(enclave, ticket="B")
    state, end = enclave.desk.state, first.expires + 7 * 86_400
    assert state.view(other.sha256, end - 1).break_glass_recent == 1
    assert state.view(other.sha256, end).break_glass_recent == 0
    broken = enclave.time + 7 * 86_400
    assert state.view(other.sha256, end, breaking_at=broken - 1).break_glass_recent == 1
    assert state.view(other.sha256, end, breaking_at=broken).break_glass_recent == 0


def test_only_a_broken_glass_is_reviewed(enclave: Enclave) -> None:
    """A review of an ordinary request, or of a glass that is whole, is refused."""
    plain = enclave.ask()
    enclave.file(plain)
    whole = break_glass(enclave)
    for asked in (plain, whole):
        with pytest.raises(GrantError, match="only a break-glass grant"):
            review(enclave, asked, "sec-two")
    act(enclave, whole)
    review(enclave, whole, "sec-two")


def test_a_case_is_settled_when_it_is_over_and_no_list_has_it(enclave: Enclave) -> None:
    """Open, exempting and broken cases stay at hand; closed and expired ones are packed."""
    asked = enclave.ask()
    enclave.file(asked)
    case = enclave.desk.state.case(asked.sha256)
    assert not case.settled(asked.expires - 1)
    assert case.settled(asked.expires)
    case.denied = True
    assert case.settled(enclave.time)
    case.broken_at = enclave.time
    assert not case.settled(asked.expires)


def test_break_glass_needs_two_reviews_by_others(enclave: Enclave) -> None:
    """Late reviews bar the next break-glass until two other people have looked."""
    asked = break_glass(enclave)
    act(enclave, asked)
    with pytest.raises(TrustError):
        review(enclave, asked, "sec-one")
    review(enclave, asked, "dev-one")
    with pytest.raises(TrustError):
        review(enclave, asked, "dev-one")
    enclave.time += 8 * 86_400
    assert enclave.desk.state.overdue_reviews(enclave.time) == (asked.sha256,)
    with pytest.raises(RefusedError, match="lacks its reviews"):
        act(enclave, break_glass(enclave, ticket="next"))
    review(enclave, asked, "sec-two")
    assert enclave.desk.state.overdue_reviews(enclave.time) == ()
    assert act(enclave, break_glass(enclave, ticket="after")).break_glass


def test_break_glass_never_governs_people_or_policy() -> None:
    """A policy that lets one person alone change people is refused."""
    text = POLICY + GOVERNING.replace(
        'operation = "people.enrol"',
        'operation = "people.enrol"\nbreak_glass = { team = "t-security", max_duration_s = 60 }',
    )
    with pytest.raises(PolicyError, match="one person alone"):
        load_policy(text)


CEDAR = """
cedar = '''
permit(principal, action, resource);
@id("night")
forbid(principal, action == Action::"weights.load", resource)
when { context.host like "gpu-9*" || context.byte_budget > 1000000000 };
forbid(principal, action == Action::"weights.load", resource)
unless { principal in Team::"t-everybody" };
'''
"""


def test_cedar_forbids_what_the_rules_would_grant(tmp_path: Path) -> None:
    """A full quorum is refused where the Cedar policy forbids."""
    enclave = Enclave(tmp_path / "log", policy=POLICY.replace("\n\n", CEDAR, 1) + GOVERNING)
    quorum = ("dev-two", "dev-three", "sec-one")
    fine, forbidden = enclave.ask(), enclave.ask(host="gpu-9a")
    for asked in (fine, forbidden):
        enclave.file(asked)
    assert isinstance(enclave.approve(fine, *quorum), Granted)
    decision = enclave.approve(forbidden, *quorum)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.CEDAR


def test_cedar_can_not_grant_what_the_rules_refuse(tmp_path: Path) -> None:
    """`permit` everything in Cedar still needs the quorum."""
    enclave = Enclave(
        tmp_path / "log",
        policy=POLICY.replace("\n\n", "\ncedar = 'permit(principal, action, resource);'\n\n", 1)
        + GOVERNING,
    )
    asked = enclave.ask()
    enclave.file(asked)
    decision = enclave.approve(asked, "dev-two")
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.QUORUM


def test_cedar_error_forbids(tmp_path: Path) -> None:
    """A Cedar policy that fails on this request does not permit it."""
    broken = """
cedar = '''permit(principal, action, resource);
permit(principal, action, resource) when { context.nothing };'''

"""
    enclave = Enclave(tmp_path / "log", policy=POLICY.replace("\n\n", broken, 1) + GOVERNING)
    asked = enclave.ask()
    enclave.file(asked)
    decision = enclave.approve(asked, "dev-two", "dev-three", "sec-one")
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.CEDAR


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 0"),
        ("version = 1", "version = 1\nsurprise = true"),
        ('rp_id = "localhost"', 'rp_id = ""'),
        ('origins = ["http://localhost:8443"]', "origins = []"),
        ("max_uses = 3", "max_uses = 0"),
        ("max_uses = 3", 'max_uses = "3"'),
        ('keys = ["passkey", "ssh-sk", "ssh"]', "keys = []"),
        ('operation = "weights.shred"', 'operation = "weights.load"'),
        ('operation = "policy.change"', 'operation = "policy.other"'),
        ("version = 1", "version = 1\ncedar = 'permit('"),
        ("version = 1", "version = 1\ncedar = '// nothing'"),
        ("version = 1", "version = ["),
        ('team = "t-security", count = 1', 'team = "t-development", count = 1'),
    ],
)
def test_unsafe_or_unclear_policy_files_are_refused(old: str, new: str) -> None:
    """Unknown members, empty lists, doubles and broken Cedar are one clear error each."""
    text = POLICY + GOVERNING
    assert old in text
    with pytest.raises(PolicyError):
        load_policy(text.replace(old, new, 1))


def test_policy_that_nobody_could_fulfil_is_refused(enclave: Enclave) -> None:
    """Four developers must be able to ask: three of them besides the requester is the most."""
    text = enclave.policy_text.replace('"t-development", count = 2', '"t-development", count = 4')
    with pytest.raises(PolicyError, match="can't reach"):
        check_achievable(load_policy(text), enclave.desk.state.roster)


def test_glass_that_only_a_team_of_nobody_could_break_is_refused(enclave: Enclave) -> None:
    """A team that the roster lacks is named, for breaking glass as for approving."""
    known = "break_glass = { team = "
    text = enclave.policy_text.replace(f'{known}"t-security"', f'{known}"t-securty"')
    assert text != enclave.policy_text
    with pytest.raises(PolicyError, match="unknown team t-securty"):
        check_achievable(load_policy(text), enclave.desk.state.roster)
    check_achievable(load_policy(enclave.policy_text), enclave.desk.state.roster)


def test_every_member_of_a_request_is_in_its_words(enclave: Enclave) -> None:
    """Changing any member of a request changes what the approver reads besides the digest."""
    roster = enclave.desk.state.roster
    asked = enclave.ask()
    changes: dict[str, object] = {
        "enclave": "a" * 64,
        "requester": person_id("dev-two"),
        "purpose": "other",
        "ticket": "other",
        "operation": "weights.shred",
        "resource": msgspec.structs.replace(asked.resource, parts=("one", "two")),
        "host": "other",
        "workload_sha256": "cd" * 32,
        "byte_budget": 7,
        "uses": 2,
        "not_before": asked.not_before + 1,
        "expires": asked.expires + 1,
        "nonce": "f" * 32,
        "policy_version": 9,
        "policy_sha256": "e" * 64,
        "break_glass": True,
        "details": RemovePerson(person_id("sec-two")),
    }
    assert set(changes) == set(GrantRequest.__struct_fields__)
    plain = [pair for pair in in_words(asked, roster) if pair[0] != "Request (SHA-256)"]
    for name, value in changes.items():
        other = msgspec.structs.replace(asked, **{name: value})
        assert [p for p in in_words(other, roster) if p[0] != "Request (SHA-256)"] != plain, name


@pytest.mark.parametrize(
    "text", ["two\nlines", "turned \u202eround", "bell\x07", "", "zero\u200bwidth", "x" * 401]
)
def test_text_that_could_deceive_a_reader_is_refused(enclave: Enclave, text: str) -> None:
    """Line breaks, direction marks and invisible characters can't be in a request."""
    asked = msgspec.structs.replace(enclave.ask(), purpose=text)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(canonical(asked), type=GrantRequest)


def test_refused_enrolment_names_the_reason(enclave: Enclave) -> None:
    """A roster change that can't be made is refused at the moment it would take effect."""
    with pytest.raises((PeopleError, RefusedError)):
        enclave.carry("people.remove", RemovePerson("p-" + "0" * 16))
