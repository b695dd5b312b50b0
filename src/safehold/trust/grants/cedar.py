"""Operation policy in Cedar: it can forbid what the rules would grant, never the reverse."""

import json
from typing import Any

from safehold.errors import DependencyError
from safehold.trust.grants.interface import GrantRequest, PolicyError
from safehold.trust.people.interface import Roster


def _cedar() -> Any:
    try:
        import cedarpy
    except ImportError as error:
        raise DependencyError(
            "this policy has Cedar text, which needs the extra: pip install 'safehold[trust]'"
        ) from error
    return cedarpy


def check_cedar(text: str) -> None:
    """Refuse Cedar text that does not parse (the empty text is none at all).

    Raises:
        PolicyError: it does not parse, or holds no policy.
        DependencyError: there is Cedar text and the engine is not installed.
    """
    if not text:
        return
    try:
        parsed = json.loads(_cedar().policies_to_json_str(text))
    except ValueError as error:
        raise PolicyError("policy file: the Cedar text does not parse") from error
    if not parsed.get("staticPolicies"):
        raise PolicyError("policy file: expected at least one Cedar policy in `cedar`")


def cedar_permits(
    text: str, request: GrantRequest, approvers: tuple[str, ...], roster: Roster, now: int
) -> bool:
    """Tell whether Cedar permits; no text permits, an error in any policy does not."""
    if not text:
        return True
    cedarpy = _cedar()
    resource = f"{request.resource.kind}/{request.resource.name}/{request.resource.version}"
    result = cedarpy.is_authorized(
        {
            "principal": _uid("Person", request.requester),
            "action": _uid("Action", request.operation),
            "resource": _uid("Resource", resource),
            "context": {
                "now": now,
                "host": request.host,
                "purpose": request.purpose,
                "ticket": request.ticket,
                "byte_budget": request.byte_budget,
                "duration_s": request.expires - request.not_before,
                "uses": request.uses,
                "break_glass": request.break_glass,
                "approvals": len(approvers),
                "approvers": [{"__entity": {"type": "Person", "id": one}} for one in approvers],
            },
        },
        text,
        _entities(roster),
    )
    return bool(result.decision == cedarpy.Decision.Allow and not result.diagnostics.errors)


def _uid(kind: str, name: str) -> str:
    return f"{kind}::{json.dumps(name)}"


def _entities(roster: Roster) -> list[dict[str, Any]]:
    teams = [
        {
            "uid": {"type": "Team", "id": team.id},
            "attrs": {},
            "parents": [{"type": "Team", "id": parent} for parent in team.parents],
        }
        for team in roster.teams
    ]
    persons = [
        {
            "uid": {"type": "Person", "id": person.id},
            "attrs": {"kind": person.kind.value, "roles": list(person.roles)},
            "parents": [{"type": "Team", "id": team} for team in person.teams],
        }
        for person in roster.persons
    ]
    return teams + persons
