"""A hot rule, a trial and the persons who sign them, for the tests of what a response writes."""

from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.detect.redteam.interface import Wrapper
from safehold.guard.bundle.overlay_file import RuleQuorum
from safehold.guard.gateway.bundles.trial_file import TrialPlan
from safehold.guard.overlay.interface import BenignCost, HotRule
from safehold.improve.response.interface import Dress, Incident, IncidentKind

DRESS = Dress(Wrapper(family="c1", text="around <<ask>>"), (), "ask")
"""What the incident's prompt is dressed in."""
_INCIDENT = Incident(
    id="c1", kind=IncidentKind.MISS, at=1_000, text="text", clause="c", source="s", reporter="anna"
)
_RULE = HotRule(
    id="c1-rule",
    clause="c",
    owner="anna",
    incident="c1",
    created=1_000,
    expires=90_000,
    pattern="red barrel",
    cost=BenignCost(0, 10, {}),
)
_PLAN = TrialPlan(
    id="t1", serial=1, champion="a" * 64, challenger="b" * 64, folder="b", report="c" * 64, least=1
)


def signing_keys(*persons: str) -> dict[str, Ed25519PrivateKey]:
    """Return a key for each person, whose name has four letters: the same key for the same name."""
    return {name: Ed25519PrivateKey.from_private_bytes(name.encode() * 8) for name in persons}


def quorum_of(keys: dict[str, Ed25519PrivateKey]) -> RuleQuorum:
    """Return the quorum of these persons: any two of them."""
    return RuleQuorum(keys={name: key.public_key() for name, key in keys.items()})


def incident(**changes: Any) -> Incident:
    """Return a miss, with some fields changed."""
    return msgspec.structs.replace(_INCIDENT, **changes)


def hot_rule(**changes: Any) -> HotRule:
    """Return a rule that stops one phrase, with some fields changed."""
    return msgspec.structs.replace(_RULE, **changes)


def trial_plan(**changes: Any) -> TrialPlan:
    """Return the beginning of a trial, with some fields changed."""
    return msgspec.structs.replace(_PLAN, **changes)
