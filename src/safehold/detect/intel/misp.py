"""MISP events of techniques, written by ourselves.

The usual converter drops attack-patterns and unknown pattern types without a word.
"""

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from safehold.canonical import canonical
from safehold.detect.intel.interface import SharedBand, Technique
from safehold.detect.intel.stix import Sharer, attack_id

_NAMESPACE = uuid.UUID("2b1b7a26-5a0c-5e0e-8a54-6d2f0a6b7a11")
_LEVEL = {
    SharedBand.CRITICAL: "1",
    SharedBand.HIGH: "1",
    SharedBand.MEDIUM: "2",
    SharedBand.LOW: "3",
    SharedBand.INFORMATIONAL: "4",
}
_NAMES = {
    "AML.T0051": "LLM Prompt Injection",
    "AML.T0054": "LLM Jailbreak",
    "AML.T0065": "LLM Prompt Crafting",
    "AML.T0068": "LLM Prompt Obfuscation",
}


def misp_event(techniques: Sequence[Technique], sharer: Sharer) -> bytes:
    """Return one event with every technique's attributes; equal inputs give equal bytes."""
    latest = max((one.updated for one in techniques), default=0)
    levels = [_LEVEL[one.band] for one in techniques]
    tags = [f"tlp:{sharer.tlp}"]
    tags += sorted({_tag(name) for one in techniques for name in one.atlas})
    event = {
        "uuid": _uuid(sharer.group, "event"),
        "info": f"Jailbreak techniques: {len(techniques)}",
        "date": datetime.fromtimestamp(latest, UTC).strftime("%Y-%m-%d"),
        "timestamp": str(latest),
        "threat_level_id": min(levels, default="4"),
        "analysis": "2",
        "distribution": "0",
        "published": False,
        "Orgc": {"name": sharer.organisation, "uuid": _uuid(sharer.organisation, "organisation")},
        "Tag": [{"name": name} for name in tags],
        "Attribute": [one for technique in techniques for one in _attributes(technique, sharer)],
    }
    return msgspec.json.format(canonical({"Event": event}), indent=2) + b"\n"


def _attributes(one: Technique, sharer: Sharer) -> Iterator[dict[str, Any]]:
    def attribute(kind: str, category: str, value: str, comment: str) -> dict[str, Any]:
        return {
            "uuid": _uuid(attack_id(one, sharer), f"{comment} {value}"),
            "type": kind,
            "category": category,
            "value": value,
            "comment": comment,
            "to_ids": kind == "sha256" and comment == "template",
            "timestamp": str(one.updated),
            "distribution": "5",
        }

    seen = sum(week.count for week in one.seen)
    yield attribute("text", "Other", one.family, "family")
    yield attribute("text", "Other", " ".join(one.chain) or "none", "chain")
    yield attribute("text", "Other", one.band.value, "severity")
    yield attribute("counter", "Other", str(seen), "sightings")
    if one.template_sha256 is not None:
        yield attribute("sha256", "Payload delivery", one.template_sha256, "template")
        yield attribute("text", "Other", one.sketch, "sketch")
    for fix in one.fixes:
        yield attribute("sha256", "Other", fix, "fix")


def _tag(atlas: str) -> str:
    name = _NAMES.get(atlas)
    label = atlas if name is None else f"{name} - {atlas}"
    return f'misp-galaxy:mitre-atlas-attack-pattern="{label}"'


def _uuid(name: str, what: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{what}\n{name}"))
