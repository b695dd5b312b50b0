"""Reading and writing the signed file of hot rules.

Numbered as it is checked:
1. One of the configured persons' keys signed the content.
2. It says only things that this version knows; ids are single.
3. Each rule is a pattern or a known text, ends, and within 30 days of its beginning.
4. A rule that acts carries its benign cost and the signatures of enough distinct persons under
   exactly this rule, or one person's for a day at most.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safehold.errors import ConfigError
from safehold.guard.bundle.signing import fingerprint, load_public_key
from safehold.guard.overlay.interface import (
    BROKEN_GLASS_S,
    DAY_S,
    MOST_DAYS,
    MOST_RULES,
    HotRule,
    OverlayContent,
    OverlayError,
    PlacedRule,
    RuleApproval,
    RuleState,
)

_FILE = b"safehold-hot-rules/1\0"
_APPROVAL = b"safehold-hot-rule-approval/1\0"
MAX_FILE_BYTES = 128 << 20


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    content: str
    person: str
    key: str
    signature: str


class RuleQuorum(msgspec.Struct, frozen=True):
    """Whose signatures count (by person), and how many distinct persons let a rule act."""

    keys: Mapping[str, Ed25519PublicKey]
    needed: int = 2

    def person_of(self, person: str, key: str, signature: str, message: bytes) -> str | None:
        """Return the person if the signature is theirs under the message, else None."""
        known = self.keys.get(person)
        if known is None or fingerprint(known) != key:
            return None
        try:
            known.verify(base64.b64decode(signature, validate=True), message)
        except (InvalidSignature, binascii.Error, ValueError):
            return None
        return person

    def check_signer(self, person: str, key: Ed25519PrivateKey) -> None:
        """Refuse to sign for a person with somebody else's key: nobody would count the signature.

        Raises:
            ConfigError: The person's public key was not given, or it belongs to another key.
        """
        known, came = self.keys.get(person), fingerprint(key.public_key())
        if known is None:
            raise ConfigError(
                f"no public key was given for {person!r}, who signs; there are keys of: "
                f"{', '.join(self.keys)}"
            )
        if fingerprint(known) != came:
            owner = next((name for name, one in self.keys.items() if fingerprint(one) == came), "")
            raise ConfigError(
                f"expected the private key of {person!r} ({fingerprint(known)}), got "
                f"{f'that of {owner!r}' if owner else 'another one'} ({came})"
            )


def quorum_of(keys: Mapping[str, str], needed: int) -> RuleQuorum:
    """Return the quorum of persons by the files of their public keys.

    Raises:
        ConfigError: A key can't be read, two persons share one, or there are fewer than needed.
    """
    loaded = {person: load_public_key(Path(file)) for person, file in keys.items()}
    if len({fingerprint(key) for key in loaded.values()}) != len(loaded):
        raise ConfigError("hot rules: two persons have the same key")
    if not 1 <= needed <= len(loaded):
        raise ConfigError(f"hot rules: {needed} approvals are needed of {len(loaded)} persons")
    return RuleQuorum(keys=loaded, needed=needed)


def approve(rule: HotRule, person: str, key: Ed25519PrivateKey) -> RuleApproval:
    """Return a person's signature under a rule."""
    signature = base64.b64encode(key.sign(_APPROVAL + rule.digest.encode())).decode()
    return RuleApproval(person=person, key=fingerprint(key.public_key()), signature=signature)


def approvers(placed: PlacedRule, quorum: RuleQuorum) -> frozenset[str]:
    """Return the distinct persons whose signatures under the rule hold."""
    message = _APPROVAL + placed.rule.digest.encode()
    found = (
        quorum.person_of(one.person, one.key, one.signature, message) for one in placed.approvals
    )
    return frozenset(person for person in found if person is not None)


def sealed(content: OverlayContent, person: str, key: Ed25519PrivateKey) -> bytes:
    """Return the signed file."""
    body = msgspec.json.encode(content)
    signature = base64.b64encode(key.sign(_FILE + body)).decode()
    envelope = _Signed(
        content=base64.b64encode(body).decode(),
        person=person,
        key=fingerprint(key.public_key()),
        signature=signature,
    )
    return msgspec.json.encode(envelope)


def opened(data: bytes, quorum: RuleQuorum) -> OverlayContent:
    """Return the content of a signed file.

    Raises:
        OverlayError: It does not verify, or a rule in it may not be what it says.
    """
    if len(data) > MAX_FILE_BYTES:
        raise OverlayError("hot rules: the file is larger than any file of rules")
    # 1.
    try:
        envelope = msgspec.json.decode(data, type=_Signed)
        body = base64.b64decode(envelope.content, validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise OverlayError("hot rules: expected a signed file of hot rules") from error
    signer = quorum.person_of(envelope.person, envelope.key, envelope.signature, _FILE + body)
    if signer is None:
        raise OverlayError("hot rules: no configured person signed this content")
    # 2.
    try:
        content = msgspec.json.decode(body, type=OverlayContent)
    except msgspec.DecodeError as error:
        raise OverlayError(f"hot rules: the content does not follow its schema: {error}") from error
    check(content.rules, quorum)
    return content


def check(rules: Sequence[PlacedRule], quorum: RuleQuorum) -> None:
    """Refuse rules that may not be what they say.

    Raises:
        OverlayError: The message names the rule and what is missing.
    """
    if len(rules) > MOST_RULES:
        raise OverlayError(f"hot rules: expected at most {MOST_RULES}, came {len(rules)}")
    seen: set[str] = set()
    for placed in rules:
        rule = placed.rule
        if rule.id in seen:
            raise OverlayError(f"hot rule {rule.id}: its id is there twice")
        seen.add(rule.id)
        # 3.
        if bool(rule.pattern) is bool(rule.text):
            raise OverlayError(f"hot rule {rule.id}: expected either a pattern or a known text")
        if not 0 < rule.expires - rule.created <= MOST_DAYS * DAY_S:
            raise OverlayError(f"hot rule {rule.id}: expected an end within {MOST_DAYS} days")
        # 4.
        if placed.state is RuleState.ACTING:
            _may_act(placed, quorum)


def _may_act(placed: PlacedRule, quorum: RuleQuorum) -> None:
    rule = placed.rule
    if rule.cost is None or rule.cost.n < 1:
        raise OverlayError(f"hot rule {rule.id}: it may not act before its benign cost is known")
    persons = approvers(placed, quorum)
    if placed.broken_glass:
        if not persons:
            raise OverlayError(f"hot rule {rule.id}: nobody let it act")
        if rule.expires - rule.created > BROKEN_GLASS_S:
            raise OverlayError(f"hot rule {rule.id}: one person alone lets a rule act for a day")
    elif len(persons) < quorum.needed:
        raise OverlayError(
            f"hot rule {rule.id}: {quorum.needed} persons let a rule act, came {len(persons)}"
        )
