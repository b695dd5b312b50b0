"""Weaker, equal, stronger: decided by field, never by the one who asks."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.guard.gateway.bundles.loading import RulesFile
from safehold.guard.gateway.policy import Settings
from safehold.trust.release.order_table import ORDERS
from safehold.trust.release.orders import Fewer, GuardDirection, Higher, Lower, Part, Ranked, Rows
from safehold.trust.release.weaker import changes, settings_document, weakens

W, E, S = GuardDirection.WEAKER, GuardDirection.EQUAL, GuardDirection.STRONGER
KEY = {"id": "k", "sha256": "a" * 64, "tenant": "t", "surfaces": [], "policies": {}, "admin": False}
BUDGET = {"requests_per_minute": None, "tokens_per_day": 5, "flags_per_day": 3}
FLOW: dict[str, Any] = {
    "id": "f",
    "owner": "ana",
    "purpose": "logs",
    "data_class": "internal",
    "ports": [443],
    "destination": ["10.0.0.0/8", "fd00::/8"],
    "budget": {"hour": 10},
    "expires": "2026-12-01",
    "reconciled": False,
}
RULE = {"operation": "weights.load", "thresholds": [{"team": "a", "count": 2}], "max_uses": 1}
CASES: list[tuple[str, dict[str, Any], dict[str, Any], GuardDirection]] = [
    # Gateway: numbers.
    ("gateway", {"default": {"hold_tokens": 16}}, {"default": {"hold_tokens": 15}}, W),
    ("gateway", {"default": {"hold_tokens": 16}}, {"default": {"hold_tokens": 17}}, S),
    ("gateway", {"default": {"doubt_tokens": 64}}, {"default": {"doubt_tokens": 0}}, W),
    ("gateway", {"default": {"decoded_tokens": 8}}, {"default": {"decoded_tokens": 9}}, S),
    ("gateway", {"limits": {"max_body_bytes": 8}}, {"limits": {"max_body_bytes": 9}}, W),
    ("gateway", {"limits": {"max_body_bytes": 8}}, {"limits": {"max_body_bytes": 7}}, S),
    ("gateway", {"canary": {"every_s": 300.0}}, {"canary": {"every_s": 1e9}}, W),
    ("gateway", {"canary": {"every_s": 300.0}}, {"canary": {"every_s": 30.0}}, S),
    ("gateway", {"canary": {"every_s": 300.0}}, {"canary": {"every_s": float("nan")}}, W),
    ("gateway", {"canary": {"every_s": 300.0}}, {"canary": {"every_s": "1"}}, W),
    # Gateway: switches.
    ("gateway", {"default": {"shadow": False}}, {"default": {"shadow": True}}, W),
    ("gateway", {"default": {"shadow": True}}, {"default": {"shadow": False}}, S),
    ("gateway", {"default": {"closed": True}}, {"default": {"closed": False}}, W),
    ("gateway", {"default": {"closed": False}}, {"default": {"closed": True}}, S),
    ("gateway", {"canary": {"enabled": True}}, {"canary": {"enabled": False}}, W),
    ("gateway", {"unsafe_unsigned_bundle": False}, {"unsafe_unsigned_bundle": True}, W),
    # Gateway: named values.
    ("gateway", {"default": {"mode": "hold"}}, {"default": {"mode": "audit"}}, W),
    ("gateway", {"default": {"mode": "hold"}}, {"default": {"mode": "full"}}, S),
    ("gateway", {"default": {"mode": "hold"}}, {"default": {"mode": "none-such"}}, W),
    ("gateway", {"default": {"on_block": "block"}}, {"default": {"on_block": "fallback"}}, W),
    (
        "gateway",
        {"default": {"fail_mode_stage1": "block"}},
        {"default": {"fail_mode_stage1": "bypass"}},
        W,
    ),
    (
        "gateway",
        {"default": {"ledger_fail_mode": "bypass"}},
        {"default": {"ledger_fail_mode": "block"}},
        S,
    ),
    ("gateway", {"default": {"category": "x"}}, {"default": {"category": "y"}}, E),
    ("gateway", {"port": 1}, {"port": 2}, E),
    ("gateway", {"embeddings": "refuse"}, {"embeddings": "pass"}, W),
    (
        "gateway",
        {"default": {"rules": {"images": "refuse"}}},
        {"default": {"rules": {"images": "pass"}}},
        W,
    ),
    ("gateway", {"bundle_sha256": "a"}, {"bundle_sha256": "b"}, W),
    # Gateway: rows and lists.
    ("gateway", {"keys": []}, {"keys": [KEY]}, W),
    ("gateway", {"keys": [KEY]}, {"keys": []}, S),
    ("gateway", {"keys": [KEY]}, {"keys": [KEY, KEY]}, W),
    ("gateway", {"keys": [KEY]}, {"keys": [{**KEY, "admin": True}]}, W),
    ("gateway", {"keys": [KEY]}, {"keys": [{**KEY, "surfaces": ["chat"]}]}, S),
    ("gateway", {"keys": [{**KEY, "surfaces": ["chat"]}]}, {"keys": [KEY]}, W),
    (
        "gateway",
        {"keys": [{**KEY, "budget": BUDGET}]},
        {"keys": [{**KEY, "budget": {**BUDGET, "tokens_per_day": None}}]},
        W,
    ),
    (
        "gateway",
        {"keys": [{**KEY, "budget": BUDGET}]},
        {"keys": [{**KEY, "budget": {**BUDGET, "requests_per_minute": 9}}]},
        S,
    ),
    ("gateway", {"keys": [KEY]}, {"keys": [{**KEY, "policies": {"chat": {"shadow": True}}}]}, W),
    ("gateway", {"surfaces": {}}, {"surfaces": {"chat": {"shadow": True}}}, W),
    ("gateway", {"surfaces": {"chat": {"closed": True}}}, {"surfaces": {}}, W),
    ("gateway", {"bundle_keys": ["a", "b"]}, {"bundle_keys": ["a"]}, S),
    ("gateway", {"bundle_keys": ["a"]}, {"bundle_keys": ["b"]}, W),
    ("gateway", {"exemptions": None}, {"exemptions": {"reload_s": 2.0}}, W),
    ("gateway", {"exemptions": {"reload_s": 2.0}}, {"exemptions": None}, S),
    ("gateway", {"explain": {"to": "x"}}, {"explain": None}, W),
    # What nobody has an order for.
    ("gateway", {"port": 1}, {"port": 1, "brand_new": 0}, W),
    ("gateway", {"port": 1, "workers": 2}, {"port": 1}, W),
    ("gateway", {"never_seen": 1}, {"never_seen": 2}, W),
    ("gateway", {"default": {"shadow": False}}, {"default": 5}, W),
    # Rules and constitution.
    ("rules", {"rules": [{"id": "r", "pattern": "x"}]}, {"rules": []}, W),
    ("rules", {"rules": []}, {"rules": [{"id": "r", "pattern": "x"}]}, S),
    (
        "rules",
        {"rules": [{"id": "r", "pattern": "x"}]},
        {"rules": [{"id": "r", "pattern": "y"}]},
        W,
    ),
    (
        "rules",
        {"known_attacks": [{"id": "r", "at_least": 0.5}]},
        {"known_attacks": [{"id": "r", "at_least": 0.4}]},
        S,
    ),
    ("constitution", {"restricted": [{"id": "a"}, {"id": "b"}]}, {"restricted": [{"id": "a"}]}, W),
    ("constitution", {"restricted": [{"id": "a"}]}, {"restricted": [{"id": "b"}]}, W),
    ("constitution", {"permitted": [{"id": "a"}]}, {"permitted": []}, S),
    ("constitution", {"title": "a"}, {"title": "b"}, E),
    # Egress.
    ("egress-register", {"flows": [FLOW]}, {"flows": [{**FLOW, "ports": [443, 80]}]}, W),
    (
        "egress-register",
        {"flows": [FLOW]},
        {"flows": [{**FLOW, "destination": ["10.1.0.0/16"]}]},
        S,
    ),
    ("egress-register", {"flows": [FLOW]}, {"flows": [{**FLOW, "destination": ["0.0.0.0/0"]}]}, W),
    ("egress-register", {"flows": [FLOW]}, {"flows": [{**FLOW, "budget": {"hour": 11}}]}, W),
    ("egress-register", {"flows": [FLOW]}, {"flows": [{**FLOW, "budget": {}}]}, W),
    (
        "egress-register",
        {"flows": [FLOW]},
        {"flows": [{**FLOW, "budget": {"hour": 10, "day": 1}}]},
        S,
    ),
    ("egress-register", {"flows": [FLOW]}, {"flows": [{**FLOW, "expires": "2027-01-01"}]}, W),
    ("egress-register", {"flows": [FLOW]}, {"flows": [{**FLOW, "owner": "bo"}]}, E),
    ("egress-plan", {"bound": {"alpha": 0.1}}, {"bound": {"alpha": 0.2}}, W),
    ("egress-plan", {"mode": "enforce"}, {"mode": "map"}, W),
    # Grants.
    (
        "grants-policy",
        {"rule": [RULE]},
        {"rule": [{**RULE, "thresholds": [{"team": "a", "count": 1}]}]},
        W,
    ),
    (
        "grants-policy",
        {"rule": [RULE]},
        {"rule": [{**RULE, "thresholds": [{"team": "a", "count": 3}]}]},
        S,
    ),
    (
        "grants-policy",
        {"rule": [RULE]},
        {"rule": [{**RULE, "thresholds": [{"team": "b", "count": 2}]}]},
        W,
    ),
    ("grants-policy", {"rule": [RULE]}, {"rule": [{**RULE, "max_uses": 2}]}, W),
    ("grants-policy", {"rule": [RULE]}, {"rule": []}, S),
]


@pytest.mark.parametrize(("kind", "old", "new", "expected"), CASES)
def test_direction_of_a_change(
    kind: str, old: dict[str, Any], new: dict[str, Any], expected: GuardDirection
) -> None:
    """Each change is weaker, equal or stronger as the table of cases says."""
    found = {change.direction for change in changes(kind, old, new)}
    if expected is W:
        assert W in found
    else:
        assert found == {expected}


def test_there_are_sixty_cases() -> None:
    """The table of cases stays as large as it is said to be."""
    assert len(CASES) >= 60


def test_a_loosened_field_is_not_hidden_by_a_tightened_one() -> None:
    """One weaker field makes the whole change weaker, whatever else got stronger."""
    old = settings_document(Settings())
    assert isinstance(old, dict)
    new = copy.deepcopy(old)
    new["default"]["hold_tokens"] = 4000
    new["canary"]["enabled"] = False
    assert weakens(changes("gateway", old, new))


def test_truth_value_in_place_of_a_number_is_seen() -> None:
    """True is not taken for 1 inside of rows."""
    old = {"keys": [{**KEY, "admin": 0}]}
    new = {"keys": [{**KEY, "admin": True}]}
    assert weakens(changes("gateway", old, new))


def test_a_changed_default_is_a_change() -> None:
    """The documents hold defaults, so a file that did not change can still guard less."""
    document = settings_document(RulesFile())
    assert document == {"rules": [], "known_attacks": []}


NUMBERS = st.one_of(st.none(), st.integers(-5, 5), st.floats(-5, 5))
ORDERED = st.sampled_from(
    [
        (Lower(), NUMBERS),
        (Higher(), st.floats(-5, 5)),
        (Ranked(("a", "b", "c")), st.sampled_from("abc")),
        (Fewer(), st.lists(st.sampled_from("abcd"))),
        (Fewer(empty_is_all=True), st.lists(st.sampled_from("abcd"))),
    ]
)


@given(st.data())
def test_nothing_gets_stronger_both_ways(data: st.DataObject) -> None:
    """If one way is stronger, the way back is weaker: no walk in small steps gets around it."""
    order, values = data.draw(ORDERED)
    old, new = data.draw(values), data.draw(values)
    there, back = order.compare(old, new), order.compare(new, old)
    if there is S:
        assert back is W
    if there is E:
        assert back is E


@given(
    st.sampled_from(
        sorted(path for path, order in ORDERS.items() if not isinstance(order, Rows | Part))
    )
)
def test_a_value_of_another_kind_is_never_stronger(path: str) -> None:
    """What an order can't read is weaker, or free."""
    assert ORDERS[path].compare({"odd": object()}, object()) is not S
