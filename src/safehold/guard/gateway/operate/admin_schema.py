"""The admin API as an OpenAPI 3.1 document, served at `GET /admin/openapi.json`."""

from typing import Any

from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.key_settings import MOST_NAME_CHARS

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {}}}
_STATUSES = {
    "400": "The request is malformed.",
    "401": "The key is no administrator's.",
    "409": "The bundle can't be used; nothing changed.",
    "413": "The body is too large.",
    "503": "The ledger does not take the row; nothing changed.",
}


def admin_schema() -> dict[str, Any]:
    """Return the document."""
    bundle = {
        "type": "object",
        "additionalProperties": False,
        "required": ["bundle"],
        "properties": {"bundle": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"}},
    }
    surface = {
        "name": "surface",
        "in": "path",
        "required": True,
        "schema": {"enum": [str(surface) for surface in Surface]},
    }
    count = {"type": ["integer", "null"]}
    counts = dict.fromkeys(
        ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "flags_per_day"), count
    )
    shared_budget = {"type": "object", "additionalProperties": False, "properties": counts}
    budget = shared_budget | {"properties": counts | {"unreadable_per_day": count}}
    bounds = {
        "surfaces": {"type": "array", "items": surface["schema"]},
        "models": {"type": "array", "items": {"type": "string"}},
    }
    tenant = {
        "type": "object",
        "additionalProperties": False,
        "properties": bounds | {"budget": shared_budget},
    }
    rotation = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"grace_s": {"type": "number", "minimum": 0, "maximum": 2_592_000}},
    }
    key = {
        "type": "object",
        "additionalProperties": False,
        "required": ["id"],
        "properties": {
            "id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
            "tenant": {"type": "string", "minLength": 1, "maxLength": MOST_NAME_CHARS},
            **bounds,
            "budget": budget,
            "expires_at": {"type": ["string", "null"], "format": "date-time"},
        },
    }
    name = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": MOST_NAME_CHARS},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Safehold gateway: administration", "version": "1"},
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/admin/status": {"get": _operation("The bundle in use and the state of surfaces.")},
            "/admin/bundle": {"post": _operation("Load, verify, judge and swap.", bundle)},
            "/admin/bundle/rollback": {"post": _operation("Return to the bundle before.")},
            "/admin/canaries": {"post": _operation("Run the canaries now.")},
            "/admin/keys": {
                "get": _operation("The keys that are let in, without their digests."),
                "post": _operation("Make a key; it is told this once.", key),
            },
            "/admin/keys/{id}": {
                "parameters": [name],
                "get": _operation("One key, and what it used of its budget.", more=("404",)),
                "put": _operation("Change what a key may do.", key, more=("404",)),
                "patch": _operation(
                    "Change the fields that are named.", key | {"required": []}, more=("404",)
                ),
            },
            "/admin/keys/{id}/revoke": {
                "parameters": [name],
                "post": _operation("Keep a key out everywhere.", more=("404",)),
            },
            "/admin/keys/{id}/restore": {
                "parameters": [name],
                "post": _operation("Let a configured key in again.", more=("404",)),
            },
            "/admin/keys/{id}/rotate": {
                "parameters": [name],
                "post": _operation(
                    "Make its secret anew; it is told once.", rotation, more=("404",)
                ),
            },
            "/admin/tenants": {"get": _operation("The tenants, their bounds and their keys.")},
            "/admin/tenants/{id}": {
                "parameters": [name],
                "get": _operation("One tenant, and what it used of its budget.", more=("404",)),
                "put": _operation("Bound all keys of a tenant together.", tenant, more=("404",)),
                "patch": _operation("Change the bounds that are named.", tenant, more=("404",)),
            },
            "/admin/tenants/{id}/remove": {
                "parameters": [name],
                "post": _operation("Take the bounds away.", more=("404",)),
            },
            "/admin/tenants/{id}/block": {
                "parameters": [name],
                "post": _operation("Keep all keys of a tenant out everywhere.", more=("404",)),
            },
            "/admin/tenants/{id}/unblock": {
                "parameters": [name],
                "post": _operation("Let the keys of a tenant in again.", more=("404",)),
            },
            "/admin/surfaces/{surface}/open": {
                "parameters": [surface],
                "post": _operation("Let requests in.", more=("404",)),
            },
            "/admin/surfaces/{surface}/close": {
                "parameters": [surface],
                "post": _operation("Refuse requests.", more=("404",)),
            },
        },
    }


def _operation(
    summary: str, body: dict[str, Any] | None = None, *, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    missing = dict.fromkeys(more, "No such surface, key or tenant.")
    refused = {
        status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for status, text in {**_STATUSES, **missing}.items()
    }
    done = {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}}
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": done, **refused}}
    if body is not None:
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
