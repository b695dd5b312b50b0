"""Which value of each setting guards more: one line for each field of each kind of settings.

The first part of a path is the kind, `*` stands for a row. A field that is not here counts as
weaker whenever it changes; `tests/trust/release/test_release_order_table.py` walks all types.
"""

from collections.abc import Mapping
from types import MappingProxyType

from safehold.trust.release.orders import (
    Direction,
    Fewer,
    Free,
    Higher,
    Lower,
    More,
    NarrowerNetworks,
    Order,
    Part,
    Pinned,
    Ranked,
    Rows,
)

_W, _S = Direction.WEAKER, Direction.STRONGER
_LOWER, _HIGHER, _FREE, _PINNED = Lower(), Higher(), Free(), Pinned()
_FEWER, _MORE = Fewer(), More()
_GIVES = Rows(added=_W, removed=_S)
"""Rows that let something through: clients, flows, permitted clauses."""
_GUARDS = Rows(added=_S, removed=_W)
"""Rows that stop something: rules, restricted clauses, budgets."""
_EITHER = Rows(added=_W, removed=_W)
"""Rows that replace what holds otherwise: it may be either way, so it counts as weaker."""
_FAIL = Ranked(("block", "bypass"))
_REFUSE = Ranked(("refuse", "pass"))

_SURFACE: dict[str, Order] = {
    "mode": Ranked(("full", "hold", "audit")),
    "hold_tokens": _HIGHER,
    "doubt_tokens": _HIGHER,
    "decoded_tokens": _HIGHER,
    "unreadable_chars": _LOWER,
    "on_block": Ranked(("review", "block", "fallback")),
    "fallback_model": _PINNED,
    "shadow": _LOWER,
    "fail_mode_stage1": _FAIL,
    "fail_mode_stage2": _FAIL,
    "ledger_fail_mode": _FAIL,
    "category": _FREE,
    "closed": _HIGHER,
    "expose_overhead": _LOWER,
    "rules.logprobs": Ranked(("strip", "chosen")),
    "rules.images": _REFUSE,
    "rules.opaque_reasoning": Ranked(("refuse", "drop", "pass")),
    "rules.vendor_tools": Ranked(("refuse", "drop")),
    "rules.unknown_request_fields": Ranked(("refuse", "drop", "pass")),
    "rules.unknown_reply_fields": Ranked(("refuse", "drop", "pass")),
    "rules.max_choices": _LOWER,
    "rules.max_lanes": _LOWER,
}


def _under(prefix: str, fields: Mapping[str, Order]) -> dict[str, Order]:
    return {f"{prefix}.{name}": order for name, order in fields.items()}


_GATEWAY: dict[str, Order] = {
    "host": _PINNED,
    "port": _FREE,
    "workers": _FREE,
    "upstream.url": _PINNED,
    "upstream.api_key_file": _PINNED,
    "upstream.threads": _FREE,
    "upstream.slots": _FREE,
    "upstream.dtype": _PINNED,
    "bundle": _PINNED,
    "bundle_keys": _FEWER,
    "bundle_sha256": _PINNED,
    "unsafe_unsigned_bundle": _LOWER,
    "bundles": _PINNED,
    "ledger": _PINNED,
    "journal": _PINNED,
    "store": _PINNED,
    "state": _PINNED,
    **_under("default", _SURFACE),
    "surfaces": _EITHER,
    **_under("surfaces.*", _SURFACE),
    "embeddings": _REFUSE,
    "keys": _GIVES,
    "keys.*.id": _PINNED,
    "keys.*.sha256": _PINNED,
    "keys.*.tenant": _PINNED,
    "keys.*.surfaces": Fewer(empty_is_all=True),
    "keys.*.budget.requests_per_minute": _LOWER,
    "keys.*.budget.tokens_per_day": _LOWER,
    "keys.*.budget.flags_per_day": _LOWER,
    "keys.*.policies": _EITHER,
    **_under("keys.*.policies.*", _SURFACE),
    "keys.*.admin": _LOWER,
    "exemptions": Part(added=_W, removed=_S),
    "exemptions.log": _PINNED,
    "exemptions.log_keys": _PINNED,
    "exemptions.constitution": _PINNED,
    "exemptions.seats": _PINNED,
    "exemptions.callers": _GIVES,
    "exemptions.callers.*.organisation": _PINNED,
    "exemptions.callers.*.user": _PINNED,
    "exemptions.callers.*.use_case": _PINNED,
    "exemptions.reload_s": _LOWER,
    "releases": Part(added=_S, removed=_W),
    "standing": Part(added=_S, removed=_W),
    "standing.document": _PINNED,
    "standing.document_sha256": _PINNED,
    "standing.log": _PINNED,
    "standing.log_keys": _PINNED,
    "standing.controls": _PINNED,
    "standing.compute": _PINNED,
    "standing.model": _PINNED,
    "releases.log": _PINNED,
    "releases.log_keys": _PINNED,
    "releases.channel": _PINNED,
    "releases.documents": _PINNED,
    "releases.memory": _PINNED,
    "releases.max_age_s": _LOWER,
    "hot_rules": Part(added=_S, removed=_W),
    "hot_rules.file": _PINNED,
    "hot_rules.keys": _GIVES,
    "hot_rules.keys.*": _PINNED,
    "hot_rules.memory": _PINNED,
    "hot_rules.approvals": _HIGHER,
    "hot_rules.reload_s": _LOWER,
    "account_states": Part(added=_S, removed=_W),
    "account_states.file": _PINNED,
    "account_states.keys": _GIVES,
    "account_states.keys.*": _PINNED,
    "account_states.memory": _PINNED,
    "account_states.log": _PINNED,
    "account_states.log_keys": _PINNED,
    "account_states.reload_s": _LOWER,
    **_under(
        "limits",
        dict.fromkeys(
            (
                "max_body_bytes",
                "max_reply_bytes",
                "max_event_bytes",
                "max_header_bytes",
                "max_streams",
                "body_timeout_s",
                "connect_timeout_s",
                "idle_timeout_s",
                "stall_timeout_s",
                "total_timeout_s",
                "drain_timeout_s",
            ),
            _LOWER,
        ),
    ),
    "limits.keepalive_s": _FREE,
    "canary.every_s": _LOWER,
    "canary.prompts": _PINNED,
    "canary.enabled": _HIGHER,
    "log": Ranked(("json", "none")),
    "otlp": _PINNED,
    "explain": Part(added=_S, removed=_W),
    "explain.to": _PINNED,
    "explain.key": _PINNED,
    "explain.flow": _PINNED,
    "explain.sender": _PINNED,
}

_RULES: dict[str, Order] = {
    "rules": _GUARDS,
    "rules.*.id": _PINNED,
    "rules.*.clause": _PINNED,
    "rules.*.pattern": _PINNED,
    "rules.*.example": _PINNED,
    "known_attacks": _GUARDS,
    "known_attacks.*.id": _PINNED,
    "known_attacks.*.clause": _PINNED,
    "known_attacks.*.text": _PINNED,
    "known_attacks.*.at_least": _LOWER,
}

_CONSTITUTION: dict[str, Order] = {
    "schema": _PINNED,
    "name": _PINNED,
    "title": _FREE,
    "version": _FREE,
    "principle": _PINNED,
    "generator": Ranked(("operator-only", "any")),
    "stages": _GUARDS,
    "stages.*.id": _PINNED,
    "stages.*.covers": _PINNED,
    "restricted": _GUARDS,
    "restricted.*.id": _PINNED,
    "restricted.*.title": _FREE,
    "restricted.*.tier": Ranked(
        ("prohibited", "high-risk-dual-use", "low-risk-dual-use", "benign")
    ),
    "restricted.*.policy": _PINNED,
    "restricted.*.stages": _MORE,
    "restricted.*.commonly_known": Part(added=_W, removed=_S),
    "restricted.*.commonly_known.statement": _PINNED,
    "restricted.*.commonly_known.examples": _FEWER,
    "restricted.*.neighbours": _PINNED,
    "restricted.*.asks": _PINNED,
    "permitted": _GIVES,
    "permitted.*.id": _PINNED,
    "permitted.*.title": _FREE,
    "permitted.*.policy": _PINNED,
    "permitted.*.tier": _PINNED,
    "permitted.*.role": _PINNED,
    "permitted.*.asks": _PINNED,
    # A guard is trained from it: other words are another guard.
    "lexicon": Rows(added=_W, removed=_W, key="language"),
    "lexicon.*.language": _PINNED,
    "lexicon.*.clause": _PINNED,
    "lexicon.*.near": _PINNED,
    "lexicon.*.names": _PINNED,
    "lexicon.*.restricted": _PINNED,
    "lexicon.*.permitted": _PINNED,
}

_EGRESS_PLAN: dict[str, Order] = {
    # The bound: what is assumed of a thief and of the defence. The stricter assumption guards more.
    "bound.weight_bytes": _LOWER,
    "bound.compression": _LOWER,
    "bound.steal_days": _HIGHER,
    "bound.alpha": _LOWER,
    "bound.detect_s": _HIGHER,
    "bound.respond_s": _HIGHER,
    "bound.review_days": _HIGHER,
    "link.interfaces": _PINNED,
    "link.rate_bit_s": _LOWER,
    "link.shape": _HIGHER,
    "link.burst_bytes": _LOWER,
    "local.loopback": _LOWER,
    "local.link_local": _LOWER,
    "local.neighbour_discovery": _LOWER,
    "local.raw_frame_guard": _HIGHER,
    "mode": Ranked(("enforce", "map")),
    "total": _GUARDS,
    "total.*": _LOWER,
    "accounting_lag_s": _PINNED,
    "trust_senders": _LOWER,
    "overhead_slack": _PINNED,
    "judge.bound_bytes": _LOWER,
    "judge.on_bypass": Ranked(("cut", "seal", "warn")),
    "judge.senders": _FEWER,
    "box.inside": _PINNED,
    "box.addresses": _PINNED,  # none means any, so fewer is not simply the stronger one
    "judge.dead_man_s": _PINNED,  # 0 means never, so no number is simply the stronger one
}

_EGRESS_REGISTER: dict[str, Order] = {
    "flows": _GIVES,
    "flows.*.id": _PINNED,
    "flows.*.owner": _FREE,
    "flows.*.purpose": _FREE,
    "flows.*.data_class": _PINNED,
    "flows.*.direction": _PINNED,
    "flows.*.protocol": _PINNED,
    "flows.*.ports": _FEWER,
    "flows.*.destination": NarrowerNetworks(),
    "flows.*.source.user": _PINNED,
    "flows.*.source.uid": _PINNED,
    "flows.*.source.cgroup": _PINNED,
    "flows.*.source.netns": _PINNED,
    "flows.*.source.interface": _PINNED,
    "flows.*.source.address": _PINNED,
    "flows.*.budget": _GUARDS,
    "flows.*.budget.*": _LOWER,
    "flows.*.expires": _LOWER,
    "flows.*.reconciled": _PINNED,
    "flows.*.peak_bit_s": _PINNED,
}

_GRANTS_POLICY: dict[str, Order] = {
    "version": _FREE,
    "rp_id": _PINNED,
    "origins": _FEWER,
    "rule": Rows(added=_W, removed=_S, key="operation"),
    "rule.*.operation": _PINNED,
    "rule.*.thresholds": Rows(added=_S, removed=_W, key="team"),
    "rule.*.thresholds.*.team": _PINNED,
    "rule.*.thresholds.*.count": _HIGHER,
    "rule.*.max_duration_s": _LOWER,
    "rule.*.approval_ttl_s": _LOWER,
    "rule.*.max_byte_budget": _LOWER,
    "rule.*.max_uses": _LOWER,
    "rule.*.keys": _FEWER,
    "rule.*.break_glass": Part(added=_W, removed=_S),
    "rule.*.break_glass.team": _PINNED,
    "rule.*.break_glass.max_duration_s": _LOWER,
    "rule.*.break_glass.reviews": _HIGHER,
    "rule.*.break_glass.review_within_s": _LOWER,
    "rule.*.break_glass.max_per_week": _LOWER,
    "cedar": _PINNED,
}

_KEY_SERVICE: dict[str, Order] = {
    "socket": _PINNED,
    "releases": Part(added=_S, removed=_W),
    "releases.log": _PINNED,
    "releases.log_keys": _PINNED,
    "releases.channel": _PINNED,
    "releases.documents": _PINNED,
    "releases.memory": _PINNED,
    "releases.max_age_s": _LOWER,
    "log": _PINNED,
    "log_keys": _PINNED,
    "log_key": _PINNED,
    "emitter_key": _PINNED,
    "memory": _PINNED,
    "publisher": _PINNED,
    "providers": _PINNED,
    "host": _PINNED,
    "host_sha256": _PINNED,
    "loaders": _FEWER,
    "code": _MORE,
    "socket_mode": _PINNED,
    "standing": Part(added=_S, removed=_W),
    "standing.document": _PINNED,
    "standing.document_sha256": _PINNED,
    "standing.log": _PINNED,
    "standing.log_keys": _PINNED,
    "standing.controls": _PINNED,
    "standing.compute": _PINNED,
    "standing.model": _PINNED,
    "endpoint_socket": _PINNED,
    "endpoint_policy": _PINNED,
}

# What a row means, and whom, has an empty value that means all: any change counts as weaker.
_ROW: dict[str, Order] = dict.fromkeys(
    ("name", "sha256", "package", "path", "signer", "uids", "exes", "units"), _PINNED
)

_ENDPOINT: dict[str, Order] = {
    "version": _FREE,
    "mode": Ranked(("enforce", "audit", "learn")),
    "host": _PINNED,
    "allow": Rows(added=_W, removed=_S, key="name"),
    **_under("allow.*", _ROW),
    "allow.*.kinds": _FEWER,
    "allow.*.owner": _FREE,
    "allow.*.reason": _FREE,
    "allow.*.ticket": _FREE,
    "allow.*.expires": _PINNED,
    "deny": Rows(added=_S, removed=_W, key="name"),
    **_under("deny.*", _ROW),
    "deny.*.kinds": _MORE,
    "deny.*.reason": _FREE,
    "inventory": Rows(added=_W, removed=_S, key="signer"),
    "inventory.*.file": _FREE,
    "inventory.*.signer": _PINNED,
    "inventory.*.key": _PINNED,
    "inventory.*.max_age_days": _LOWER,
    "readers": _FEWER,
    "dated_overlays": _LOWER,
}

ORDERS: Mapping[str, Order] = MappingProxyType(
    {
        **_under("gateway", _GATEWAY),
        **_under("rules", _RULES),
        **_under("constitution", _CONSTITUTION),
        **_under("egress-plan", _EGRESS_PLAN),
        **_under("egress-register", _EGRESS_REGISTER),
        **_under("grants-policy", _GRANTS_POLICY),
        **_under("key-service", _KEY_SERVICE),
        **_under("endpoint-policy", _ENDPOINT),
    }
)
"""The order of each field, by path."""
