"""One random history of an enclave, beside a small model that counts persons by hand.

A history is a list of four-byte operations. People ask, approve, remove, enrol, re-key and change
policy; thieves replay and alter signatures; the log's writer appends whatever it likes. The model
believes nothing that the rules said: it knows whose keys really signed what. After each use that
the writer tries, rules and model must agree, both ways.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from functools import lru_cache
from itertools import combinations

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.testing.trust import CAST, GOVERNING, POLICY, TEAMS, SoftSsh, person_id
from safehold.trust.clock import CORRECT, SKEW_S
from safehold.trust.grants.details import (
    AddKey,
    AssignPerson,
    ChangePolicy,
    CorrectClock,
    Details,
    EnrolPerson,
    NoDetails,
    RemoveKey,
    RemovePerson,
)
from safehold.trust.grants.events import (
    Approved,
    BrokeGlass,
    DecisionNote,
    Denied,
    Ended,
    Event,
    Founded,
    Founding,
    Released,
    Requested,
    Reviewed,
    Revoked,
    Used,
)
from safehold.trust.grants.holding import Change, holding_of
from safehold.trust.grants.interface import GrantRequest, Resource, SignedRequest
from safehold.trust.grants.policy import load_policy
from safehold.trust.grants.state import TrustState
from safehold.trust.people.interface import Kind, Person, Proof, Roster
from safehold.trust.people.statement import Act

ORIGIN = "soak.test/log"
START = 1_800_000_000
WEEK_S = 7 * 86_400
AHEAD_S = 10**7
TEXT = POLICY + GOVERNING
_TWO_ONE = '{ team = "t-development", count = 2 }, { team = "t-security", count = 1 }'
_ONE_ONE = '{ team = "t-development", count = 1 }, { team = "t-security", count = 1 }'
# Version: the text, and how many of development and of security it wants for the weights.
POLICIES = {
    1: (TEXT, 2, 1),
    2: (TEXT.replace("version = 1", "version = 2").replace(_TWO_ONE, _ONE_ONE), 1, 1),
    3: (TEXT.replace("version = 1", "version = 3"), 2, 1),
}
DIGESTS = {version: sha256_hex(text.encode()) for version, (text, _, _) in POLICIES.items()}
NEW = {"new-one": ("t-development",), "new-two": ("t-security",)}
NAMES = (*CAST, *NEW)
KIND = {**{name: kind for name, (kind, _) in CAST.items()}, **dict.fromkeys(NEW, Kind.HUMAN)}
TEAM_SETS = (("t-development",), ("t-security",), ("t-everybody",), ("t-serving", "t-security"))
FIRST = {name: SoftSsh(name.encode()) for name in NAMES}
SECOND = {name: SoftSsh(b"second " + name.encode()) for name in NAMES}
GROUPS = (
    ("dev-two", "dev-four", "sec-one"),
    ("dev-one", "dev-three", "sec-two"),
    ("sec-one", "sec-two", "dev-two"),
    ("dev-two", "dev-two", "sec-one"),
    ("robot", "dev-two", "sec-one"),
    ("dev-three", "dev-four", "sec-two"),
    ("dev-two", "dev-three", "sec-one"),
    ("dev-three", "dev-four", "keyd"),
    ("dev-two", "new-one", "new-two"),
    ("dev-two", "dev-three", "sec-two", "sec-one"),
)


class Signer:
    """Signs with soft keys; the same statement is signed once (Ed25519 is deterministic)."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Act, Hashable], Proof] = {}

    def sign(self, key: SoftSsh, act: Act, document: Hashable) -> Proof:
        """Return the key's signature of an act."""
        name = (key.key.key_id, act, document)
        if name not in self._made:
            if len(self._made) > 100_000:
                self._made.clear()
            self._made[name] = key.sign(act, document)
        return self._made[name]


@lru_cache(maxsize=50_000)
def digest(request: GrantRequest) -> str:
    """Return a request's id."""
    return request.sha256


def _founding() -> Founding:
    persons = tuple(
        Person(person_id(name), name, kind, (), teams, (FIRST[name].key,))
        for name, (kind, teams) in CAST.items()
    )
    return Founding(ORIGIN, Roster(persons=persons, teams=TEAMS), TEXT)


FOUNDING = _founding()
FOUNDING_SHA256 = sha256_hex(canonical(FOUNDING))


# A second enclave of the same people, under the same policy: another founding.
TWIN = msgspec.structs.replace(FOUNDING, origin="twin.test/log")
TWIN_SHA256 = sha256_hex(canonical(TWIN))


def state_of(founding: Founding) -> TrustState:
    """Return the state just after a founding whose signatures were verified once."""
    state = TrustState(founding.origin)
    state.roster, state._policy = founding.roster, load_policy(founding.policy_text)
    state.founding_sha256 = TWIN_SHA256 if founding is TWIN else FOUNDING_SHA256
    state.last_time = START
    return state


def founded(signer: Signer) -> Founded:
    """Return the founding leaf of the cast."""
    founding = FOUNDING
    return Founded(
        time=START,
        founding=founding,
        proofs=tuple(signer.sign(FIRST[name], Act.FOUND, founding) for name in CAST),
    )


class Case:
    """What really happened to one request."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.signed: dict[str, str] = {}  # person: id of the key they approved with
        self.key = ""  # id of the key that signed the request
        self.at = 0  # when the log took the request, by the log's time
        self.closed = False
        self.uses = 0
        self.releases = 0
        self.broken: tuple[int, str] | None = None
        self.reviewers: set[str] = set()


class Model:
    """What an honest auditor would write down: who signed what, and who is who now."""

    def __init__(self) -> None:
        self.teams = {name: teams for name, (_, teams) in CAST.items()}
        self.keys = {name: {FIRST[name].key.key_id} for name in CAST}
        self.gone: set[str] = set()
        self.burnt: set[str] = set()
        self.version = 1
        self.cases: dict[str, Case] = {}
        self.last = START

    def human(self, name: str) -> bool:
        """Tell whether an enrolled human has this name."""
        return name in self.keys and KIND[name] is Kind.HUMAN

    def in_team(self, name: str, team: str) -> bool:
        """Tell whether a person is in a team; Serving lies inside Development."""
        teams = set(self.teams[name])
        return team in teams or (team == "t-development" and "t-serving" in teams)

    def quorum(self, request: GrantRequest, case: Case) -> bool:
        """Count distinct other humans by trying every choice of them."""
        able = [
            name
            for name, key in case.signed.items()
            if self.human(name) and key in self.keys[name] and name != case.by
        ]
        if request.operation != "weights.load":
            # What changes who may approve, or the log's time: two, and one more for a service.
            return len(able) >= (2 if self.human(case.by) else 3)
        _, of_development, of_security = POLICIES[self.version]
        # The human who holds a service's key may be one of them: one more than the rule has.
        if not self.human(case.by) and len(able) <= of_development + of_security:
            return False
        guards = [name for name in able if self.in_team(name, "t-security")]
        makers = [name for name in able if self.in_team(name, "t-development")]
        return any(
            len([name for name in makers if name not in chosen]) >= of_development
            for chosen in combinations(guards, of_security)
        )

    def glass(self, request: GrantRequest, case: Case, now: int) -> bool:
        """Tell whether one person alone may: of security, rarely, no review overdue."""
        others = [
            (one.broken[0], one)
            for name, one in self.cases.items()
            if one.broken is not None and name != digest(request)
        ]
        return (
            case.broken is not None
            and self.human(case.by)
            and case.broken[1] in self.keys[case.by]
            and self.in_team(case.by, "t-security")
            and not any(at > now - WEEK_S for at, _ in others)
            and not any(now > at + 86_400 and len(one.reviewers) < 2 for at, one in others)
        )

    def holds(self, request: GrantRequest, now: int, host: str) -> bool:
        """Say what the rules must say of a use."""
        case = self.cases[digest(request)]
        corrects = request.operation == CORRECT
        if not corrects and now < self.last <= now + SKEW_S:
            now = self.last
        return (
            (corrects or now >= self.last)
            and case.at <= now
            and host == request.host
            and request.policy_version == self.version
            and request.policy_sha256 == DIGESTS[self.version]
            and case.by in self.keys
            and case.key in self.keys[case.by]
            and request.not_before <= now < request.expires
            and request.expires - request.not_before <= 28_800
            and not case.closed
            and case.uses < request.uses
            and (
                self.glass(request, case, now)
                if request.break_glass
                else self.quorum(request, case)
            )
        )


class History:
    """Runs operations against a log; `append` returns whether a leaf took effect."""

    def __init__(
        self, append: Callable[[Event], bool], signer: Signer, counts: Counter[str]
    ) -> None:
        self._append = append
        self._signer = signer
        self._counts = counts
        self.model = Model()
        self.time = START
        self.asked: list[GrantRequest] = []
        self.leaves: list[Event] = []
        self._nonce = 0
        self._twin: TrustState | None = None

    def run(self, operations: list[bytes]) -> None:
        """Do everything; raises AssertionError where the rules and the model part."""
        kind, who, what, how = operations[0]
        self.ask(NAMES[who % len(NAMES)], what, how)
        if kind % 2:  # most of what can go wrong comes after the approvals
            self.gather("nobody", 0, kind // 2)
            if how % 16 == 7:
                self.policy("nobody", 1, 0)
        elif kind % 8 == 4:  # and after a glass, or two
            for glass, name in enumerate(("sec-one", "sec-two")[: 1 + what % 2]):
                if glass and what % 4 == 3:
                    self.time += 8 * 86_400  # the first one's reviews are overdue
                self.ask(name, 0, 4)
                self.smash(name, glass, 1)
        for kind, who, what, how in operations[1:]:
            operation = OPERATIONS[kind % len(OPERATIONS)]
            self._counts[operation.__name__] += 1
            operation(self, NAMES[who % len(NAMES)], what, how)

    def log(self, event: Event, *, corrects: bool = False) -> bool:
        """Append a leaf, whatever it is."""
        taken = self._append(event)
        if taken:
            if not corrects:
                self.model.last = max(self.model.last, event.time)
            self.leaves.append(event)
        return taken

    def sign(self, name: str, act: Act, document: Hashable, *, second: bool = False) -> Proof:
        """Sign with one of somebody's keys."""
        return self._signer.sign((SECOND if second else FIRST)[name], act, document)

    def pick(self, what: int) -> GrantRequest | None:
        """Choose one of the requests so far."""
        return self.asked[what % len(self.asked)] if self.asked else None

    def request(self, name: str, operation: str, **changes: object) -> GrantRequest:
        """Return a request of the policy in force."""
        self._nonce += 1
        request = GrantRequest(
            enclave=FOUNDING_SHA256,
            requester=person_id(name),
            purpose="soak",
            ticket="S-1",
            operation=operation,
            resource=Resource("model", "brewer", "1", ("*",)),
            host="gpu-1",
            workload_sha256="ab" * 32,
            byte_budget=0,
            uses=1,
            not_before=self.time,
            expires=self.time + 3600,
            nonce=f"{self._nonce:032x}",
            policy_version=self.model.version,
            policy_sha256=DIGESTS[self.model.version],
            details=NoDetails(),
        )
        return msgspec.structs.replace(request, **changes)

    def file(self, name: str, request: GrantRequest) -> bool:
        """Sign and log a request as somebody."""
        proof = self.sign(name, Act.REQUEST, request)
        corrects = request.operation == CORRECT
        if not self.log(Requested(self.time, SignedRequest(request, proof)), corrects=corrects):
            return False
        case = self.model.cases[digest(request)] = Case(name)
        case.at = self.time if corrects else max(self.time, self.model.last)
        case.key = proof.key_id
        return True

    def put_approval(self, name: str, request: GrantRequest, *, second: bool = False) -> bool:
        """Sign and log an approval; the model notes that this person really signed."""
        proof = self.sign(name, Act.APPROVE, request, second=second)
        corrects = request.operation == CORRECT
        taken = self.log(Approved(self.time, digest(request), proof), corrects=corrects)
        if taken:
            self.model.cases[digest(request)].signed[name] = proof.key_id
        return taken

    def try_use(self, request: GrantRequest, now: int, host: str) -> bool:
        """Append a use and a release; they count exactly when the model says so."""
        case = self.model.cases[digest(request)]
        legal = self.model.holds(request, now, host)
        used = self.log(
            Used(now, digest(request), host, request.workload_sha256),
            corrects=request.operation == CORRECT,
        )
        assert not used or legal, "a use without a full quorum of distinct other persons"
        if request.operation == "weights.load":
            assert used == legal, "a lawful use was refused"
        case.uses += used
        if request.operation == "weights.load":
            at = max(now, self.model.last)
            released = self.log(Released(at, digest(request), request.host, "0" * 64, "x"))
            owed = not case.closed and case.releases < case.uses
            assert released == owed, "a key went out without a use of its own"
            case.releases += released
            if used:
                self._counts["glass uses" if request.break_glass else "quorum uses"] += 1
            self._counts["releases"] += released
        return used

    # ---- honest acts and slips -----------------------------------------------------------

    def ask(self, name: str, what: int, how: int) -> None:
        """Somebody asks to load weights; some requests are for break-glass."""
        request = self.request(
            name,
            "weights.load",
            uses=1 + what % 2,
            expires=self.time + (28_800, 28_800, 28_801, 3600, 3600, 0, 3600, 28_800)[how % 8],
            break_glass=how % 8 == 4,
        )
        if self.file(name, request):
            self.asked.append(request)

    def approve(self, name: str, what: int, how: int) -> None:
        """Somebody, anybody, approves, with either of their keys."""
        request = self.pick(what)
        if request is not None:
            self.put_approval(name, request, second=how % 2 == 1)

    def gather(self, name: str, what: int, how: int) -> None:
        """Several approve one after the other; one signs again with the second key."""
        request = self.pick(what)
        if request is not None:
            for one in GROUPS[how % len(GROUPS)]:
                self.put_approval(one, request)
            held = self.model.cases[digest(request)].signed.get(name)
            if held is not None and held in self.model.keys.get(name, ()):
                assert not self.put_approval(name, request, second=True), "two keys, one person"

    def close(self, name: str, what: int, how: int) -> None:
        """Somebody denies, revokes or gives back: between approval and use, too."""
        request = self.pick(what)
        if request is None:
            return
        note = DecisionNote(digest(request), "soak")
        kind, act = ((Denied, Act.DENY), (Revoked, Act.REVOKE), (Ended, Act.END))[how % 3]
        taken = self.log(kind(self.time, note, self.sign(name, act, note)))
        if kind is Ended:
            assert not taken or name == self.model.cases[digest(request)].by
        else:
            assert not taken or self.model.human(name)
        self.model.cases[digest(request)].closed |= taken

    def wait(self, name: str, what: int, how: int) -> None:
        """Time passes: minutes, hours or days."""
        del name
        self.time += (what + 1) * (7, 60, 600, 9000)[how % 4]

    def use(self, name: str, what: int, how: int) -> None:
        """The writer appends a use: in order, on another host, or with the clock set back."""
        del name
        request = self.pick(what)
        if request is not None:
            back = (0, 0, 0, 1, 3600, 0, 0, 0)[how % 8]
            self.try_use(request, self.time - back, "gpu-2" if how % 8 == 5 else "gpu-1")

    # ---- thieves -------------------------------------------------------------------------

    def steal(self, name: str, what: int, how: int) -> None:
        """A thief takes a signature of another act, or for another request, for an approval."""
        request, other = self.pick(what), self.pick(how)
        if request is None or other is None:
            return
        act = list(Act)[how % len(Act)]
        if act is Act.APPROVE and digest(other) == digest(request):
            return
        proof = self.sign(name, act, other)
        assert not self.log(Approved(self.time, digest(request), proof)), "a stolen signature"

    def replay(self, name: str, what: int, how: int) -> None:
        """The writer appends an old request or approval once more."""
        del name
        old = [one for one in self.leaves if isinstance(one, Requested | Approved | BrokeGlass)]
        if old:
            leaf = old[what % len(old)]
            again = msgspec.structs.replace(leaf, time=leaf.time if how % 2 else self.time)
            assert not self.log(again), "a replayed leaf"

    def alter(self, name: str, what: int, how: int) -> None:
        """A thief keeps the signatures and lets the request live longer."""
        request = self.pick(what)
        if request is None:
            return
        longer = msgspec.structs.replace(request, expires=request.expires + 1 + how)
        case = self.model.cases[digest(request)]
        foreign = msgspec.structs.replace(request, enclave="0" * 64)
        there = SignedRequest(foreign, self.sign(case.by, Act.REQUEST, foreign))
        assert not self.log(Requested(self.time, there)), "a request of another enclave"
        forged = SignedRequest(longer, self.sign(case.by, Act.REQUEST, request))
        assert not self.log(Requested(self.time, forged)), "an altered request"
        if person_id(name) != request.requester:
            filed = SignedRequest(longer, self.sign(name, Act.REQUEST, longer))
            assert not self.log(Requested(self.time, filed)), "a request in another's name"
        elif digest(longer) not in self.model.cases and self.file(name, longer):
            self.asked.append(longer)
            for one in case.signed:
                stale = self.sign(one, Act.APPROVE, request)
                assert not self.log(Approved(self.time, digest(longer), stale)), "moved approval"

    def twin(self, name: str, what: int, how: int) -> None:
        """What was signed here is carried to another enclave of the same people: worth nothing."""
        request = self.pick(what)
        if request is None:
            return
        if self._twin is None:
            self._twin = state_of(TWIN)
        there, case = self._twin, self.model.cases[digest(request)]
        at = max(self.time, there.last_time)
        here = SignedRequest(request, self.sign(case.by, Act.REQUEST, request))
        assert not there.apply(0, Requested(at, here)), "a request of another enclave"
        same = msgspec.structs.replace(request, enclave=TWIN_SHA256)
        moved = SignedRequest(same, here.proof)
        assert not there.apply(0, Requested(at, moved)), "a signature of another enclave"
        own = SignedRequest(same, self.sign(case.by, Act.REQUEST, same))
        there.apply(0, Requested(at, own))
        for one in case.signed:
            stale = self.sign(one, Act.APPROVE, request)
            taken = there.apply(0, Approved(at, digest(same), stale))
            assert not taken, "an approval of another enclave"
        used = there.apply(0, Used(at, digest(same), same.host, same.workload_sha256))
        assert not used, "a use by the approvals of another enclave"
        note = DecisionNote(digest(request), "soak")
        ended = there.apply(0, Revoked(at, note, self.sign(name, Act.REVOKE, note)))
        assert not ended, "a revocation of another enclave's request"
        if how % 4 == 0 and case.broken is not None:
            proof = self.sign(case.by, Act.BREAK_GLASS, request)
            assert not there.apply(0, BrokeGlass(at, digest(same), proof, "x")), "a moved glass"

    def draft(self, name: str, what: int, how: int) -> None:
        """Somebody drafts a founding; what one founder did not sign exactly so founds nothing."""
        signed = drafted = FOUNDING
        signers = list(CAST)
        act = Act.FOUND
        persons = list(FOUNDING.roster.persons)
        mine = what % len(persons)
        swapped = msgspec.structs.replace(persons[mine], keys=(SECOND[name].key,))
        more = msgspec.structs.replace(persons[mine], keys=(*persons[mine].keys, SECOND[name].key))
        match how % 8:
            case 0:
                signers = [one for one in signers if one != signers[what % len(signers)]]
            case 1 | 2:  # a key is swapped, or one is slipped in, after they signed
                persons[mine] = swapped if how % 8 == 1 else more
                roster = msgspec.structs.replace(FOUNDING.roster, persons=tuple(persons))
                drafted = msgspec.structs.replace(FOUNDING, roster=roster)
            case 3:
                drafted = msgspec.structs.replace(FOUNDING, policy_text=POLICIES[2][0])
            case 4:
                signed = drafted = TWIN
            case 5:
                signers = [*signers[1:], "robot", "keyd"]
            case 6:
                act = Act.APPROVE
            case _:
                pass
        lawful = how % 8 == 7
        proofs = tuple(self.sign(one, act, signed) for one in signers)
        fresh = TrustState(ORIGIN)
        taken = fresh.apply(0, Founded(START, drafted, proofs))
        assert taken == lawful, "a founding that not everybody signed"
        self._counts["foundings in effect"] += taken
        assert not self.log(Founded(self.time, drafted, proofs)), "a second founding"

    def skewed(self, name: str, what: int, how: int) -> None:
        """A host whose clock is off by up to what clocks may differ approves, asks or uses."""
        off = (-SKEW_S, -60, -1, 1, 60, SKEW_S - 1)[how % 6]
        self.time += off
        acts = (self.approve, self.use, self.ask, self.use)
        acts[what % 4](name, what // 4, 0)
        self.time -= off

    def serve(self, name: str, what: int, how: int) -> None:
        """A service asks; its owner and others approve: one human more than the rule."""
        del name
        asker = ("keyd", "robot")[what % 2]
        request = self.request(asker, "weights.load")
        if self.file(asker, request):
            self.asked.append(request)
            for one in GROUPS[how % len(GROUPS)]:
                self.put_approval(one, request)
            if self.try_use(request, self.time, "gpu-1"):
                self._counts["uses by services"] += 1

    # ---- break-glass ---------------------------------------------------------------------

    def smash(self, name: str, what: int, how: int) -> None:
        """Somebody breaks the glass: their own request's, or another's."""
        glass = [one for one in self.asked if one.break_glass]
        if not glass:
            return
        request = glass[what % len(glass)]
        case = self.model.cases[digest(request)]
        who = name if how % 4 == 0 else case.by
        proof = self.sign(who, Act.BREAK_GLASS, request)
        taken = self.log(BrokeGlass(self.time, digest(request), proof, "the test"))
        assert not taken or (who == case.by and case.broken is None)
        if taken:
            case.broken = (self.time, proof.key_id)

    def review(self, name: str, what: int, how: int) -> None:
        """Somebody reviews a broken glass."""
        del how
        request = self.pick(what)
        if request is None:
            return
        case = self.model.cases[digest(request)]
        note = DecisionNote(digest(request), "seen")
        taken = self.log(Reviewed(self.time, note, self.sign(name, Act.REVIEW, note)))
        assert not taken or (self.model.human(name) and name != case.by and case.broken)
        if taken:
            case.reviewers.add(name)

    # ---- people and policy ---------------------------------------------------------------

    def govern(self, operation: str, details: Details, how: int) -> bool:
        """Make a change with two people, or try to with fewer; tell whether it took effect."""
        able = [name for name in self.model.keys if self.model.human(name)]
        able = [one for one in able if FIRST[one].key.key_id in self.model.keys[one]]
        if len(able) < 3:
            return False
        asker = "keyd" if how % 16 == 15 else able[0]
        request = self.request(asker, operation, details=details)
        if not self.file(asker, request):
            return False
        full, short = (able[1], able[2]), (able[1],)
        groups = (full, full, full, full, (able[0], able[1]), ("robot", able[1]), (), short)
        for approver in groups[how % 8]:
            self.put_approval(approver, request)
        changed = self.try_use(request, self.time, "gpu-1")
        self._counts[f"{operation} in effect"] += changed
        return changed

    def remove(self, name: str, what: int, how: int) -> None:
        """Somebody is removed, approvals in flight or not."""
        del what
        if self.govern("people.remove", RemovePerson(person_id(name)), how):
            self.model.burnt |= self.model.keys.pop(name)
            self.model.gone.add(name)

    def enrol(self, name: str, what: int, how: int) -> None:
        """Somebody is enrolled: new, or removed before, or with a key that was another's."""
        new = name if what % 3 == 0 else list(NEW)[what % 2]
        key = FIRST[name if how % 5 == 4 else new].key
        teams = NEW.get(new, ("t-development",))
        person = Person(person_id(new), new, KIND[new], (), teams, (key,))
        known = {one for keys in self.model.keys.values() for one in keys} | self.model.burnt
        holder = FIRST[name if how % 5 == 4 else new]
        enrolment, proven = self.held(EnrolPerson(person), holder, what // 3)
        if self.govern("people.enrol", enrolment, how):
            assert proven, "a key that somebody else holds"
            assert new not in self.model.keys, "an id twice"
            assert new not in self.model.gone, "an id of somebody removed"
            assert key.key_id not in known, "a key of somebody else"
            self.model.keys[new] = {key.key_id}
            self.model.teams[new] = teams

    def held(self, change: Change, holder: SoftSsh, how: int) -> tuple[Change, bool]:
        """Have the new key sign its enrolment, or try without, by another, or for elsewhere."""
        document = holding_of(FOUNDING_SHA256, change)
        other = FIRST["dev-one" if holder is not FIRST["dev-one"] else "dev-two"]
        proofs: tuple[Proof, ...]
        match how % 12:
            case 0:
                proofs = ()
            case 1:
                proofs = (self._signer.sign(other, Act.HOLD, document),)
            case 2:
                proofs = (self._signer.sign(holder, Act.HOLD, holding_of(TWIN_SHA256, change)),)
            case 3:
                proofs = (self._signer.sign(holder, Act.REQUEST, document),)
            case _:
                proofs = (self._signer.sign(holder, Act.HOLD, document),)
        return msgspec.structs.replace(change, held=proofs), how % 12 > 3

    def move(self, name: str, what: int, how: int) -> None:
        """Somebody changes teams: the requester, too, who then is of another role."""
        teams = TEAM_SETS[what % len(TEAM_SETS)]
        if self.govern("people.assign", AssignPerson(person_id(name), (), teams), how):
            self.model.teams[name] = teams

    def second_key(self, name: str, what: int, how: int) -> None:
        """Somebody gets a second key."""
        key = SECOND[name].key
        adding, proven = self.held(AddKey(person_id(name), key), SECOND[name], what // 2)
        if self.govern("people.add-key", adding, how):
            assert proven, "a key that somebody else holds"
            assert key.key_id not in self.model.burnt
            self.model.keys[name].add(key.key_id)

    def drop_key(self, name: str, what: int, how: int) -> None:
        """Somebody's key is taken away."""
        if what % 2:
            self.second_key(name, 8, 0)  # one that the new key signs
        key = (SECOND if what % 4 == 3 else FIRST)[name].key
        if self.govern("people.remove-key", RemoveKey(person_id(name), key.key_id), how):
            self.model.keys[name].discard(key.key_id)
            self.model.burnt.add(key.key_id)

    def policy(self, name: str, what: int, how: int) -> None:
        """The next policy is approved, or an old one is brought back, or one is left out."""
        del name
        version = 1 + what % len(POLICIES)
        details = ChangePolicy(POLICIES[version][0], DIGESTS[version])
        if self.govern("policy.change", details, how):
            assert version == self.model.version + 1, "a policy that is not the next"
            self.model.version = version

    def fast(self, name: str, what: int, how: int) -> None:
        """A host whose clock is months ahead files an honest request."""
        del how
        if what % 4 == 0:
            self.time += AHEAD_S
            self.file(name, self.request(name, "weights.load"))
            self.time -= AHEAD_S

    def correct(self, name: str, what: int, how: int) -> None:
        """Three set the log's time back, or fewer try; nobody sets it forward."""
        del name, what
        if self.model.last > self.time + SKEW_S:
            change = CorrectClock(wrong=self.model.last, right=self.time)
            if self.govern(CORRECT, change, how):
                self.model.last = self.time


OPERATIONS: tuple[Callable[[History, str, int, int], None], ...] = (
    *(History.ask,) * 3,
    *(History.approve,) * 5,
    *(History.gather,) * 5,
    *(History.use,) * 11,
    *(History.close,) * 3,
    *(History.wait,) * 2,
    *(History.steal,) * 2,
    *(History.replay,) * 2,
    *(History.alter,) * 2,
    *(History.smash,) * 3,
    History.review,
    History.remove,
    History.enrol,
    History.move,
    History.second_key,
    History.drop_key,
    History.policy,
    History.fast,
    History.twin,
    History.twin,
    History.draft,
    History.skewed,
    History.skewed,
    History.serve,
    History.serve,
    *(History.correct,) * 3,
)
