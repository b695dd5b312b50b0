"""A release: one document over every artefact that takes effect together."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from safehold.canonical import (
    MAX_INTEGER,
    CanonicalError,
    canonical,
    parse_canonical,
    sha256_hex,
)
from safehold.errors import TrustError
from safehold.trust.text import LINE_PATTERN

MAX_RELEASE_BYTES = 4_000_000
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Channel = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}\Z")]
ArtefactPath = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}\Z")]
Whole = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
ItemId = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=LINE_PATTERN)]
"""Approvers read it: one visible line."""


class ReleaseError(TrustError):
    """Obtain a release of exactly these artefacts; nothing took effect."""


class ArtefactKind(StrEnum):
    """What an artefact is; settings are compared field by field, bundles by what they stop."""

    BUNDLE = "bundle"
    RULES = "rules"
    CONSTITUTION = "constitution"
    GATEWAY = "gateway"
    EGRESS_PLAN = "egress-plan"
    ENDPOINT = "endpoint-policy"
    EGRESS_REGISTER = "egress-register"
    GRANTS_POLICY = "grants-policy"
    KEY_SERVICE = "key-service"
    PRODUCT = "product"
    TRIAL = "trial"
    GOLDEN = "golden-set"


class Artefact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One file or folder: its digest, and for settings the document that it is read into.

    Whoever loads the artefact compares the document with what it really read.
    """

    path: ArtefactPath
    kind: ArtefactKind
    sha256: Sha256
    document: dict[str, Any] | None = None


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two bundles on the same items: what the old one stopped and the new one passes.

    `report_sha256` is the digest of the envelope that those who measured it signed.
    """

    old: Sha256
    new: Sha256
    items: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    lost: tuple[ItemId, ...]
    report_sha256: Sha256


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that guards on one channel. Times are POSIX seconds.

    `previous` is the digest of the release before it (empty: this is the first).
    """

    channel: Channel
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    previous: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    artefacts: Annotated[tuple[Artefact, ...], msgspec.Meta(min_length=1, max_length=500)]
    not_before: Whole
    expires: Whole
    behaviour: tuple[Behaviour, ...] = ()
    provenance: Mapping[str, Sha256] = {}

    @property
    def sha256(self) -> str:
        """The digest of the canonical JSON, which is what approvers sign."""
        return sha256_hex(canonical(self))


class PublishRelease(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="publish-release"
):
    """Let exactly this release take effect on its channel."""

    channel: Channel
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    previous: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    release_sha256: Sha256


class ReleaseOperation(StrEnum):
    """What a person asks for; which of them is needed is computed, never read."""

    PUBLISH = "release.publish"
    WEAKEN = "release.weaken"
    EMERGENCY = "release.emergency"


class LoggedRelease(msgspec.Struct, frozen=True):
    """A grant of the log that let a release take effect."""

    request: str
    operation: str
    host: str
    details: PublishRelease
    used_at: int
    ended: bool
    """Revoked or given back: it is not in force any more."""


class LogHead(msgspec.Struct, frozen=True):
    """What a verified log says of itself: its leaves, its newest time, what took effect."""

    origin: str
    size: int
    last_time: int
    releases: tuple[LoggedRelease, ...]
    reviews_overdue: int = 0


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a verifier remembers over restarts, so that nothing older is taken again."""

    origin: str
    channel: Channel
    log_size: int
    version: int
    release_sha256: str


def parse_release(data: bytes) -> Release:
    """Return the release of its canonical JSON.

    Raises:
        ReleaseError: too long, malformed, or other bytes than the canonical form.
    """
    if len(data) > MAX_RELEASE_BYTES:
        raise ReleaseError(f"release: expected at most {MAX_RELEASE_BYTES} bytes")
    try:
        return parse_canonical(data, Release, what="a release")
    except CanonicalError as error:
        raise ReleaseError(str(error)) from error
