"""What is shared about an attack, and what is known of objects that came in.

Everything that leaves is a name from a fixed vocabulary, a number, a time or a digest. No field can
hold a sentence: a label has at most three words, so not even five in a row can leave by one.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,20}(-[a-z0-9]{1,20}){0,2}\Z")]
"""One to three short words, joined by hyphens."""
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
AtlasId = Annotated[str, msgspec.Meta(pattern=r"^AML\.T[0-9]{4}(\.[0-9]{3})?\Z")]
Week = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-W(0[1-9]|[1-4][0-9]|5[0-3])\Z")]
Moment = Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800)]
"""POSIX seconds, until the year 2100."""


class Tlp(StrEnum):
    """Traffic Light Protocol 2.0 (FIRST, 2022), from the widest sharing to the narrowest."""

    CLEAR = "clear"
    GREEN = "green"
    AMBER = "amber"
    AMBER_STRICT = "amber+strict"
    RED = "red"


class WeekCount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often an attack was seen in an ISO week."""

    week: Week
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class SharedBand(StrEnum):
    """How grave it is."""

    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Technique(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is kept and shared about one attack.

    `template_sha256` (of the folded text) and `sketch` (64 least hashes under the group's key, 8
    hex digits each) exist only for templates of 200 characters or more: shorter ones can be
    guessed. `fixes` are digests of bundles or rules. Times are POSIX seconds.
    """

    family: Label
    chain: tuple[Label, ...]
    atlas: Annotated[tuple[AtlasId, ...], msgspec.Meta(min_length=1)]
    band: SharedBand
    turns: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    template_sha256: Digest | None
    sketch: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{512})?\Z")]
    seen: Annotated[tuple[WeekCount, ...], msgspec.Meta(min_length=1)]
    fixes: tuple[Digest, ...]
    created: Moment
    updated: Moment


class InboundOutcome(StrEnum):
    """What became of an object of a feed."""

    TAKEN = "taken"
    REPLAYED = "replayed"
    """The same bytes again: counted, nothing else."""
    CHANGED = "changed"
    """The same version with other content: the feed changed what it said."""
    REWOUND = "rewound"
    """An older version than the one that is known."""
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    """A type that we do not read."""
    EXPIRED = "expired"
    FLOODED = "flooded"
    """Beyond what the feed may send in a day."""


class InboundState(StrEnum):
    """How far an object has come; nothing in this list makes a rule."""

    QUARANTINED = "quarantined"
    CANDIDATE = "candidate"
    TESTED = "tested"


class Feed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A TAXII 2.1 collection that we read or write.

    `tls_sha256` pins the server's certificate; without it only a loopback address is reached.
    `user` and `password_env` (a variable's name) are for HTTP Basic. What has no TLP mark is
    treated as `tlp`; what has no end expires after `expires_days`.
    """

    name: Label
    api_root: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]+/\Z")]
    collection: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,80}\Z")]
    tls_sha256: Digest | None = None
    user: str = ""
    password_env: str = ""
    tlp: Tlp = Tlp.AMBER_STRICT
    expires_days: Annotated[int, msgspec.Meta(ge=1, le=365)] = 90
    objects_per_day: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """An object of a feed as it is kept. `value` is its JSON; a feed's words are hostile text."""

    number: int
    feed: str
    stix_id: str
    kind: str
    tlp: Tlp
    received_at: float
    expires_at: float
    state: InboundState
    value: bytes
