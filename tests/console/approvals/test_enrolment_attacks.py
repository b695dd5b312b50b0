"""A passkey's enrolment by its API, attacked: what another page, key, browser or time can do."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from safehold.console.approvals import approvals_app
from safehold.testing.trust import GOVERNING, POLICY, Enclave, SoftPasskey, person_id
from safehold.trust.grants.details import AddKey, RemoveKey, RemovePerson
from safehold.trust.grants.holding import holding_of
from safehold.trust.people.interface import PasskeyProof
from safehold.trust.people.statement import Act

ADA = person_id("dev-one")
BEN = person_id("dev-two")


class Door:
    """An enclave, the door where its people enrol passkeys, and a clock that can be moved."""

    def __init__(self, root: Path) -> None:
        self.enclave = Enclave(root / "log", policy=POLICY + GOVERNING)
        self.late = 0.0
        app = approvals_app(self.enclave.desk, clock=lambda: time.monotonic() + self.late)
        self.http = TestClient(app, base_url="http://localhost:8443")

    def asked(self, person: str = ADA) -> str:
        """Return a new challenge."""
        answer = self.http.post("/api/enrolment/options", json={"person": person})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["challenge"])

    def made(self, challenge: str, response: dict[str, Any]) -> httpx.Response:
        """Send a registration."""
        return self.http.post("/api/enrolment", json={"challenge": challenge, "response": response})

    def offered(
        self, key: SoftPasskey, change: AddKey, held: AddKey | None = None, **client: Any
    ) -> httpx.Response:
        """Send a key with its signature under its own enrolment, or under `held`."""
        proof = key.sign(
            Act.HOLD, holding_of(self.enclave.founding_sha256(), held or change), **client
        )
        assert isinstance(proof, PasskeyProof)
        said = msgspec.to_builtins(proof)
        fields = ("credential_id", "authenticator_data", "client_data_json", "signature")
        body = {"type": "assertion", **{name: said[name] for name in fields}}
        plain = msgspec.to_builtins(change)
        return self.http.post("/api/enrolment/offer", json={"change": plain, "proof": body})


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Return a door that is open."""
    door = Door(tmp_path)
    with door.http:
        yield door


def added(key: SoftPasskey, person: str = ADA) -> AddKey:
    """Return the change that enrols a key."""
    assert not isinstance(key.key, str)
    return AddKey(person, key.key)


def test_a_passkey_is_made_offered_and_counts_once_others_asked_for_it(door: Door) -> None:
    """The benign twin of all that follows."""
    key = SoftPasskey(b"new")
    made = door.made(challenge := door.asked(), key.register(challenge))
    assert made.status_code == 200, made.text
    assert made.json()["change"]["person_id"] == ADA
    offer = door.offered(key, added(key))
    assert offer.status_code == 200, offer.text
    assert msgspec.convert(offer.json(), AddKey).held
    assert key.key not in [one for p in door.enclave.desk.state.roster.persons for one in p.keys]


@pytest.mark.parametrize(
    "lie",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:8444"},
        {"rp_id": "evil.example"},
        {"flags": 0x41},
        {"flags": 0x44},
        {"flags": 0x05},
        {"client": {"type": "webauthn.get"}},
        {"client": {"crossOrigin": True}},
        {"client": {"topOrigin": "https://evil.example"}},
        {"client": {"challenge": "AAAA"}},
    ],
)
def test_a_registration_of_another_page_or_without_its_user_enrols_nobody(
    door: Door, lie: dict[str, Any]
) -> None:
    """Origin, site, frame, ceremony, challenge, presence and verification are each looked at."""
    challenge = door.asked()
    refused = door.made(challenge, SoftPasskey(b"new").register(challenge, **lie))
    assert refused.status_code in {403, 409}
    assert "for this site" in refused.json()["error"]


def test_a_challenge_serves_one_browser_once_and_for_five_minutes(door: Door) -> None:
    """Two browsers with one challenge: the second is refused, whoever it is; a late one, too."""
    one, two = SoftPasskey(b"one"), SoftPasskey(b"two")
    challenge = door.asked()
    assert door.made(challenge, one.register(challenge)).status_code == 200
    for key in (two, one):
        again = door.made(challenge, key.register(challenge))
        assert again.status_code == 403
        assert "within five minutes" in again.json()["error"]
    challenge = door.asked()
    door.late = 301
    assert door.made(challenge, one.register(challenge)).status_code == 403
    mine, theirs = door.asked(ADA), door.asked(BEN)
    crossed = door.made(theirs, one.register(mine))
    assert "for this site" in crossed.json()["error"]
    # A challenge is of the person it was given for: the browser does not say whose the key is.
    challenge = door.asked(BEN)
    assert door.made(challenge, one.register(challenge)).json()["change"]["person_id"] == BEN


def test_two_browsers_may_enrol_two_keys_side_by_side(door: Door) -> None:
    """Each has a challenge of its own; neither takes the other's away."""
    one, two = SoftPasskey(b"one"), SoftPasskey(b"two")
    first, second = door.asked(), door.asked()
    assert door.made(second, two.register(second)).status_code == 200
    assert door.made(first, one.register(first)).status_code == 200


def test_who_asks_for_many_challenges_holds_up_nobody_else(door: Door) -> None:
    """A person's ninth open challenge replaces their first; another person's is there as before."""
    key = SoftPasskey(b"new")
    ben = door.asked(BEN)
    first = door.asked()
    newest = [door.asked() for _ in range(40)][-1]
    assert door.made(first, key.register(first)).status_code == 403
    assert door.made(newest, key.register(newest)).status_code == 200
    assert door.made(ben, key.register(ben)).status_code == 200


@pytest.mark.parametrize("more", range(9))
def test_eight_open_challenges_of_a_person_hold_side_by_side(door: Door, more: int) -> None:
    """Up to seven further ones leave the first as it is; the eighth takes its place."""
    key = SoftPasskey(b"new")
    first = door.asked()
    for _ in range(more):
        door.asked()
    made = door.made(first, key.register(first))
    assert made.status_code == (200 if more < 8 else 403)


def test_an_offer_is_signed_by_its_own_key_for_its_own_person(door: Door) -> None:
    """Another key, another person, another site or an approval's signature makes no offer."""
    key, other = SoftPasskey(b"new"), SoftPasskey(b"other")
    mine = added(key)
    refused = [
        door.offered(other, mine),
        door.offered(key, mine, held=added(key, BEN)),
        door.offered(key, mine, origin="https://evil.example"),
        door.offered(key, mine, rp_id="evil.example"),
        door.offered(key, mine, client={"crossOrigin": True}),
        door.offered(key, mine, client={"type": "webauthn.create"}),
        door.offered(key, mine, client={"challenge": "AAAA"}),
    ]
    assert {one.status_code for one in refused} <= {403, 409}
    assert door.offered(key, mine).status_code == 200


def test_a_key_that_is_or_was_enrolled_is_told_at_the_page(door: Door) -> None:
    """Enrolled twice, by somebody else, after it was taken away, or for who was removed."""
    key = SoftPasskey(b"new")
    door.enclave.carry("people.add-key", door.enclave.adding("dev-one", key))
    for person in (ADA, BEN):
        challenge = door.asked(person)
        again = door.made(challenge, key.register(challenge))
        assert again.status_code == 409
        assert "enrolled before" in again.json()["error"]
        assert "enrolled before" in door.offered(key, added(key, person)).json()["error"]
    assert not isinstance(key.key, str)
    door.enclave.carry("people.remove-key", RemoveKey(ADA, key.key.key_id))
    challenge = door.asked()
    assert "enrolled before" in door.made(challenge, key.register(challenge)).json()["error"]


def test_an_offer_for_somebody_who_was_removed_meanwhile_is_refused(door: Door) -> None:
    """The challenge and the offer of before are worth nothing after the removal."""
    key = SoftPasskey(b"new")
    challenge, later = door.asked(BEN), door.asked(BEN)
    assert door.made(challenge, key.register(challenge)).status_code == 200
    door.enclave.carry("people.remove", RemovePerson(BEN))
    gone = door.made(later, key.register(later))
    assert gone.status_code == 409
    assert door.offered(key, added(key, BEN)).status_code == 409
    answer = door.http.post("/api/enrolment/options", json={"person": BEN})
    assert answer.status_code == 409
