"""Whatever people, thieves and a lying log writer do, no key goes out without a full quorum.

A machine of random histories against the real rules, beside a small model that counts persons. It
runs the state and the decision in memory (no disk), so a history takes milliseconds. `make test`
runs 150 histories, `make soak` 100,000 (or SAFEHOLD_SOAK_HISTORIES).
"""

import os
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from safehold.testing.trust import CAST, GOVERNING, POLICY, TEAMS, SoftSsh, person_id
from safehold.trust.canonical import sha256_hex
from safehold.trust.grants.details import AddKey, AssignPerson, NoDetails, RemovePerson
from safehold.trust.grants.events import (
    Approved,
    Denied,
    Event,
    Founded,
    Founding,
    Note,
    Released,
    Requested,
    Revoked,
    Used,
)
from safehold.trust.grants.interface import GrantRequest, Resource, SignedRequest
from safehold.trust.grants.state import TrustState
from safehold.trust.people.interface import Kind, Person, Proof, Roster
from safehold.trust.people.statement import Act

HISTORIES = int(os.environ.get("SAFEHOLD_SOAK_HISTORIES", "100000"))
START = 1_800_000_000
POLICY_TEXT = POLICY + GOVERNING
KEYS = {name: SoftSsh(name.encode()) for name in CAST}
SECOND = {name: SoftSsh(b"second " + name.encode()) for name in CAST}
HUMANS = [name for name, (kind, _) in CAST.items() if kind is Kind.HUMAN]
names = st.sampled_from(sorted(CAST))
TEAM_SETS = (("t-development",), ("t-security",), ("t-everybody",), ("t-serving", "t-security"))


def _founded() -> Founded:
    persons = tuple(
        Person(person_id(name), name, kind, (), teams, (KEYS[name].key,))
        for name, (kind, teams) in CAST.items()
    )
    founding = Founding("soak.test", Roster(persons=persons, teams=TEAMS), POLICY_TEXT)
    proofs = tuple(KEYS[name].sign(Act.FOUND, founding) for name in HUMANS)
    return Founded(time=START, founding=founding, proofs=proofs)


FOUNDED = TrustState("soak.test")
assert FOUNDED.apply(0, _founded())


def _founded_state() -> TrustState:
    """Return a fresh state after the founding, whose signatures were verified once."""
    state = TrustState("soak.test")
    state.roster, state._policy, state.last_time = FOUNDED.roster, FOUNDED.policy, START
    return state


class Model:
    """What an honest auditor would write down: who really signed what, and who is who now."""

    def __init__(self) -> None:
        self.enrolled = set(CAST)
        self.teams = {name: teams for name, (_, teams) in CAST.items()}
        self.signed: dict[str, set[str]] = {}
        self.closed: set[str] = set()
        self.uses: dict[str, int] = {}

    def of_team(self, name: str, team: str) -> bool:
        """Tell whether a person is in a team; Serving is inside Development."""
        teams = set(self.teams[name])
        if "t-serving" in teams:
            teams.add("t-development")
        return team in teams

    def has_quorum(self, request: GrantRequest) -> bool:
        """Count persons by hand: two of development and another one of security."""
        able = {
            name
            for name in self.signed.get(request.sha256, set())
            if name in self.enrolled
            and CAST[name][0] is Kind.HUMAN
            and person_id(name) != request.requester
        }
        for guard in able:
            others = [one for one in able if one != guard and self.of_team(one, "t-development")]
            if self.of_team(guard, "t-security") and len(others) >= 2:
                return True
        return False


class QuorumMachine(RuleBasedStateMachine):
    """Random acts of honest people, thieves of keys, and a log writer that appends anything."""

    requests = Bundle("requests")

    @initialize()
    def found(self) -> None:
        """Begin with the founded enclave."""
        self.state = _founded_state()
        self.model = Model()
        self.time = START
        self.index = 0
        self.by_id: dict[str, GrantRequest] = {}

    def _log(self, event: Event) -> bool:
        self.index += 1
        return self.state.apply(self.index, event)

    @rule(target=requests, name=names, hours=st.integers(0, 9), uses=st.integers(1, 3))
    def ask(self, name: str, hours: int, uses: int) -> object:
        """Somebody asks to load weights."""
        request = GrantRequest(
            requester=person_id(name),
            purpose="soak",
            ticket="S-1",
            operation="weights.load",
            resource=Resource("model", "brewer", "1", ("*",)),
            host="gpu-1",
            workload_sha256="ab" * 32,
            byte_budget=1,
            uses=uses,
            not_before=self.time,
            expires=self.time + hours * 3600,
            nonce=sha256_hex(str(self.index).encode())[:32],
            policy_version=1,
            policy_sha256=sha256_hex(POLICY_TEXT.encode()),
            details=NoDetails(),
        )
        proof = KEYS[name].sign(Act.REQUEST, request)
        if not self._log(Requested(self.time, SignedRequest(request, proof))):
            return multiple()
        self.by_id[request.sha256] = request
        return request

    @rule(request=requests, name=names, second=st.booleans())
    def approve(self, request: GrantRequest, name: str, second: bool) -> None:  # noqa: FBT001
        """Somebody, anybody, approves with one of their keys."""
        key = SECOND[name] if second else KEYS[name]
        if self._log(Approved(self.time, request.sha256, key.sign(Act.APPROVE, request))):
            self.model.signed.setdefault(request.sha256, set()).add(name)

    @rule(request=requests, other=requests, name=names, act=st.sampled_from(list(Act)))
    def steal(self, request: GrantRequest, other: GrantRequest, name: str, act: Act) -> None:
        """A thief replays a signature of another act or for another request."""
        if act is Act.APPROVE and other.sha256 == request.sha256:
            return
        proof: Proof = KEYS[name].sign(act, other)
        assert not self._log(Approved(self.time, request.sha256, proof))

    @rule(request=requests, name=names, seconds=st.integers(1, 100_000))
    def alter(self, request: GrantRequest, name: str, seconds: int) -> None:
        """Somebody files a longer copy of a request that is not their own."""
        longer = msgspec.structs.replace(request, expires=request.expires + seconds)
        if person_id(name) != request.requester:
            proof = KEYS[name].sign(Act.REQUEST, longer)
            assert not self._log(Requested(self.time, SignedRequest(longer, proof)))

    @rule(request=requests, name=st.sampled_from(HUMANS), revoke=st.booleans())
    def close(self, request: GrantRequest, name: str, revoke: bool) -> None:  # noqa: FBT001
        """Somebody denies or revokes."""
        note = Note(request.sha256, "soak")
        act = Act.REVOKE if revoke else Act.DENY
        event = (Revoked if revoke else Denied)(self.time, note, KEYS[name].sign(act, note))
        if self._log(event):
            self.model.closed.add(request.sha256)

    @rule(seconds=st.integers(0, 20_000))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.time += seconds

    def _govern(self, operation: str, details: object, effect: Callable[[], None]) -> None:
        """Two enrolled people make a change; the model follows if the rules let it happen."""
        able = [name for name in HUMANS if name in self.model.enrolled]
        if len(able) < 2:
            return
        request = msgspec.structs.replace(
            self._base(able[0]), operation=operation, details=details, byte_budget=0
        )
        proof = KEYS[able[0]].sign(Act.REQUEST, request)
        self._log(Requested(self.time, SignedRequest(request, proof)))
        digest = request.sha256
        use = Used(self.time, digest, request.host, request.workload_sha256)
        assert not self._log(use)
        self._log(Approved(self.time, digest, KEYS[able[1]].sign(Act.APPROVE, request)))
        if self._log(use):
            effect()

    def _base(self, name: str) -> GrantRequest:
        return GrantRequest(
            requester=person_id(name),
            purpose="soak",
            ticket="S-2",
            operation="people.assign",
            resource=Resource("enclave", "trust", "1", ("*",)),
            host="log",
            workload_sha256="cd" * 32,
            byte_budget=0,
            uses=1,
            not_before=self.time,
            expires=self.time + 60,
            nonce=sha256_hex(f"g{self.index}".encode())[:32],
            policy_version=1,
            policy_sha256=sha256_hex(POLICY_TEXT.encode()),
        )

    @rule(name=names)
    def remove(self, name: str) -> None:
        """Somebody is removed."""
        self._govern(
            "people.remove",
            RemovePerson(person_id(name)),
            lambda: self.model.enrolled.discard(name),
        )

    @rule(name=names, teams=st.sampled_from(TEAM_SETS))
    def move(self, name: str, teams: tuple[str, ...]) -> None:
        """Somebody changes teams."""
        self._govern(
            "people.assign",
            AssignPerson(person_id(name), (), teams),
            lambda: self.model.teams.update({name: teams}),
        )

    @rule(name=names)
    def second_key(self, name: str) -> None:
        """Somebody gets a second key."""
        self._govern("people.add-key", AddKey(person_id(name), SECOND[name].key), lambda: None)

    @rule(request=requests, back=st.integers(0, 5000), host=st.sampled_from(["gpu-1", "gpu-2"]))
    def use(self, request: GrantRequest, back: int, host: str) -> None:
        """The log's writer appends a use and a release, whatever the rules say."""
        now = self.time - back
        legal = (
            now >= self.state.last_time
            and host == request.host
            and request.sha256 not in self.model.closed
            and request.not_before <= now < request.expires
            and self.model.uses.get(request.sha256, 0) < request.uses
            and any(
                person_id(name) == request.requester and name in self.model.enrolled
                for name in CAST
            )
            and self.model.has_quorum(request)
        )
        used = self._log(Used(now, request.sha256, host, request.workload_sha256))
        assert not used or legal, "a use without a full quorum of distinct other persons"
        if used:
            self.model.uses[request.sha256] = self.model.uses.get(request.sha256, 0) + 1
        self._log(Released(max(now, self.state.last_time), request.sha256, host, "0" * 64, "x"))

    @invariant()
    def releases_never_exceed_uses(self) -> None:
        """No key goes out but for a use that the model allowed."""
        for digest in getattr(self, "by_id", {}):
            case = self.state.cases[digest]
            assert case.releases <= case.uses == self.model.uses.get(digest, 0)


def _run(histories: int, steps: int) -> None:
    run_state_machine_as_test(
        QuorumMachine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_no_key_release_without_a_full_quorum() -> None:
    """Over random histories every release has two of development and one of security, others."""
    _run(150, 25)


@pytest.mark.soak
def test_no_key_release_without_a_full_quorum_for_hours() -> None:
    """The same over 100,000 histories and more."""
    _run(HISTORIES, 15)


def test_the_machine_reaches_releases() -> None:
    """The model grants when it should: a soak in which nothing is ever released proves nothing."""
    machine = QuorumMachine()
    machine.found()
    asked = machine.ask("dev-one", 1, 1)
    assert isinstance(asked, GrantRequest)
    for name in ("dev-two", "dev-four", "sec-one"):
        machine.approve(asked, name, second=False)
    machine.use(asked, 0, "gpu-1")
    assert machine.state.cases[asked.sha256].releases == 1
