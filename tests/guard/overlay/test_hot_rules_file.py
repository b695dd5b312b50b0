"""The signed file of hot rules: what may not act does not load, and nothing ends late."""

import json
from base64 import b64decode, b64encode

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import ConfigError
from safehold.guard.bundle.overlay_file import RuleQuorum, approve, opened, sealed
from safehold.guard.overlay.interface import (
    BenignCost,
    HotRule,
    OverlayContent,
    OverlayError,
    PlacedRule,
    RuleState,
)
from safehold.guard.overlay.live import compiled

KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode() * 8) for name in ("anna", "bela")}
STRANGER = Ed25519PrivateKey.from_private_bytes(b"zoot" * 8)
QUORUM = RuleQuorum(keys={name: key.public_key() for name, key in KEYS.items()})
COST = BenignCost(hits=0, n=100, sources={})
RULE = HotRule(
    id="h1",
    clause="beer-production",
    owner="duty",
    incident="i1",
    created=1_000,
    expires=2_000,
    pattern="purple elephant",
    cost=COST,
)
SIGNED = tuple(approve(RULE, name, key) for name, key in KEYS.items())
ACTING = PlacedRule(rule=RULE, state=RuleState.ACTING, approvals=SIGNED)


def file_of(*rules: PlacedRule, serial: int = 1) -> bytes:
    """Return the file with these rules, signed by Anna."""
    return sealed(OverlayContent(serial=serial, at=1_000, rules=rules), "anna", KEYS["anna"])


def changed(**fields: object) -> PlacedRule:
    """Return the acting rule with other fields and its approvals of before."""
    return PlacedRule(msgspec.structs.replace(RULE, **fields), RuleState.ACTING, SIGNED)


def test_a_rule_that_two_persons_let_act_acts() -> None:
    """Both signatures hold under exactly this rule."""
    found = compiled(opened(file_of(ACTING), QUORUM), now=1_500, version=1)
    assert found.hits["h1"].acted
    assert found.changes_at == 2_000


def test_it_begins_and_ends_by_itself() -> None:
    """Before its beginning and from its end on it is not searched."""
    content = opened(file_of(ACTING), QUORUM)
    for now in (999.9, 2_000.0, 5_000.0):
        assert compiled(content, now=now, version=1).rules is None


@pytest.mark.parametrize(
    "rule",
    [
        PlacedRule(RULE, RuleState.ACTING),
        PlacedRule(RULE, RuleState.ACTING, SIGNED[:1]),
        PlacedRule(RULE, RuleState.ACTING, SIGNED[:1] * 2),
        PlacedRule(RULE, RuleState.ACTING, (SIGNED[0], approve(RULE, "bela", KEYS["anna"]))),
        PlacedRule(RULE, RuleState.ACTING, (SIGNED[0], approve(RULE, "bela", STRANGER))),
        PlacedRule(RULE, RuleState.ACTING, (SIGNED[0], approve(RULE, "carl", STRANGER))),
        PlacedRule(RULE, RuleState.ACTING, (), broken_glass=True),
        changed(pattern="elephant"),
        changed(clause="other"),
        changed(expires=1_999),
        changed(cost=BenignCost(hits=0, n=10_000, sources={})),
        changed(cost=None),
        changed(pattern="", text=""),
        changed(text="both a pattern and a text"),
        changed(expires=1_000),
        changed(expires=1_000 + 31 * 86_400),
    ],
)
def test_what_may_not_act_does_not_load(rule: PlacedRule) -> None:
    """Too few persons, one twice, a stranger, another rule than was signed, no cost, no end."""
    with pytest.raises(OverlayError):
        opened(file_of(rule), QUORUM)


def test_one_person_lets_a_rule_act_for_a_day_at_most() -> None:
    """Broken glass holds for 24 hours, its near miss of a second more does not."""
    for lasts, good in ((86_400, True), (86_401, False)):
        rule = msgspec.structs.replace(RULE, expires=1_000 + lasts)
        signed = (approve(rule, "anna", KEYS["anna"]),)
        placed = PlacedRule(rule, RuleState.ACTING, signed, broken_glass=True)
        if good:
            opened(file_of(placed), QUORUM)
        else:
            with pytest.raises(OverlayError):
                opened(file_of(placed), QUORUM)


def test_a_shadow_rule_needs_nobody_and_stops_nothing() -> None:
    """It is compiled and searched, and its hit does not act."""
    shadow = PlacedRule(msgspec.structs.replace(RULE, cost=None))
    found = compiled(opened(file_of(shadow), QUORUM), now=1_500, version=1)
    assert not found.hits["h1"].acted


def test_a_changed_byte_or_a_strangers_file_is_refused() -> None:
    """Each field of the envelope is checked, and so is the content."""
    good = json.loads(file_of(ACTING))
    other = b64decode(good["content"]).replace(b"purple", b"yellow")
    for field, value in (
        ("content", b64encode(other).decode()),
        ("content", "nonsense"),
        ("person", "bela"),
        ("person", "carl"),
        ("key", "0" * 16),
        ("signature", b64encode(bytes(64)).decode()),
    ):
        with pytest.raises(OverlayError):
            opened(json.dumps(good | {field: value}).encode(), QUORUM)
    with pytest.raises(OverlayError):
        opened(sealed(OverlayContent(serial=1, at=1), "anna", STRANGER), QUORUM)


@pytest.mark.parametrize(
    "fields", [{"pattern": "("}, {"pattern": "x*"}, {"pattern": "", "text": "a"}]
)
def test_a_rule_that_can_not_be_searched_is_refused(fields: dict[str, str]) -> None:
    """A broken pattern, one that matches nothing at all, and a snippet are errors."""
    placed = PlacedRule(msgspec.structs.replace(RULE, **fields))
    with pytest.raises((OverlayError, ConfigError)):
        compiled(opened(file_of(placed), QUORUM), now=1_500, version=1)
