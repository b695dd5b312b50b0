"""The policy file: TOML, read strictly, checked for rules that could never be safe or met."""

import tomllib
from difflib import get_close_matches

import msgspec

from safehold.canonical import sha256_hex
from safehold.toml_text import parse_toml
from safehold.trust.grants.cedar import check_cedar
from safehold.trust.grants.interface import GrantRule, Policy, PolicyError
from safehold.trust.grants.operations import OPERATIONS
from safehold.trust.grants.quorum import assign
from safehold.trust.people.interface import KeyKind, Kind, RelyingParty, Roster

MAX_POLICY_BYTES = 30_000
GOVERNING = frozenset(row.name for row in OPERATIONS.values() if row.governs)
"""What changes who may approve."""
MIN_GOVERNING = 2
"""How many approvals a change of who may approve needs at least, beside its requester."""


class _PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's shape."""

    version: int
    rp_id: str
    origins: tuple[str, ...]
    rule: tuple[GrantRule, ...]
    cedar: str = ""


def load_policy(text: str) -> Policy:
    """Return the checked policy of a TOML text.

    Raises:
        PolicyError: unknown members, two rules of one operation, an empty rule list, break-glass
            on an operation that governs people or policy, or Cedar text that does not parse.
    """
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise PolicyError(f"expected at most {MAX_POLICY_BYTES} bytes of policy")
    try:
        file = msgspec.convert(parse_toml(text), _PolicyFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PolicyError(f"policy file: {error}") from error
    if file.version < 1:
        raise PolicyError(f"policy file: expected version 1 or more, got {file.version}")
    if not file.rule:
        raise PolicyError("policy file: expected at least one [[rule]], got none")
    if not file.origins or not file.rp_id:
        raise PolicyError("policy file: expected rp_id and at least one origin")
    operations = [rule.operation for rule in file.rule]
    for operation in sorted(set(operations)):
        if operations.count(operation) > 1:
            raise PolicyError(f"policy file: expected one rule for {operation}, got several")
    for rule in file.rule:
        _check_rule(rule)
    if "policy.change" not in operations:
        raise PolicyError("policy file: expected a rule for policy.change, or it is final")
    check_cedar(file.cedar)
    return Policy(
        version=file.version,
        sha256=sha256_hex(text.encode()),
        relying_party=RelyingParty(rp_id=file.rp_id, origins=file.origins),
        rules=file.rule,
        cedar=file.cedar,
    )


def check_governing(policy: Policy) -> None:
    """Refuse a policy under which two persons decide who may approve.

    A requester and one approver are two, and one of them asked. Three are the least.

    Raises:
        PolicyError: names the rule.
    """
    for rule in policy.rules:
        count = sum(threshold.count for threshold in rule.thresholds)
        if rule.operation in GOVERNING and count < MIN_GOVERNING:
            raise PolicyError(
                f"rule {rule.operation}: expected at least {MIN_GOVERNING} approvals for what "
                f"changes who may approve, got {count}"
            )


def _check_rule(rule: GrantRule) -> None:
    if not rule.keys:
        raise PolicyError(f"rule {rule.operation}: expected at least one kind of key")
    teams = [threshold.team for threshold in rule.thresholds]
    if len(teams) != len(set(teams)):
        raise PolicyError(f"rule {rule.operation}: expected each team once")
    known = OPERATIONS.get(rule.operation)
    count = sum(threshold.count for threshold in rule.thresholds)
    least = 0 if known is None or known.governs else known.least  # `check_governing` names those
    if count < least:
        raise PolicyError(f"rule {rule.operation}: expected {least} approvals, got {count}")
    typed = known is not None and known.details is not None and not known.alone
    if rule.break_glass is not None and typed:
        raise PolicyError(
            f"rule {rule.operation}: expected no break_glass: one person alone may not change "
            "people, policy, exemptions or a weaker release"
        )


def check_achievable(policy: Policy, roster: Roster, *, governing_only: bool = False) -> None:
    """Refuse a policy under which an operation could never be approved.

    Args:
        policy: The rules.
        roster: The people there would be.
        governing_only: Look only at the operations that change people and policy. If those can't
            be approved, nothing can ever be put right; any other operation can wait.

    Raises:
        PolicyError: a rule names an unknown team, or some human of the roster could not have a
            request approved by the others.
    """
    known = {team.id for team in roster.teams}
    humans = {
        person.id: roster.teams_of(person) for person in roster.persons if person.kind is Kind.HUMAN
    }
    for rule in policy.rules:
        if governing_only and rule.operation not in GOVERNING:
            continue
        for threshold in rule.thresholds:
            if threshold.team not in known:
                raise PolicyError(f"rule {rule.operation}: unknown team {threshold.team}")
        if rule.break_glass is not None and rule.break_glass.team not in known:
            raise PolicyError(f"rule {rule.operation}: unknown team {rule.break_glass.team}")
        for requester in humans:
            others = {person: teams for person, teams in humans.items() if person != requester}
            if assign(rule.thresholds, others) is None:
                person = roster.person(requester)
                name = requester if person is None else f"{person.name} ({requester})"
                raise PolicyError(
                    f"rule {rule.operation}: if {name} asks, the others can't reach the quorum"
                )


def lint_policy(policy: Policy) -> tuple[str, ...]:
    """Return what a reader of the policy should look at again, one line each; nothing is refused.

    An operation that no part asks for (a misspelt one has no rule then, and is refused), one that
    has no rule, one approval where the stock policy has more, and keys that are possession only.
    """
    found: list[str] = []
    ruled = {rule.operation: rule for rule in policy.rules}
    for name, rule in ruled.items():
        known = OPERATIONS.get(name)
        count = sum(threshold.count for threshold in rule.thresholds)
        if known is None:
            close = get_close_matches(name, OPERATIONS, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            found.append(f"{name}: no part of Safehold asks for it{hint}")
        elif count < known.stock:
            found.append(f"{name}: {count} approval(s), the stock policy has {known.stock}")
    copied = sum(KeyKind.SSH in rule.keys for rule in policy.rules)
    if copied:
        found.append(f"{copied} rule(s) let plain SSH keys approve: a copied file is a vote")
    found += [f"{name}: no rule, so it is refused" for name in OPERATIONS if name not in ruled]
    return tuple(found)
