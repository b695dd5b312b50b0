"""Logging in with a passkey of the roster: one challenge, one assertion, one new token.

The browser computes the challenge from the server's nonce under a name of its own
(`safehold-login/1`), so an assertion for a login can never be one for an approval.
"""

import hashlib
import hmac
import secrets

import msgspec

from safehold.canonical import canonical
from safehold.console.shell.access import roles_of
from safehold.console.shell.logins import Logins
from safehold.errors import TrustError
from safehold.trust.grants.grant_service import Desk
from safehold.trust.people.interface import (
    Kind,
    Passkey,
    PasskeyProof,
    Person,
    Roster,
    SignatureError,
)
from safehold.trust.people.passkey import b64url, verify_assertion

_DECOY_BYTES = 32


class LoginName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants to log in: the name or the id in the roster."""

    name: str


class LoginOptions(msgspec.Struct, frozen=True):
    """What the browser needs for the ceremony."""

    nonce: str
    rp_id: str
    credentials: tuple[str, ...]


class LoginProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The nonce that was given, and the browser's assertion."""

    nonce: str
    credential_id: str
    authenticator_data: str
    client_data_json: str
    signature: str


def login_challenge(nonce: str) -> bytes:
    """Return the 32 bytes that the passkey signs."""
    return hashlib.sha256(b"safehold-login/1\0" + canonical({"nonce": nonce})).digest()


class PasskeyLogin:
    """Judges logins against the roster as the log has it now."""

    def __init__(self, desk: Desk, logins: Logins) -> None:
        self._desk, self._logins = desk, logins
        self._decoys = secrets.token_bytes(32)

    def options(self, asked: LoginName) -> LoginOptions:
        """Return a challenge and the passkeys of that person; a stranger gets one as well.

        Who asks for names learns nothing of the roster: a name that is not there has a passkey
        that nobody holds, always the same one.
        """
        roster, rp = self._desk.state.roster, self._desk.state.policy.relying_party
        person = _named(roster, asked.name)
        keys = () if person is None else person.keys
        credentials = tuple(key.credential_id for key in keys if isinstance(key, Passkey))
        if not credentials:
            name = asked.name.strip().casefold().encode("utf-8", "surrogatepass")
            decoy = hmac.new(self._decoys, name, hashlib.sha256).digest()[:_DECOY_BYTES]
            credentials = (b64url(decoy),)
        return LoginOptions(self._logins.challenge(), rp.rp_id, credentials)

    def login(self, posted: LoginProof) -> str:
        """Return the token of a new login.

        Raises:
            TrustError: the challenge is spent, or nobody with a role of the console signed it.
        """
        # 1. The challenge was given here, lately, and is used once.
        self._logins.spend(posted.nonce)
        # 2. The credential is of a human who is enrolled now.
        state = self._desk.state
        person, key = _holder(state.roster, posted.credential_id)
        # 3. The assertion is over this challenge, by that key, with its user verified.
        proof = PasskeyProof(
            key_id=key.key_id,
            credential_id=posted.credential_id,
            authenticator_data=posted.authenticator_data,
            client_data_json=posted.client_data_json,
            signature=posted.signature,
        )
        count = verify_assertion(
            key,
            proof,
            challenge=login_challenge(posted.nonce),
            relying_party=state.policy.relying_party,
            # A copy may not choose whom it shows its counter to: approvals count here, too.
            counter_floor=max(self._logins.counter(key.key_id), state.sign_count(key.key_id)),
        )
        # 4. The person has a role here.
        if not roles_of(person):
            raise TrustError("you have no role in the console: safehold people assign")
        return self._logins.begin(person.id, key.key_id, sign_count=count)

    def person(self, token: str) -> Person | None:
        """Return who a token stands for, as enrolled now; who was removed is out."""
        login = self._logins.find(token)
        if login is None:
            return None
        person = self._desk.state.roster.person(login.person)
        if person is None or person.kind is not Kind.HUMAN:
            return None
        if login.key_id and login.key_id not in {key.key_id for key in person.keys}:
            return None
        return person


def _named(roster: Roster, name: str) -> Person | None:
    wanted = name.strip().casefold()
    for person in roster.persons:
        if person.kind is Kind.HUMAN and wanted in {person.id, person.name.casefold()}:
            return person
    return None


def _holder(roster: Roster, credential_id: str) -> tuple[Person, Passkey]:
    for person in roster.persons:
        for key in person.keys:
            mine = isinstance(key, Passkey) and key.credential_id == credential_id
            if mine and person.kind is Kind.HUMAN and isinstance(key, Passkey):
                return person, key
    raise SignatureError("expected the passkey of an enrolled person, got an unknown one")
