"""Time from more than one clock: no fast host freezes what protects, and there is a way back."""

from pathlib import Path

import pytest

from safehold.errors import TrustError
from safehold.testing.trust import Enclave, person_id
from safehold.trust.clock import CORRECT, SKEW_S
from safehold.trust.grants.details import CorrectClock, Details, NoDetails, RemovePerson
from safehold.trust.grants.events import Alarm, Requested
from safehold.trust.grants.interface import (
    GrantRequest,
    PolicyError,
    Reason,
    Refused,
    RefusedError,
    SignedRequest,
)
from safehold.trust.grants.policy import check_governing, load_policy
from safehold.trust.log.interface import LogError
from safehold.trust.log.log_entries import Record
from safehold.trust.log.note import Algorithm, SigningKey
from safehold.trust.log.witness import Witness, create_witness
from safehold.trust.people.statement import Act

YEARS_S = 3 * 365 * 86_400
QUORUM = ("dev-two", "dev-three", "sec-one")


def poison(enclave: Enclave, ahead: int = YEARS_S) -> None:
    """Have a host with a fast clock file an honest request."""
    enclave.time += ahead
    enclave.file(enclave.ask("dev-four"))
    enclave.time -= ahead


def granted(enclave: Enclave) -> GrantRequest:
    """Return a request that the quorum has approved."""
    asked = enclave.ask()
    enclave.file(asked)
    enclave.approve(asked, *QUORUM)
    return asked


def correct(enclave: Enclave, requester: str = "dev-one") -> GrantRequest:
    """Ask to set the log's time back to now."""
    change = CorrectClock(wrong=enclave.desk.state.last_time, right=enclave.time)
    asked = enclave.ask(requester, CORRECT, details=change)
    enclave.file(asked)
    return asked


def test_a_fast_clock_does_not_freeze_revocation(enclave: Enclave) -> None:
    """A leaf of years ahead stops requests, but no revocation, denial, end, alarm or record."""
    asked, other, third = granted(enclave), enclave.ask("dev-two"), enclave.ask("dev-three")
    enclave.file(other)
    enclave.file(third)
    poison(enclave)
    with pytest.raises(TrustError, match="correct-clock"):
        enclave.file(enclave.ask(nonce="ab" * 16))
    note = enclave.note(asked)
    enclave.desk.revoke(note, enclave.keys["sec-two"].sign(Act.REVOKE, note))
    note = enclave.note(other)
    enclave.desk.deny(note, enclave.keys["sec-two"].sign(Act.DENY, note))
    note = enclave.note(third)
    enclave.desk.end(note, enclave.keys["dev-three"].sign(Act.END, note))
    enclave.desk.alarm("clock", "fast", "gpu-2 is ahead")
    enclave.desk.record(Record(time=enclave.time, kind="note", facts={"text": "x"}, digests={}))
    state = enclave.desk.state
    assert state.case(asked.sha256).revoked
    assert state.case(other.sha256).denied
    assert state.case(third.sha256).ended
    assert state.voids == []


def test_records_of_other_parts_do_not_set_the_logs_time(enclave: Enclave) -> None:
    """A note from a fast clock (the finding's second case) stops nobody."""
    asked = granted(enclave)
    enclave.desk.record(
        Record(time=enclave.time + YEARS_S, kind="note", facts={"text": "x"}, digests={})
    )
    assert enclave.use(asked).request_sha256 == asked.sha256


def test_a_step_back_within_the_skew_stops_nobody(enclave: Enclave) -> None:
    """An NTP step back is survived at both ends; its leaves count as of the log's time."""
    asked = granted(enclave)
    newest = enclave.desk.state.last_time
    enclave.time -= SKEW_S
    enclave.use(asked)
    later = enclave.ask("dev-two")
    enclave.file(later)
    assert enclave.desk.state.last_time == newest
    assert enclave.desk.state.case(later.sha256).requested_at == newest


def test_the_skew_gives_no_expired_grant_back(enclave: Enclave) -> None:
    """A clock a little behind counts as the log's time, so what expired stays expired."""
    asked = granted(enclave)
    enclave.time = asked.expires + 10
    enclave.file(enclave.ask("dev-two"))
    enclave.time = asked.expires - 10
    decision = enclave.desk.state.decide(asked.sha256, enclave.time)
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.WINDOW


def test_two_others_set_a_poisoned_clock_back(enclave: Enclave) -> None:
    """The way back: one asks, two approve, and requests and uses go on."""
    asked = granted(enclave)
    poison(enclave)
    with pytest.raises(RefusedError, match="clock"):
        enclave.use(asked)
    change = correct(enclave)
    enclave.approve(change, "dev-two")
    assert enclave.desk.state.last_time > enclave.time
    enclave.approve(change, "sec-one")
    assert enclave.desk.state.last_time == enclave.time
    enclave.use(asked)
    assert enclave.open_desk().state.voids == []


def test_one_person_does_not_set_the_logs_time(enclave: Enclave) -> None:
    """The requester alone, twice over or by a service, sets nothing back."""
    poison(enclave)
    change = correct(enclave)
    with pytest.raises(TrustError, match="own request"):
        enclave.approve(change, "dev-one")
    robot = correct(enclave, "robot")
    enclave.approve(robot, "dev-one", "dev-two")
    assert enclave.desk.state.last_time > enclave.time + SKEW_S


@pytest.mark.parametrize("shift", [0, 1, 60])
def test_the_logs_time_is_never_set_forward(enclave: Enclave, shift: int) -> None:
    """A correction that is none is refused when it would take effect."""
    last = enclave.desk.state.last_time
    change = CorrectClock(wrong=last, right=last + shift)
    asked = enclave.ask("dev-one", CORRECT, details=change)
    enclave.file(asked)
    enclave.approve(asked, "dev-two")
    with pytest.raises(RefusedError, match="set the log's time back"):
        enclave.approve(asked, "sec-one")


@pytest.mark.parametrize("details", [NoDetails(), RemovePerson(person_id("sec-two"))])
def test_nothing_else_passes_as_a_correction(enclave: Enclave, details: Details) -> None:
    """The operation that any clock may bring takes its own details alone."""
    asked = enclave.ask("dev-one", CORRECT, details=details)
    enclave.file(asked)
    enclave.approve(asked, "dev-two", "sec-one")
    assert enclave.desk.state.roster.person(person_id("sec-two")) is not None
    assert enclave.desk.state.case(asked.sha256).uses == 0


def test_a_witness_does_not_cosign_a_leaf_from_the_future(enclave: Enclave, tmp_path: Path) -> None:
    """The witness is the log's second clock; a leaf within the skew is cosigned."""
    create_witness(tmp_path / "w")
    witness = Witness(tmp_path / "w", SigningKey.generate("w", Algorithm.COSIGNATURE))
    store, key = enclave.desk.store, enclave.log_key.verifier
    poison(enclave, SKEW_S)
    witness.cosign_copy(store.source, key, enclave.time)
    poison(enclave, SKEW_S + 1)
    with pytest.raises(LogError, match="ahead of this witness's clock"):
        witness.cosign_copy(store.source, key, enclave.time)


def test_an_old_leaf_is_void_whoever_appends_it(enclave: Enclave) -> None:
    """A reader voids a request from before the log's time, and takes an alarm of that time in."""
    asked = enclave.ask()
    proof = enclave.keys["dev-one"].sign(Act.REQUEST, asked)
    old = enclave.time - SKEW_S - 1
    state = enclave.desk.state
    assert not state.apply(99, Requested(time=old, signed=SignedRequest(asked, proof)))
    assert state.apply(100, Alarm(time=old, subject="s", kind="k", detail="d"))


@pytest.mark.parametrize(
    "operation",
    [
        "people.enrol",
        "people.remove",
        "people.add-key",
        "people.remove-key",
        "people.assign",
        "people.add-team",
        "policy.change",
    ],
)
def test_a_policy_under_which_two_decide_who_may_approve_is_refused(
    tmp_path: Path, operation: str
) -> None:
    """A rule of one approval for what changes who may approve is refused, at founding too."""
    text = Enclave(tmp_path / "good").policy_text
    head, tail = text.split(f'operation = "{operation}"\n')
    weak = f'{head}operation = "{operation}"\n{tail.replace("count = 2", "count = 1", 1)}'
    with pytest.raises(PolicyError, match="at least 2 approvals"):
        check_governing(load_policy(weak))
    with pytest.raises(PolicyError, match="at least 2 approvals"):
        Enclave(tmp_path / "weak", policy=weak)
