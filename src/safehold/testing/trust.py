"""A whole enclave for tests: people with real keys, a real log in a directory, a clock to turn."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from safehold.canonical import canonical, sha256_hex
from safehold.trust.exemptions import CHECKLIST, Evidence, Vetting, VettingTier
from safehold.trust.grants.details import AddKey, Details, EnrolPerson, NoDetails
from safehold.trust.grants.events import DecisionNote, Founding
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.holding import Change, holding_of
from safehold.trust.grants.interface import (
    Granted,
    GrantRequest,
    Refused,
    Resource,
    SignedRequest,
)
from safehold.trust.log.keys import LogKeys, read_keys, write_keys
from safehold.trust.log.note import SigningKey
from safehold.trust.log.store import LogStore, create_log
from safehold.trust.people.interface import (
    Key,
    Kind,
    Passkey,
    PasskeyProof,
    Person,
    Proof,
    Roster,
    SshKey,
    SshProof,
    Team,
)
from safehold.trust.people.material import SK_ED25519
from safehold.trust.people.passkey import b64url, unb64url
from safehold.trust.people.sshsig import (
    parse_public_key,
    sign_sshsig,
    ssh_key_of,
)
from safehold.trust.people.statement import NAMESPACE, Act, challenge, ssh_message

RP_ID = "localhost"
ORIGIN = "http://localhost:8443"


class SoftSsh:
    """An Ed25519 SSH key in memory."""

    def __init__(self, seed: bytes) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest())
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key: Key = ssh_key_of(raw)

    def sign(self, act: Act, document: object) -> Proof:
        """Sign an act."""
        signature = sign_sshsig(self.private, ssh_message(act, document), namespace=NAMESPACE)
        return SshProof(key_id=self.key.key_id, signature=signature)


class SoftSshSk:
    """A software `sk-ssh-ed25519` security key: it sets the flags it is told to."""

    def __init__(self, seed: bytes, *, flags: int = 0x05) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest())
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.flags = flags
        self.counter = 0
        self._blob = _string(SK_ED25519) + _string(raw) + _string(b"ssh:")
        line = f"{SK_ED25519.decode()} {base64.b64encode(self._blob).decode()}"
        self.key: Key = parse_public_key(line)

    def sshsig(self, message: bytes, namespace: str = NAMESPACE) -> str:
        """Return the one-line SSHSIG of a message."""
        self.counter += 1
        tail = _string(namespace.encode()) + _string(b"") + _string(b"sha512")
        signed = b"SSHSIG" + tail + _string(hashlib.sha512(message).digest())
        presented = bytes([self.flags]) + self.counter.to_bytes(4, "big")
        raw = self._private.sign(
            hashlib.sha256(b"ssh:").digest() + presented + hashlib.sha256(signed).digest()
        )
        inner = _string(SK_ED25519) + _string(raw) + presented
        blob = b"SSHSIG" + (1).to_bytes(4, "big") + _string(self._blob) + tail + _string(inner)
        return base64.b64encode(blob).decode()

    def sign(self, act: Act, document: object) -> Proof:
        """Sign an act."""
        return SshProof(key_id=self.key.key_id, signature=self.sshsig(ssh_message(act, document)))


class SoftPasskey:
    """A software WebAuthn authenticator (ES256); needs the `trust` extra."""

    def __init__(self, seed: bytes, *, flags: int = 0x05, counts: bool = True) -> None:
        import cbor2

        number = int.from_bytes(hashlib.sha256(seed).digest(), "big") % (2**255) + 1
        self._private = ec.derive_private_key(number, ec.SECP256R1())
        public = self._private.public_key().public_numbers()
        cose = cbor2.dumps(
            {1: 2, 3: -7, -1: 1, -2: public.x.to_bytes(32, "big"), -3: public.y.to_bytes(32, "big")}
        )
        self._cose = cose
        self.flags = flags
        self.counter = 0
        self._counts = counts
        self.credential_id = b64url(hashlib.sha256(b"credential" + seed).digest())
        self.key: Key = Passkey(
            credential_id=self.credential_id,
            public_key=b64url(cose),
        )

    def sign(
        self,
        act: Act,
        document: object,
        *,
        rp_id: str = RP_ID,
        origin: str = ORIGIN,
        client: dict[str, Any] | None = None,
    ) -> Proof:
        """Sign an act; the rest is for attacks."""
        self.counter += 1 if self._counts else 0
        data = hashlib.sha256(rp_id.encode()).digest() + bytes([self.flags])
        data += self.counter.to_bytes(4, "big")
        client_data = json.dumps(
            {
                "type": "webauthn.get",
                "challenge": b64url(challenge(act, document)),
                "origin": origin,
                "crossOrigin": False,
                **(client or {}),
            }
        ).encode()
        signature = self._private.sign(
            data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256())
        )
        return PasskeyProof(
            key_id=self.key.key_id,
            credential_id=self.credential_id,
            authenticator_data=b64url(data),
            client_data_json=b64url(client_data),
            signature=b64url(signature),
        )

    def register(
        self,
        asked: str,
        *,
        rp_id: str = RP_ID,
        origin: str = ORIGIN,
        flags: int = 0x45,
        client: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return a browser's registration response to a challenge; the rest is for attacks."""
        import cbor2

        named = unb64url(self.credential_id)
        data = hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + bytes(4 + 16)
        data += len(named).to_bytes(2, "big") + named + self._cose
        client_data = {"type": "webauthn.create", "challenge": asked, "origin": origin}
        said = json.dumps(client_data | {"crossOrigin": False} | (client or {}))
        attested = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return {
            "id": self.credential_id,
            "rawId": self.credential_id,
            "type": "public-key",
            "response": {
                "clientDataJSON": b64url(said.encode()),
                "attestationObject": b64url(attested),
            },
        }


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


SoftKey = SoftSsh | SoftSshSk | SoftPasskey


def person_id(name: str) -> str:
    """Return the id that `Enclave` gives to a name."""
    return "p-" + hashlib.sha256(name.encode()).hexdigest()[:16]


def vetted(tier: VettingTier = VettingTier.LOW, **changes: Any) -> Vetting:
    """Return a complete vetting of a tier, with the given members changed."""
    vetting = Vetting(
        application_sha256="a1" * 32,
        tier=tier,
        evidence=(Evidence("registration", "e1" * 32), Evidence("licence", "e2" * 32)),
        checks=tuple(CHECKLIST[tier]),
    )
    return msgspec.structs.replace(vetting, **changes)


POLICY = """\
version = 1
rp_id = "localhost"
origins = ["http://localhost:8443"]

[[rule]]
operation = "weights.load"
thresholds = [{ team = "t-development", count = 2 }, { team = "t-security", count = 1 }]
max_duration_s = 28800
max_byte_budget = 1000000000000
max_uses = 3
keys = ["passkey", "ssh-sk", "ssh"]
break_glass = { team = "t-security", max_duration_s = 3600 }

[[rule]]
operation = "weights.shred"
thresholds = [{ team = "t-everybody", count = 2 }]
max_duration_s = 28800
keys = ["passkey", "ssh-sk", "ssh"]
"""

GOVERNING = "".join(
    f"""
[[rule]]
operation = "{operation}"
thresholds = [{{ team = "t-everybody", count = {1 if operation == "exemption.give" else 2} }}]
max_duration_s = 31622400
keys = ["passkey", "ssh-sk", "ssh"]
"""
    for operation in (
        "people.enrol",
        "people.remove",
        "people.add-key",
        "people.remove-key",
        "people.assign",
        "people.add-team",
        "policy.change",
        "exemption.give",
    )
)

TEAMS = (
    Team(id="t-everybody", name="Everybody"),
    Team(id="t-development", name="Development", parents=("t-everybody",)),
    Team(id="t-serving", name="Serving (inside Development)", parents=("t-development",)),
    Team(id="t-security", name="Security", parents=("t-everybody",)),
)

# name: (kind, teams). Dev four is in Development only through the team Serving.
CAST: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "dev-one": (Kind.HUMAN, ("t-development",)),
    "dev-two": (Kind.HUMAN, ("t-development",)),
    "dev-three": (Kind.HUMAN, ("t-development",)),
    "dev-four": (Kind.HUMAN, ("t-serving",)),
    "sec-one": (Kind.HUMAN, ("t-security",)),
    "sec-two": (Kind.HUMAN, ("t-security",)),
    "robot": (Kind.AGENT, ("t-development", "t-security")),
    "keyd": (Kind.SERVICE, ("t-development", "t-security")),
}


class FakePager:
    """Remembers whom it told."""

    def __init__(self) -> None:
        self.pages: list[tuple[str, str]] = []

    def page(self, subject: str, detail: str) -> str:
        """Remember a page."""
        self.pages.append((subject, detail))
        return "the test"


class Enclave:
    """A founded log with the cast above; every name has an SSH key, and more on demand."""

    def __init__(
        self,
        root: Path,
        *,
        policy: str = POLICY + GOVERNING,
        cast: dict[str, tuple[Kind, tuple[str, ...]]] | None = None,
        now: int = 1_800_000_000,
        key: "Callable[[bytes], SoftKey]" = SoftSsh,
        witnesses: tuple[str, ...] = (),
    ) -> None:
        self.time = now
        self.root = root
        self.cast = CAST if cast is None else cast
        self.keys: dict[str, SoftKey] = {name: key(name.encode()) for name in self.cast}
        self.log_key = SigningKey.generate("enclave.test/log")
        self.emitter = SigningKey.generate("enclave.test/desk")
        self.pager = FakePager()
        self.policy_text = policy
        keys = LogKeys(
            origin="enclave.test/log",
            key=str(self.log_key.verifier),
            emitters=(str(self.emitter.verifier),),
            witnesses=witnesses,
        )
        create_log(root, self.log_key, keys)
        self.desk = self.open_desk()
        self.founding = Founding(
            origin="enclave.test/log",
            roster=Roster(persons=tuple(self.person(name) for name in self.cast), teams=TEAMS),
            policy_text=policy,
        )
        proofs = tuple(self.keys[name].sign(Act.FOUND, self.founding) for name in self.cast)
        self.desk.found(self.founding, proofs)

    def pinned(self) -> Self:
        """Let the log's own log.json pin the founding, as `safehold people found` leaves it."""
        path = self.root / "log.json"
        keys = msgspec.structs.replace(read_keys(path), founding=self.founding_sha256())
        write_keys(path, keys)
        self.desk = self.open_desk()
        return self

    def open_desk(self) -> Desk:
        """Return another desk on the same log, as another process would have."""
        store = LogStore(self.root, self.log_key)
        return Desk(store, self.emitter, lambda: self.time, self.pager)

    def person(self, name: str) -> Person:
        """Return a person of the cast with the SSH key of that name."""
        kind, teams = self.cast[name]
        return Person(
            id=person_id(name),
            name=name,
            kind=kind,
            roles=(),
            teams=teams,
            keys=(self.keys[name].key,),
        )

    def ask(
        self,
        requester: str = "dev-one",
        operation: str = "weights.load",
        *,
        details: Details | None = None,
        **changes: Any,
    ) -> GrantRequest:
        """Return a request that the policy allows, with the given fields changed."""
        policy = self.desk.state.policy
        request = GrantRequest(
            enclave=self.founding_sha256(),
            requester=person_id(requester),
            purpose="Serve the home-brewing model",
            ticket="OPS-1",
            operation=operation,
            resource=Resource(kind="model", name="brewer", version="1", parts=("*",)),
            host="gpu-1",
            workload_sha256="ab" * 32,
            byte_budget=10**9 if operation == "weights.load" else 0,
            uses=1,
            not_before=self.time,
            expires=self.time + 3600,
            nonce=sha256_hex(f"{requester}{len(self.desk.state.cases)}".encode())[:32],
            policy_version=policy.version,
            policy_sha256=policy.sha256,
            details=NoDetails() if details is None else details,
        )
        return msgspec.structs.replace(request, **changes)

    def file(self, request: GrantRequest, by: str | None = None) -> str:
        """Sign and record a request as its requester (or as somebody else)."""
        names = {person_id(name): name for name in self.keys}
        signer = names[request.requester] if by is None else by
        proof = self.keys[signer].sign(Act.REQUEST, request)
        return self.desk.request(SignedRequest(request=request, proof=proof))

    def approve(self, request: GrantRequest, *names: str) -> Granted | Refused | None:
        """Record approvals; return the last decision."""
        decision: Granted | Refused | None = None
        for name in names:
            proof = self.keys[name].sign(Act.APPROVE, request)
            decision = self.desk.approve(request.sha256, proof)
        return decision

    def use(self, request: GrantRequest) -> Granted:
        """Spend one use on the request's own host."""
        return self.desk.use(
            request.sha256, host=request.host, workload_sha256=request.workload_sha256
        )

    def note(self, request: GrantRequest, text: str = "because of the test") -> DecisionNote:
        """Return a note about a request."""
        return DecisionNote(request=request.sha256, text=text)

    def enrolling(self, person: Person, *keys: SoftKey) -> EnrolPerson:
        """Return the enrolment of a person whose new keys have signed it."""
        return held(self.founding_sha256(), EnrolPerson(person), *keys)

    def adding(self, name: str, key: SoftKey) -> AddKey:
        """Return the new key of a person of the cast, signed by itself."""
        return held(self.founding_sha256(), AddKey(person_id(name), key.key), key)

    def carry(self, operation: str, details: Details, requester: str = "dev-one") -> GrantRequest:
        """Request a governing change and have others approve it: it takes effect at once."""
        request = self.ask(requester, operation, details=details)
        self.file(request)
        self.second(request)
        return request

    def second(self, request: GrantRequest) -> Granted | Refused | None:
        """Approve as the rule has it: two other persons; one for an exemption."""
        roster = self.desk.state.roster
        able = [
            name
            for name, key in self.keys.items()
            if name in self.cast
            and (owned := roster.owner(key.key.key_id)) is not None
            and owned[0].kind is Kind.HUMAN
            and owned[0].id != request.requester
        ]
        able.sort(key=lambda name: not name.startswith("sec-"))
        rule = self.desk.state.policy.rule(request.operation)
        count = 2 if rule is None else sum(one.count for one in rule.thresholds)
        return self.approve(request, *able[:count])

    def founding_sha256(self) -> str:
        """Return the digest that a verifier pins."""
        return sha256_hex(canonical(self.founding))


def held(enclave: str, change: Change, *keys: SoftKey) -> Change:
    """Return a change of people that these new keys have signed, for the enclave of a digest."""
    document = holding_of(enclave, change)
    return msgspec.structs.replace(change, held=tuple(one.sign(Act.HOLD, document) for one in keys))


def ssh_public_of(key: SoftKey) -> str:
    """Return the authorized_keys line of a soft SSH key."""
    if not isinstance(key.key, SshKey):
        raise TypeError("expected an SSH key")
    return key.key.public
