"""The signed file of a trial: which bundle tries to replace which, and how far it may go now.

Numbered as it is checked:
1. It says only things that this version knows, in its canonical form.
2. Enough distinct persons signed exactly this content. One is enough for shadow, where the
   challenger decides nothing, and for the way back; every step forward wants the quorum.
"""

import base64
import binascii
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.canonical import CanonicalError, canonical, parse_canonical, sha256_hex
from safehold.errors import BundleError, ConfigError
from safehold.guard.bundle.overlay_file import RuleQuorum
from safehold.guard.bundle.signing import fingerprint
from safehold.guard.gateway.bundles.rollback_evidence import RollbackRules
from safehold.guard.gateway.bundles.trial_steps import TrialStep
from safehold.guard.overlay.interface import RuleApproval
from safehold.trust.log.key_files import read_secret

_SECRET_BYTES = 16
"""128 bits."""

_STEP = b"safehold-trial-step/1\0"
_MAX_BYTES = 4 << 20
_ALONE = frozenset({TrialStep.SHADOW, TrialStep.ROLLED_BACK})
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class TrialError(BundleError):
    """Give the trial a file that may be followed; until then what was in force stays so."""


class TrialPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What persons sign for one step of a trial.

    Args:
        id: The trial's name; it can't be used again once it ended.
        serial: Larger in each later file, so that no old one returns.
        champion: Digest of the bundle in use.
        challenger: Digest of the bundle on trial.
        folder: Its name in the gateway's folder of bundles.
        report: Digest of the gate report that let it be tried.
        step: How far it may go now.
        least: Exchanges that both bundles judged in a step before the next one.
        rules: When it is rolled back.
        restricted: Decisions that only the challenger stopped and that a reviewer called
            restricted: they are no false alarms.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
    serial: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    champion: Digest
    challenger: Digest
    folder: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}\Z")]
    report: Digest
    step: TrialStep = TrialStep.SHADOW
    least: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 1_000
    rules: RollbackRules = RollbackRules()
    restricted: Annotated[tuple[str, ...], msgspec.Meta(max_length=10_000)] = ()

    @property
    def digest(self) -> str:
        """The digest of the canonical JSON, which is what persons sign."""
        return sha256_hex(canonical(self))


class SignedStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan, byte for byte, and who signed it."""

    content: str
    signatures: tuple[RuleApproval, ...] = ()


def written(plan: TrialPlan) -> SignedStep:
    """Return the plan as a file that nobody signed yet."""
    return SignedStep(content=base64.b64encode(canonical(plan)).decode())


def signed(file: SignedStep, person: str, key: Ed25519PrivateKey) -> SignedStep:
    """Return the file with this person's signature too."""
    plan = read_plan(file)
    made = base64.b64encode(key.sign(_STEP + plan.digest.encode())).decode()
    mine = RuleApproval(person=person, key=fingerprint(key.public_key()), signature=made)
    others = tuple(one for one in file.signatures if one.person != person)
    return SignedStep(file.content, (*others, mine))


def encoded(file: SignedStep) -> bytes:
    """Return the file's bytes."""
    return msgspec.json.encode(file)


def decoded(data: bytes) -> SignedStep:
    """Return the file of its bytes; nothing is verified yet.

    Raises:
        TrialError: It is no such file.
    """
    if len(data) > _MAX_BYTES:
        raise TrialError(f"trial: expected at most {_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=SignedStep)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TrialError("trial: expected a signed file of a trial's step") from error


def read_plan(file: SignedStep) -> TrialPlan:
    """Return what a file says; who signed it is not looked at.

    Raises:
        TrialError: It says something that this version does not know.
    """
    # 1.
    try:
        body = base64.b64decode(file.content, validate=True)
        return parse_canonical(body, TrialPlan, what="a trial's step")
    except (binascii.Error, ValueError) as error:
        raise TrialError("trial: expected content in base64") from error
    except CanonicalError as error:
        raise TrialError(f"trial: {error}") from error


def signers(file: SignedStep, plan: TrialPlan, quorum: RuleQuorum) -> frozenset[str]:
    """Return the distinct persons whose signatures hold."""
    message = _STEP + plan.digest.encode()
    found = (
        quorum.person_of(one.person, one.key, one.signature, message) for one in file.signatures
    )
    return frozenset(person for person in found if person is not None)


def opened_plan(data: bytes, quorum: RuleQuorum) -> TrialPlan:
    """Return the plan of a signed file.

    Raises:
        TrialError: It does not verify; the message says what is missing.
    """
    file = decoded(data)
    plan = read_plan(file)
    # 2.
    needed = 1 if plan.step in _ALONE else quorum.needed
    came = len(signers(file, plan, quorum))
    if came < needed:
        raise TrialError(f"trial {plan.id}: step {plan.step} wants {needed} persons, came {came}")
    return plan


def read_draw(path: Path) -> bytes:
    """Return the secret that draws accounts.

    Raises:
        ConfigError: It can't be read, or is too short to resist guessing.
    """
    secret = read_secret(path)
    if len(secret) < _SECRET_BYTES:
        raise ConfigError(f"trial: {path.name}: expected at least 16 random bytes")
    return secret
