"""The enclave's people: a log with their acts, and a repository of settings that they sign.

Their keys are security keys in software; what they did is a script. The signatures, the log and
its verification are real.
"""

import datetime as dt
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from safehold.canonical import sha256_hex
from safehold.govern.controls.interface import DAY, Assurance
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.standards.library import load_standards
from safehold.secure.change.git_policy import POLICY_PATH
from safehold.secure.change.git_verify import (
    GIT_NAMESPACE,
    NOTES,
    REVIEW_NAMESPACE,
    Git,
    review_message,
)
from safehold.secure.change.provenance import BuiltFile, envelope, provenance, to_sign
from safehold.secure.endpoint.changing import OPERATION as LOOSEN
from safehold.testing.trust import Enclave, SoftSshSk, held, person_id, ssh_public_of
from safehold.trust.demands.document import document_digest
from safehold.trust.grants.details import (
    AddTeam,
    Details,
    EnrolPerson,
    Facts,
    NoDetails,
    StandingAct,
)
from safehold.trust.grants.events import DecisionNote
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.log.log_entries import Record
from safehold.trust.log.note import Algorithm, SigningKey
from safehold.trust.log.witness import Witness, attach, create_witness
from safehold.trust.people.interface import Kind, Person, Proof, Team
from safehold.trust.people.sshsig import armour
from safehold.trust.people.statement import Act
from safehold.trust.released.vouching import NAMESPACE

DECOYS = "t-release-desk"
APPROVERS = ("dev-two", "dev-three", "sec-one")
_DETERMINED = {"model": "d" * 64, "status": "cannot_rule_out", "rationale": "the demo"}
_ACTIVATED = {"standard": "asl-2", "precautionary": True, "rationale": "the demo"}
_TURNS = ("dev-one", "dev-two", "dev-three", "sec-one", "dev-four", "sec-two")
_WITNESSES = ("one", "two")
_KEYS = 'keys = ["passkey", "ssh-sk"]'
_RULES = "".join(
    f"""
[[rule]]
operation = "{operation}"
thresholds = [{{ team = "t-everybody", count = {count} }}]
max_duration_s = {longest}
{_KEYS}
"""
    for operation, count, longest in (
        ("weights.shred", 2, 28_800),
        ("controls.attest", 2, 34_560_000),
        ("controls.except", 2, 7_776_000),
        ("standards.determine", 2, 86_400),
        ("standards.activate", 2, 86_400),
        ("host.shell", 2, 28_800),
        ("vendor.access", 2, 28_800),
        ("egress.raise", 2, 28_800),
        ("egress.apply", 2, 28_800),
        ("egress.release", 2, 28_800),
        (LOOSEN, 2, 28_800),
        ("people.enrol", 2, 86_400),
        ("people.remove", 2, 86_400),
        ("people.add-key", 2, 86_400),
        ("people.remove-key", 2, 86_400),
        ("people.assign", 2, 86_400),
        ("people.add-team", 2, 86_400),
        ("policy.change", 2, 86_400),
        ("exemption.give", 2, 86_400),
    )
)
POLICY = f"""version = 1
rp_id = "localhost"
origins = ["http://localhost:8443"]

[[rule]]
operation = "weights.load"
thresholds = [{{ team = "t-development", count = 2 }}, {{ team = "t-security", count = 1 }}]
max_duration_s = 28800
max_byte_budget = 1000000000000
max_uses = 3
{_KEYS}
break_glass = {{ team = "t-security", max_duration_s = 3600 }}
{_RULES}"""
CHANGE_RULES = """
[[rule]]
paths = ["*"]
thresholds = [{ team = "t-development", count = 1 }, { team = "t-security", count = 1 }]
"""


class People:
    """The log at `root`, its people, and what they did in the last hours.

    Args:
        root: The log's directory; its private keys go beside it (`.keys`).
        now: POSIX seconds; the script ends there.
    """

    def __init__(self, root: Path, now: int) -> None:
        self.now = now
        self._turns = 0
        self._states = [root.with_name(f"witness-{name}") for name in _WITNESSES]
        self._witnesses = []
        for name, state in zip(_WITNESSES, self._states, strict=True):
            create_witness(state)
            key = SigningKey.generate(f"witness.test/{name}", Algorithm.COSIGNATURE)
            self._witnesses.append((Witness(state, key), key))
        self.trust = Enclave(
            root,
            policy=POLICY,
            now=now - 6 * 3600,
            key=SoftSshSk,
            witnesses=tuple(str(key.verifier) for _, key in self._witnesses),
        )
        keys = root.with_name(root.name + ".keys")
        keys.mkdir(mode=0o700)
        for name, key in (("log.key", self.trust.log_key), ("emitter.key", self.trust.emitter)):
            (keys / name).touch(mode=0o600)
            (keys / name).write_text(key.text() + "\n")

    def act(
        self,
        operation: str,
        details: Details | None = None,
        *signers: str,
        by: str = "dev-one",
        alarmed: bool = True,
        **changes: object,
    ) -> GrantRequest:
        """Ask, wait a minute, approve and use; tell of the use when it is one of weights."""
        trust = self.trust
        request = trust.ask(by, operation, details=details or NoDetails(), **changes)
        trust.file(request)
        trust.time += 60
        trust.approve(request, *(signers or APPROVERS[-2:]))
        trust.use(request)
        if alarmed:
            trust.time += 1
            trust.desk.alarm(request.sha256, "used", f"{operation} was used")
        return request

    def revoke(self, note: DecisionNote) -> Proof:
        """Return the proof that takes a grant back."""
        return self.trust.keys["sec-one"].sign(Act.REVOKE, note)

    def standing(self, operation: str, record: Mapping[str, object]) -> None:
        """File an act under the stock standards; the last approval carries it."""
        document = document_digest(load_standards("rsp"))
        trust = self.trust
        request = trust.ask(
            "dev-one", operation, details=StandingAct(document, json.dumps(record)), byte_budget=0
        )
        trust.file(request)
        trust.time += 300
        trust.approve(request, *APPROVERS[-2:])

    def record(self, kind: str, facts: dict[str, str], **digests: str) -> None:
        """Append a record of some part."""
        leaf = Record(time=self.trust.time, kind=kind, facts=facts, digests=digests)
        self.trust.desk.record(leaf)

    def history(self, model_header: str, bundle: str, policy: str, host: str) -> None:
        """Play the script: sealed, loaded, determined, activated, reviewed, attested."""
        self.record("seal", {"model": "brewer"}, header=model_header)
        self.record("bundle-release", {"bundle": "stock"}, bundle=bundle)
        self.act("weights.load", None, *APPROVERS, resource=part("model-00001-of-00002"))
        self.standing("standards.determine", _DETERMINED)
        self.standing("standards.activate", _ACTIVATED)
        self.act(
            LOOSEN,
            resource=Resource(kind="endpoint", name=policy, version="1", parts=("*",)),
            workload_sha256=policy,
            host=host,
            alarmed=False,
        )
        self._lure()
        for what in ("weight-access", "coverage-review", "threat-model-review"):
            self.record("change-review", {"of": what})
        for control in stock_catalogue().controls:
            if control.way is not Assurance.AUTOMATIC:
                self._attest(control.id)
        self.trust.time = self.now

    def _lure(self) -> None:
        """Enrol an approver that nobody is, without any right: its use is refused, and alarms."""
        key = SoftSshSk(b"nobody's security key")
        person = Person(
            id=person_id("release-desk"),
            name="release-desk",
            kind=Kind.HUMAN,
            roles=(),
            teams=(DECOYS,),
            keys=(key.key,),
        )
        self._carry("people.add-team", AddTeam(team=Team(id=DECOYS, name="Release desk")))
        enrolment = held(self.trust.founding_sha256(), EnrolPerson(person=person), key)
        self._carry("people.enrol", enrolment)

    def _carry(self, operation: str, details: Details) -> None:
        """Ask for what takes effect with its quorum, wait a minute, and approve it."""
        trust = self.trust
        request = trust.ask("dev-one", operation, details=details)
        trust.file(request)
        trust.time += 60
        trust.approve(request, *APPROVERS[-2:])

    def _attest(self, control: str) -> None:
        facts = {
            "control": control,
            "owner": person_id("sec-one"),
            "expires": str(self.now + 90 * DAY),
            "evidence": sha256_hex(f"what was shown for {control}".encode()),
        }
        turn = self._turns = self._turns + 1
        asking, *signers = (_TURNS[(turn + at) % len(_TURNS)] for at in (0, 1 + turn % 2, 3))
        self.act("controls.attest", Facts(values=facts), *signers, by=asking, alarmed=False)

    def witness(self, now: int) -> None:
        """Publish, and have both witnesses cosign."""
        store = self.trust.desk.store
        store.publish()
        for one, _ in self._witnesses:
            note = one.cosign_copy(store.source, self.trust.log_key.verifier, now)
            attach(
                self.trust.root,
                str(note).encode(),
                self.trust.log_key.verifier,
                tuple(key.verifier for _, key in self._witnesses),
            )

    def sign(self, who: str, message: bytes, namespace: str) -> str:
        """Return a person's armoured signature by their security key."""
        key = self.trust.keys[who]
        if not isinstance(key, SoftSshSk):
            raise TypeError("expected a security key")
        return armour(key.sshsig(message, namespace))

    def vouched(self, name: str, data: bytes, commit: str, builder: str) -> bytes:
        """Return the provenance of a file, signed by two who rebuilt it."""
        statement = provenance(
            [BuiltFile(name, sha256_hex(data))],
            source="git+https://example.org/settings",
            commit=commit,
            builder=builder,
            parameters={},
            dependencies={},
        )
        signatures = {
            self.trust.keys[who].key.key_id: self.sign(who, to_sign(statement), NAMESPACE)
            for who in APPROVERS[-2:]
        }
        return envelope(statement, signatures)

    # ---- the repository ------------------------------------------------------------------------

    def repository(self, root: Path, files: dict[str, str]) -> tuple[str, str]:
        """Make a repository with one reviewed change; return its base and its head."""
        root.mkdir(parents=True)
        _git(root, "init", "-q", "-b", "main")
        base = self._commit(root, {POLICY_PATH: self._change_policy()}, "dev-one", "begin", "")
        said = "settings\n\nRisk: high\nTest: the demo\nRollback: the commit before\n"
        head = self._commit(root, files, "dev-one", said, base)
        message = review_message(Git(root).commit(head))
        for who in APPROVERS[-2:]:
            signature = self.sign(who, message, REVIEW_NAMESPACE)
            _git(root, *_WHO, "notes", f"--ref={NOTES}", "append", "-m", signature, head)
        return base, head

    def _change_policy(self) -> str:
        until = dt.date(2099, 1, 1)
        people = "".join(
            f'[[person]]\nid = "{person_id(name)}"\nname = "{name}"\nteams = ["{team}"]\n'
            f'keys = [{{ public = "{ssh_public_of(self.trust.keys[name])}", until = {until} }}]\n'
            for name, team in (
                ("dev-one", "t-development"),
                ("dev-two", "t-development"),
                ("dev-three", "t-development"),
                ("sec-one", "t-security"),
            )
        )
        return people + CHANGE_RULES

    def _commit(
        self, root: Path, files: dict[str, str], who: str, message: str, parent: str
    ) -> str:
        """Write a commit object by hand: git itself can't sign by a key in software memory."""
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        _git(root, "add", "-A")
        tree = _git(root, "write-tree")
        stamp = f"{who} <{who}@example.org> {self.now - 3600} +0000"
        parents = f"parent {parent}\n" if parent else ""
        head = f"tree {tree}\n{parents}author {stamp}\ncommitter {stamp}\n"
        signed = f"{head}\n{message}".encode()
        signature = self.sign(who, signed, GIT_NAMESPACE).strip().replace("\n", "\n ")
        raw = f"{head}gpgsig {signature}\n\n{message}".encode()
        made = _git(root, "hash-object", "-t", "commit", "-w", "--stdin", data=raw)
        _git(root, "update-ref", "refs/heads/main", made)
        return made


_WHO = ("-c", "user.name=enclave", "-c", "user.email=enclave@example.org")


def part(name: str) -> Resource:
    """Return the resource of one part of the model."""
    return Resource(kind="model", name="brewer", version="1", parts=(f"{name}.safetensors",))


def _git(root: Path, *words: str, data: bytes | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], check=True, capture_output=True, input=data
    )
    return done.stdout.decode().strip()
