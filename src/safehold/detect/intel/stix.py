"""STIX 2.1 objects of techniques (OASIS, 2021), the same bytes each time.

Ids are digests of the sharing group's name and what they name, in the form of a UUID version 4 (the
standard keeps version 5 for observables). The fields that STIX lacks
stand in a property extension of our own; its definition goes into bundles only, never into a TAXII
collection, since some servers can't read a definition's version.
"""

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from safehold.canonical import canonical
from safehold.detect.intel.interface import Technique, Tlp

_TLP_EXTENSION = "extension-definition--60a3c5c5-0d10-413e-aab3-9e08dde9e88d"
# oasis-open/cti-stix-common-objects, extension-definition-specifications/tlp-2.0
MARKINGS: dict[Tlp, str] = {
    Tlp.CLEAR: "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487",
    Tlp.GREEN: "marking-definition--bab4a63c-aed9-4cf5-a766-dfca5abac2bb",
    Tlp.AMBER: "marking-definition--55d920b0-5e8b-4f79-9ee9-91f868d9b421",
    Tlp.AMBER_STRICT: "marking-definition--939a9414-2ddd-4d32-a0cd-375ea402b003",
    Tlp.RED: "marking-definition--e828b379-4e03-4974-9ac4-e53a884c97c1",
}
_FOUNDED = "2026-01-01T00:00:00.000Z"
_SCHEMA = "https://safehold.example/schemas/attack-descriptor-1.json"
StixObject = dict[str, Any]


def _uuid(name: str) -> uuid.UUID:
    digest = hashlib.sha256(f"safehold intelligence\n{name}".encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


EXTENSION = f"extension-definition--{_uuid('extension 1')}"


class Sharer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who shares, with which group, at which mark."""

    organisation: str
    group: str
    tlp: Tlp = Tlp.AMBER_STRICT


def objects(techniques: Sequence[Technique], sharer: Sharer) -> list[StixObject]:
    """Return the objects of a collection: identity, mark, and each technique's."""
    return [_identity(sharer), _marking(sharer.tlp)] + [
        one for technique in techniques for one in _technique(technique, sharer)
    ]


def bundle(techniques: Sequence[Technique], sharer: Sharer) -> bytes:
    """Return a STIX bundle with everything that is referred to; equal inputs give equal bytes."""
    found = [*_definitions(sharer), *objects(techniques, sharer)]
    number = _uuid(canonical(found).decode())
    whole = {"type": "bundle", "id": f"bundle--{number}", "objects": found}
    return msgspec.json.format(canonical(whole), indent=2) + b"\n"


def attack_id(technique: Technique, sharer: Sharer) -> str:
    """Return the id of a technique's attack-pattern."""
    return _id("attack-pattern", sharer, technique)


def _definitions(sharer: Sharer) -> Iterator[StixObject]:
    yield {
        "type": "extension-definition",
        "spec_version": "2.1",
        "id": EXTENSION,
        "created_by_ref": _identity(sharer)["id"],
        "created": _FOUNDED,
        "modified": _FOUNDED,
        "name": "attack descriptor",
        "description": "Descriptors and sketches of jailbreak templates; no content.",
        "schema": _SCHEMA,
        "version": "1.0.0",
        "extension_types": ["property-extension"],
        "object_marking_refs": [MARKINGS[Tlp.CLEAR]],
    }
    if sharer.tlp is not Tlp.CLEAR:
        yield _marking(Tlp.CLEAR)


def _identity(sharer: Sharer) -> StixObject:
    return {
        "type": "identity",
        "spec_version": "2.1",
        "id": f"identity--{_uuid(f'identity {sharer.organisation}')}",
        "created": _FOUNDED,
        "modified": _FOUNDED,
        "name": sharer.organisation,
        "description": "Operator of safeguards around a language model.",
        "identity_class": "organization",
        "sectors": ["technology"],
        "object_marking_refs": [MARKINGS[sharer.tlp]],
    }


def _marking(tlp: Tlp) -> StixObject:
    return {
        "type": "marking-definition",
        "spec_version": "2.1",
        "id": MARKINGS[tlp],
        "created": "2022-10-01T00:00:00.000Z",
        "name": f"TLP:{tlp.upper()}",
        "extensions": {_TLP_EXTENSION: {"extension_type": "property-extension", "tlp_2_0": tlp}},
    }


def _technique(one: Technique, sharer: Sharer) -> Iterator[StixObject]:
    extension: StixObject = {
        "extension_type": "property-extension",
        "family": one.family,
        "chain": list(one.chain),
        "band": one.band.value,
        "turns": one.turns,
    }
    attack = {
        **_head("attack-pattern", sharer, one),
        "name": one.family,
        "description": "A jailbreak technique; its descriptors stand in the extension.",
        "external_references": [
            {
                "source_name": "mitre-atlas",
                "external_id": name,
                "description": "MITRE ATLAS technique.",
            }
            for name in one.atlas
        ],
        "extensions": {EXTENSION: extension},
    }
    yield attack
    members = [attack["id"]]
    if one.template_sha256 is not None:
        indicator = {
            **_head("indicator", sharer, one),
            "name": one.family,
            "description": "The digest of a folded template, and its sketch under the group's key.",
            "indicator_types": ["malicious-activity"],
            "pattern": f"[file:hashes.'SHA-256' = '{one.template_sha256}']",
            "pattern_type": "stix",
            "pattern_version": "2.1",
            "valid_from": _time(one.created),
            "extensions": {EXTENSION: {**extension, "sketch": one.sketch}},
        }
        yield indicator
        yield _relation(one, sharer, indicator["id"], "indicates", attack["id"])
        yield {
            **_head("sighting", sharer, one),
            "description": "How often the attack was seen.",
            "first_seen": _time(one.created),
            "last_seen": _time(max(one.updated, one.created + 1)),
            "count": min(999_999_999, sum(week.count for week in one.seen)),
            "sighting_of_ref": indicator["id"],
            "where_sighted_refs": [_identity(sharer)["id"]],
            "extensions": {
                EXTENSION: {
                    "extension_type": "property-extension",
                    "weeks": [{"week": week.week, "count": week.count} for week in one.seen],
                }
            },
        }
        members.append(indicator["id"])
    for fix in one.fixes:
        action = {
            **_head("course-of-action", sharer, one, fix),
            "name": "guard update",
            "description": "A bundle or rules file by its digest, in the extension.",
            "extensions": {EXTENSION: {"extension_type": "property-extension", "fix_sha256": fix}},
        }
        yield action
        yield _relation(one, sharer, action["id"], "mitigates", attack["id"])
        members.append(action["id"])
    yield {
        **_head("grouping", sharer, one),
        "name": one.family,
        "description": "What belongs to one incident.",
        "context": "suspicious-activity",
        "object_refs": members,
    }


def _relation(one: Technique, sharer: Sharer, source: str, kind: str, target: str) -> StixObject:
    return {
        **_head("relationship", sharer, one, f"{source} {kind} {target}"),
        "relationship_type": kind,
        "description": f"The source {kind} the target.",
        "source_ref": source,
        "target_ref": target,
    }


def _head(kind: str, sharer: Sharer, one: Technique, more: str = "") -> StixObject:
    return {
        "type": kind,
        "spec_version": "2.1",
        "id": _id(kind, sharer, one, more),
        "created_by_ref": _identity(sharer)["id"],
        "created": _time(one.created),
        "modified": _time(one.updated),
        "object_marking_refs": [MARKINGS[sharer.tlp]],
    }


def _id(kind: str, sharer: Sharer, one: Technique, more: str = "") -> str:
    """Name an object by what stays the same when it is updated."""
    parts = [kind, sharer.group, one.family, list(one.chain), one.template_sha256, more]
    return f"{kind}--{_uuid(canonical(parts).decode())}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
