"""What the approval page and other clients can ask and post, as values."""

from typing import Any

import msgspec
from starlette.requests import Request

from safehold.canonical import canonical
from safehold.console.approvals.challenges import EnrolmentChallenges
from safehold.trust.grants.approval_text import in_words
from safehold.trust.grants.details import AddKey
from safehold.trust.grants.events import DecisionNote
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.holding import check_held, holding_of
from safehold.trust.grants.interface import Granted, GrantError, Refused, SignedRequest
from safehold.trust.people.interface import (
    Passkey,
    PasskeyProof,
    Proof,
    Roster,
    SignatureError,
    SshProof,
)
from safehold.trust.people.passkey import b64url, unb64url, verify_registration
from safehold.trust.text import Line


class PageAssertion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="assertion"):
    """A browser's assertion: whose key it is, the server finds out by the credential."""

    credential_id: str
    authenticator_data: str
    client_data_json: str
    signature: str


class Approve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an approval."""

    proof: PageAssertion | SshProof | PasskeyProof


class NoteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a denial, a revocation, an end or a review."""

    text: Line
    proof: PageAssertion | SshProof | PasskeyProof


class EnrolmentOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body that begins a passkey's enrolment."""

    person: str


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body that ends it: the challenge it was given, and the browser's response."""

    challenge: str
    response: dict[str, Any]


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body that makes the offer: the new key of a person, and that key's assertion."""

    change: AddKey
    proof: PageAssertion


class ApprovalsApi:
    """Handlers: each takes the request and its body, and returns what becomes JSON."""

    def __init__(self, desk: Desk, challenges: EnrolmentChallenges) -> None:
        self._desk = desk
        self._challenges = challenges

    def list(self, request: Request, body: bytes) -> object:
        """Return the open requests, newest first."""
        del request, body
        with self._desk.reading():
            state, now = self._desk.state, self._desk.now()
            return [
                {
                    "sha256": digest,
                    "operation": case.signed.request.operation,
                    "requester": case.signed.request.requester,
                    "purpose": case.signed.request.purpose,
                    "expires": case.signed.request.expires,
                    "approvals": len(case.approvers),
                }
                for digest, case in reversed(state.cases.live())
                if not case.closed and case.signed.request.expires > now
            ]

    def show(self, request: Request, body: bytes) -> object:
        """Return one request: in words, in its signed bytes, and how it stands."""
        del body
        with self._desk.reading():
            state = self._desk.state
            case = state.case(request.path_params["id"])
            asked = case.signed.request
            decision = state.decide(asked.sha256, self._desk.now())
            rp = state.policy.relying_party
            return {
                "sha256": asked.sha256,
                "canonical": canonical(asked).decode(),
                "words": in_words(asked, state.roster),
                "approved_by": [_name(state.roster, one) for one in case.approvers],
                "status": _status(decision),
                "rp_id": rp.rp_id,
                "credentials": _credentials(state.roster, asked.requester),
            }

    def file(self, request: Request, body: bytes) -> object:
        """Record a signed request."""
        del request
        return {"sha256": self._desk.request(msgspec.json.decode(body, type=SignedRequest))}

    def approve(self, request: Request, body: bytes) -> object:
        """Record an approval."""
        posted = msgspec.json.decode(body, type=Approve)
        with self._desk.store.exclusive():
            digest = self._digest(request)
            decision = self._desk.approve(digest, self._proof(posted.proof))
            return {"status": _status(decision)}

    def note(self, request: Request, body: bytes) -> object:
        """Record a denial, a revocation, an end or a review."""
        posted = msgspec.json.decode(body, type=NoteBody)
        with self._desk.store.exclusive():
            note = DecisionNote(request=self._digest(request), text=posted.text)
            acts = {
                "deny": self._desk.deny,
                "revoke": self._desk.revoke,
                "end": self._desk.end,
                "review": self._desk.review,
            }
            act = request.path_params["act"]
            if act not in acts:
                raise GrantError(f"expected one of {', '.join(acts)}")
            acts[act](note, self._proof(posted.proof))
            return {"status": act}

    def enrolment_options(self, request: Request, body: bytes) -> object:
        """Return the options of a passkey's creation, with a challenge for one use."""
        del request
        posted = msgspec.json.decode(body, type=EnrolmentOptions)
        with self._desk.reading():
            state = self._desk.state
            person = state.roster.person(posted.person)
            if person is None:
                raise GrantError("expected the id of an enrolled person")
            rp_id = state.policy.relying_party.rp_id
            return {
                "challenge": self._challenges.give(person.id),
                "rp": {"id": rp_id, "name": "Safehold"},
                "user": {
                    "id": b64url(person.id.encode()),
                    "name": person.id,
                    "displayName": person.name,
                },
                "exclude": [key.credential_id for key in person.keys if isinstance(key, Passkey)],
            }

    def enrolment(self, request: Request, body: bytes) -> object:
        """Return the verified passkey, and what it signs so that it can be offered."""
        del request
        posted = msgspec.json.decode(body, type=Enrolment)
        person = self._challenges.spend(posted.challenge)
        with self._desk.reading():
            state = self._desk.state
            passkey = verify_registration(
                msgspec.json.encode(posted.response).decode(),
                challenge=unb64url(posted.challenge),
                relying_party=state.policy.relying_party,
            )
            change = AddKey(person, passkey)
            # Said now, not by the colleague who asks for it: who was removed, a key of before.
            state.roster.add_key(person, passkey)
            return {
                "change": change,
                "canonical": canonical(holding_of(state.founding_sha256, change)).decode(),
                "rp_id": state.policy.relying_party.rp_id,
            }

    def offer(self, request: Request, body: bytes) -> AddKey:
        """Return the offer: the key that was made, with its own signature under its enrolment."""
        del request
        posted = msgspec.json.decode(body, type=Offer)
        key, proof = posted.change.key, posted.proof
        made = PasskeyProof(
            key_id=key.key_id,
            credential_id=proof.credential_id,
            authenticator_data=proof.authenticator_data,
            client_data_json=proof.client_data_json,
            signature=proof.signature,
        )
        change = msgspec.structs.replace(posted.change, held=(made,))
        with self._desk.reading():
            state = self._desk.state
            check_held(state.founding_sha256, change, state.policy.relying_party)
            state.roster.add_key(change.person_id, change.key)
        return change

    def _digest(self, request: Request) -> str:
        return self._desk.state.case(request.path_params["id"]).signed.request.sha256

    def _proof(self, posted: PageAssertion | SshProof | PasskeyProof) -> Proof:
        if not isinstance(posted, PageAssertion):
            return posted
        for person in self._desk.state.roster.persons:
            for key in person.keys:
                if isinstance(key, Passkey) and key.credential_id == posted.credential_id:
                    return PasskeyProof(
                        key_id=key.key_id,
                        credential_id=posted.credential_id,
                        authenticator_data=posted.authenticator_data,
                        client_data_json=posted.client_data_json,
                        signature=posted.signature,
                    )
        raise SignatureError("expected the passkey of an enrolled person, got an unknown one")


def _status(decision: Granted | Refused) -> str:
    if isinstance(decision, Granted):
        return f"granted, {decision.uses_left} use(s) left"
    return f"{decision.reason.value}: {decision.detail}"


def _name(roster: Roster, person_id: str) -> str:
    person = roster.person(person_id)
    return person_id if person is None else person.name


def _credentials(roster: Roster, requester: str) -> "list[str]":
    """Return the passkeys that the browser may offer: nobody approves their own request."""
    return [
        key.credential_id
        for person in roster.persons
        if person.id != requester
        for key in person.keys
        if isinstance(key, Passkey)
    ]
