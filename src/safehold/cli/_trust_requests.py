"""How the commands fill in a request."""

import secrets
from typing import TYPE_CHECKING

import msgspec

from safehold.errors import UsageError

_NAMED = 3
"""Kind, name and version."""

if TYPE_CHECKING:
    from safehold.trust.grants.details import Details
    from safehold.trust.grants.interface import GrantRequest, Policy, Resource
    from safehold.trust.grants.state import TrustState
    from safehold.trust.people.interface import Person

DEFAULT_SECONDS = 86_400


def governing_request(
    state: "TrustState",
    requester: "Person",
    operation: str,
    details: "Details",
    now: int,
    *,
    purpose: str = "",
    ticket: str = "none",
    seconds: int = DEFAULT_SECONDS,
) -> "GrantRequest":
    """Return a request whose details say everything: a change of people, policy or exemptions."""
    from safehold.canonical import canonical, sha256_hex
    from safehold.trust.grants.interface import GrantRequest, Resource

    policy = state.policy
    rule = policy.rule(operation)
    if rule is None:
        raise UsageError(f"the policy has no rule for {operation}")
    longest = min(seconds, rule.max_duration_s)
    return checked(
        GrantRequest(
            enclave=state.founding_sha256,
            requester=requester.id,
            purpose=purpose or operation,
            ticket=ticket,
            operation=operation,
            resource=Resource(kind="enclave", name="trust", version="1", parts=("*",)),
            host="log",
            workload_sha256=sha256_hex(canonical(details)),
            byte_budget=0,
            uses=1,
            not_before=now,
            expires=now + longest,
            nonce=secrets.token_hex(16),
            policy_version=policy.version,
            policy_sha256=policy.sha256,
            details=details,
        )
    )


def within_rule(request: "GrantRequest", policy: "Policy") -> "GrantRequest":
    """Return the request if a rule could ever grant it: nobody approves in vain.

    Raises:
        UsageError: there is no rule, or the request goes beyond it.
    """
    rule = policy.rule(request.operation)
    if rule is None:
        raise UsageError(f"the policy has no rule for {request.operation}")
    if request.expires - request.not_before > rule.max_duration_s:
        raise UsageError(f"the policy gives at most {rule.max_duration_s // 60} minutes")
    if request.byte_budget > rule.max_byte_budget:
        raise UsageError(f"the policy gives at most {rule.max_byte_budget:,} bytes")
    if request.uses > rule.max_uses:
        raise UsageError(f"the policy gives at most {rule.max_uses} use(s)")
    return request


def checked(request: "GrantRequest") -> "GrantRequest":
    """Return the request after checking every member against its type.

    Raises:
        UsageError: names the member.
    """
    from safehold.trust.grants.interface import GrantRequest
    from safehold.trust.text import in_short

    try:
        return msgspec.convert(msgspec.to_builtins(request), GrantRequest)
    except msgspec.ValidationError as error:
        raise UsageError(f"the request: {in_short(error)}") from error


def parse_resource(text: str) -> "Resource":
    """Return the resource of KIND/NAME/VERSION or KIND/NAME/VERSION/PART,PART.

    Raises:
        UsageError: another form.
    """
    from safehold.trust.grants.interface import Resource

    fields = text.split("/", 3)
    if len(fields) < _NAMED:
        raise UsageError(f"expected KIND/NAME/VERSION[/PART,PART], got {text[:60]!r}")
    parts = tuple(fields[3].split(",")) if len(fields) > _NAMED else ("*",)
    return Resource(kind=fields[0], name=fields[1], version=fields[2], parts=parts)
