"""Poison is void: no leaf that the holder of the log's key can append stops a reader.

`make test` runs some hundreds of changed leaves, `make soak` 100,000 (or SAFEHOLD_SOAK_LEAVES).
"""

import os
import random
import time
from collections import Counter

import click
import pytest
from leaf_fuzz import all_types, lawful, poisoned, request
from quorum_history import FIRST, FOUNDING, ORIGIN, START, state_of

from safehold.stats import upper_bound
from safehold.testing.trust import SoftPasskey
from safehold.trust.grants.events import Approved, DecisionNote, Requested, Revoked
from safehold.trust.grants.interface import SignedRequest
from safehold.trust.grants.leaf_reader import take_entry
from safehold.trust.grants.state import TrustState
from safehold.trust.log.note import SigningKey
from safehold.trust.people.interface import Person
from safehold.trust.people.statement import Act

LEAVES = int(os.environ.get("SAFEHOLD_SOAK_LEAVES", "100000"))
KEY = SigningKey.generate(ORIGIN)
EMITTERS = {KEY.verifier.label: KEY.verifier}
PASSKEY = SoftPasskey(b"fuzz")


def fresh() -> TrustState:
    """Return a founded state with an open request, and a member who has a passkey."""
    state = state_of(FOUNDING)
    persons = []
    for person in state.roster.persons:
        keys = (*person.keys, PASSKEY.key) if person.name == "dev-two" else person.keys
        persons.append(
            Person(person.id, person.name, person.kind, person.roles, person.teams, keys)
        )
    state.roster = type(state.roster)(persons=tuple(persons), teams=state.roster.teams)
    asked = request()
    filed = Requested(START, SignedRequest(asked, FIRST["dev-one"].sign(Act.REQUEST, asked)))
    assert state.apply(0, filed)
    return state


def fuzz(count: int, lot: random.Random, kinds: Counter[str]) -> int:
    """Append so many changed leaves; return how many were void. Nothing else may be raised."""
    leaves = lawful()
    assert all_types(leaves)
    void = 0
    state = fresh()
    for number in range(count):
        if number % 50 == 0:
            state = fresh()
        kind, entry = poisoned(lot, leaves, KEY)
        kinds[kind] += 1
        before = len(state.voids)
        held = (state.roster, state.policy, state.founding_sha256, state.last_time)
        take_entry(state, number + 1, entry, EMITTERS)
        if len(state.voids) > before:
            void += 1
            after = (state.roster, state.policy, state.founding_sha256, state.last_time)
            assert after == held, "a void leaf had an effect"
        state.head(number)
        state.exemptions()
        # What protects goes on: a request is filed, approved and revoked after the poison.
        if number % 50 == 49:
            honest(state, number)
    return void


def honest(state: TrustState, number: int) -> None:
    """File, approve and revoke a request, whatever was appended before."""
    state.last_time = min(state.last_time, START + 10**6)
    asked = request(nonce=f"{number:032x}", not_before=state.last_time)
    if state.roster.person(asked.requester) is None:
        return
    proof = FIRST["dev-one"].sign(Act.REQUEST, asked)
    assert state.apply(0, Requested(state.last_time, SignedRequest(asked, proof)))
    approved = Approved(state.last_time, asked.sha256, FIRST["dev-two"].sign(Act.APPROVE, asked))
    assert state.apply(0, approved)
    note = DecisionNote(asked.sha256, "fuzz")
    assert state.apply(0, Revoked(0, note, FIRST["sec-one"].sign(Act.REVOKE, note)))


def test_no_changed_leaf_stops_a_reader() -> None:
    """Hundreds of changed leaves of every type are void or lawful, and never fatal."""
    kinds: Counter[str] = Counter()
    assert fuzz(400, random.Random(7), kinds) > 200
    assert len(kinds) == 14


@pytest.mark.soak
def test_no_changed_leaf_stops_a_reader_in_100_000(capsys: pytest.CaptureFixture[str]) -> None:
    """The same over 100,000 leaves; what was reached is printed."""
    kinds: Counter[str] = Counter()
    began = time.process_time()
    void = fuzz(LEAVES, random.Random(11), kinds)
    with capsys.disabled():
        click.echo(
            f"\nleaves: {LEAVES:,} changed leaves of {len(kinds)} kinds in "
            f"{time.process_time() - began:.0f} s of CPU; {void:,} void; readers stopped: 0 "
            f"(95% bound {upper_bound(0, LEAVES):.1e})"
        )
    assert void > LEAVES // 2
