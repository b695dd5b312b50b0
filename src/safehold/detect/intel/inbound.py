"""The rules for what comes in: one object and what is known of it, in; a verdict, out. No I/O."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from safehold.canonical import CanonicalError, canonical, sha256_hex
from safehold.detect.intel.interface import Feed, InboundOutcome, Tlp
from safehold.detect.intel.stix import MARKINGS

MAX_OBJECT_BYTES = 64 << 10
KINDS = frozenset(
    {
        "attack-pattern",
        "course-of-action",
        "extension-definition",
        "grouping",
        "identity",
        "indicator",
        "marking-definition",
        "relationship",
        "sighting",
    }
)
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_DAY_S = 86_400.0
_TLP_OF = {name: tlp for tlp, name in MARKINGS.items()}
# TLP 1.0, as OASIS predefines it; "white" is now "clear".
_TLP_OF |= {
    "marking-definition--613f2e26-407d-48c7-9eca-b8e91df99dc9": Tlp.CLEAR,
    "marking-definition--34098fce-860f-48ae-8e50-ebd3cc5e41da": Tlp.GREEN,
    "marking-definition--f88d31f6-486f-44da-b317-01333bde0b82": Tlp.AMBER,
    "marking-definition--5e57c739-391a-4eb3-b6be-7d15ca92d5ed": Tlp.RED,
}
_ORDER = tuple(Tlp)


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """What every object must have, and what we look at; the rest is kept and not read here."""

    type: str
    spec_version: Literal["2.1"]
    id: Annotated[str, msgspec.Meta(pattern=rf"^[a-z0-9-]{{3,60}}--{_UUID}\Z")]
    created: str = ""
    modified: str = ""
    valid_until: str = ""
    object_marking_refs: tuple[str, ...] = ()


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """An object that was read: its id, version and digest, its mark, and when it ends."""

    stix_id: str
    version: str
    digest: str
    kind: str
    tlp: Tlp
    expires_at: float
    value: bytes


def read_object(value: object, feed: Feed, *, now: float) -> Arrived | InboundOutcome:
    """Return the object as it may be quarantined, or why not."""
    try:
        content = canonical(value)
        if len(content) > MAX_OBJECT_BYTES:
            return InboundOutcome.MALFORMED
        head = msgspec.convert(value, _Head)
    except (CanonicalError, RecursionError, msgspec.ValidationError):
        return InboundOutcome.MALFORMED
    version = seconds(head.modified or head.created)
    tlp, end = _tlp(head, feed), _end(head, feed, now)
    if head.id.partition("--")[0] != head.type or version is None or end is None:
        return InboundOutcome.MALFORMED
    if head.type not in KINDS:
        return InboundOutcome.UNKNOWN
    if end <= now:
        return InboundOutcome.EXPIRED
    return Arrived(
        stix_id=head.id,
        version=version,
        digest=sha256_hex(content),
        kind=head.type,
        tlp=tlp,
        expires_at=end,
        value=content,
    )


def verdict(arrived: Arrived, known: Mapping[str, str]) -> InboundOutcome:
    """Compare an object with the versions that are known of its id: version to digest."""
    if arrived.version in known:
        same = known[arrived.version] == arrived.digest
        return InboundOutcome.REPLAYED if same else InboundOutcome.CHANGED
    if known and arrived.version < max(known):
        return InboundOutcome.REWOUND
    return InboundOutcome.TAKEN


def seconds(text: str) -> str | None:
    """Return a STIX time in a form whose order is the times' own; None: it is none."""
    if _TIME.fullmatch(text) is None:
        return None
    whole, _, fraction = text[:-1].partition(".")
    try:
        datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return f"{whole}.{fraction.ljust(9, '0')}Z"


def _tlp(head: _Head, feed: Feed) -> Tlp:
    """Return the strictest mark, or the feed's own where none is known."""
    marks = [_TLP_OF[one] for one in head.object_marking_refs if one in _TLP_OF]
    return max(marks, key=_ORDER.index) if marks else feed.tlp


def _end(head: _Head, feed: Feed, now: float) -> float | None:
    """Return when it ends: its own end, never later than the feed's objects last."""
    latest = now + feed.expires_days * _DAY_S
    if not head.valid_until:
        return latest
    moment = seconds(head.valid_until)
    if moment is None:
        return None
    whole = datetime.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return min(latest, whole.timestamp())
