"""The API as an OpenAPI 3.1 document, from the same table that makes the routes."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from safehold.console.shell.access import ConsoleRole, PageAct, Screen, SourcesT
from safehold.console.shell.web import API

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_STATUSES = {
    "400": "The request is malformed.",
    "401": "There is no login.",
    "403": "The login has none of the roles, or another page asked.",
    "404": "There is no such thing.",
    "409": "It may not be done now.",
    "503": "A source can't be read.",
}


def openapi(
    screens: Sequence[Screen[SourcesT]], acts: Sequence[PageAct[SourcesT]]
) -> dict[str, Any]:
    """Return the document."""
    types = (
        [screen.answer for screen in screens]
        + [act.form for act in acts]
        + [act.answer for act in acts]
    )
    schemas, parts = msgspec.json.schema_components(
        list(dict.fromkeys(types)), ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(dict.fromkeys(types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for screen in screens:
        path = API + (screen.path if screen.path != "/" else "/overview")
        paths.setdefault(_plain(path), _parameters(path))["get"] = _operation(
            screen.title, screen.roles, by_type[screen.answer]
        )
    for act in acts:
        path = API + act.path
        operation = _operation(act.title, act.roles, by_type[act.answer])
        content = {"application/json": {"schema": by_type[act.form]}}
        operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(_plain(path), _parameters(path))["post"] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Safehold console", "version": "1"},
        "security": [{"login": []}],
        "components": {
            "securitySchemes": {
                "login": {"type": "apiKey", "in": "cookie", "name": "__Host-safehold-login"}
            },
            "schemas": parts,
        },
        "paths": paths,
    }


def joined(one: dict[str, Any], open_one: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the paths of another one added, which need no login."""
    parts = one["components"]
    paths = {
        path: {verb: about | {"security": []} for verb, about in verbs.items()}
        for path, verbs in open_one["paths"].items()
    }
    schemas = parts["schemas"] | open_one["components"]["schemas"]
    return one | {"components": parts | {"schemas": schemas}, "paths": one["paths"] | paths}


def _plain(path: str) -> str:
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def _parameters(path: str) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)(?::(\w+))?\}", path)
    if not names:
        return {}
    return {
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "integer" if kind == "int" else "string"},
            }
            for name, kind in names
        ]
    }


def _operation(title: str, roles: frozenset[ConsoleRole], answer: dict[str, Any]) -> dict[str, Any]:
    refused = {
        status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for status, text in _STATUSES.items()
    }
    done = {"description": "Done.", "content": {"application/json": {"schema": answer}}}
    needs = "Roles: " + ", ".join(sorted(roles)) + "."
    return {"summary": title, "description": needs, "responses": {"200": done, **refused}}
