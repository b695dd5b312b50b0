"""Steps against what is written down: approvals that nobody gave, and a log that was taken back."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safehold.demo.heist.enclave import Enclave
from safehold.demo.heist.table import HeistOutcome, HeistTry
from safehold.errors import TrustError
from safehold.govern.controls.facts.trust_log import read_log
from safehold.testing.trust import GOVERNING, POLICY, SoftSsh
from safehold.testing.trust import Enclave as Trust
from safehold.trust.grants.events import Approved
from safehold.trust.log.dsse import open_envelope, sign_envelope
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys
from safehold.trust.log.log_entries import Leaf, read_leaf, statement_of
from safehold.trust.log.note import Algorithm, SigningKey
from safehold.trust.log.witness import Witness, create_witness
from safehold.trust.people.interface import SshProof
from safehold.trust.people.sshsig import sign_sshsig
from safehold.trust.people.statement import NAMESPACE, Act, ssh_message

PREVENTED, DETECTED, MISSED = HeistOutcome
_ALONE = POLICY.replace(
    '{ team = "t-development", count = 2 }, { team = "t-security", count = 1 }',
    '{ team = "t-development", count = 1 }',
)


def forged_approval(made: Enclave) -> Iterator[HeistTry]:
    """The thief owns the desk: he writes an approval in another's name, signed by his own key."""
    step = "a forged approval"
    trust = Trust(made.folder / "forged", now=int(time.time()))
    request = trust.ask()
    trust.file(request)
    thief = SoftSsh(b"thief").private
    forged = sign_sshsig(thief, ssh_message(Act.APPROVE, request), namespace=NAMESPACE)
    began = time.monotonic()
    for name in ("dev-two", "sec-one"):
        proof = SshProof(key_id=trust.keys[name].key.key_id, signature=forged)
        leaf = Approved(time=trust.time, request=request.sha256, proof=proof)
        trust.desk.store.append([sign_envelope(statement_of(leaf), trust.emitter)])
    trust.desk.store.publish()
    # A reader that believes the log's service, and verifies no person, sees two approvals.
    approved = sum(isinstance(one, Approved) for one in _leaves(trust.root))
    yield HeistTry(step, "", MISSED if approved >= 2 else PREVENTED)
    voids = read_log(trust.root, trust.root / "log.json").voids
    seconds = time.monotonic() - began
    yield HeistTry(step, "wac-05", DETECTED if voids else MISSED, seconds=seconds)


def _leaves(root: Path) -> list[Leaf]:
    keys = read_keys(root / "log.json")
    news = Follower(DirectorySource(root), keys).news()
    return [read_leaf(open_envelope(entry, keys.emitter_keys())[0]) for _, entry in news]


def one_accomplice(made: Enclave) -> Iterator[HeistTry]:
    """The thief has one approver's true key, and uses the grant that this one approves."""
    step = "one approver's stolen key"
    for control, policy in (("", _ALONE + GOVERNING), ("wac-02", POLICY + GOVERNING)):
        trust = Trust(made.folder / f"accomplice{len(control)}", policy=policy)
        request = trust.ask()
        trust.file(request)

        def use(trust: Trust = trust, request: object = request) -> None:
            trust.approve(request, "dev-two")  # type: ignore[arg-type]
            trust.use(request)  # type: ignore[arg-type]

        yield HeistTry(step, control, _tried(use))


def covered_tracks(made: Enclave) -> Iterator[HeistTry]:
    """The thief owns the log's server, and puts back the log of before his entries."""
    step = "the log is taken back"
    trust = Trust(made.folder / "tracks", now=int(time.time()))
    create_witness(made.folder / "witness")
    witness = Witness(
        made.folder / "witness", SigningKey.generate("witness.test/w", Algorithm.COSIGNATURE)
    )
    before = made.folder / "before"
    shutil.copytree(trust.root, before)
    trust.file(trust.ask())
    now = trust.time
    witness.cosign_copy(DirectorySource(trust.root), trust.log_key.verifier, now)
    whole = read_log(trust.root, trust.root / "log.json").size
    cut = read_log(before, trust.root / "log.json").size
    # Alone, the older log is perfect: signed, and whole in itself.
    yield HeistTry(step, "", MISSED if 0 < cut < whole else PREVENTED)
    began = time.monotonic()
    try:
        witness.cosign_copy(DirectorySource(before), trust.log_key.verifier, now)
    except TrustError:
        yield HeistTry(step, "mon-02", DETECTED, seconds=time.monotonic() - began)
    else:
        yield HeistTry(step, "mon-02", MISSED)


def _tried(act: Callable[[], object]) -> HeistOutcome:
    try:
        act()
    except TrustError:
        return PREVENTED
    return MISSED
