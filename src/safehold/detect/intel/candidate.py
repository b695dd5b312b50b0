"""From an object in quarantine to a candidate test: our own questions under its dress.

A candidate is never a rule. It says what to try against our guard; what the trial finds goes the
way of every incident, over the gates of the response.
"""

from typing import Any

import msgspec

from safehold.detect.bounty.interface import Submission, SubmittedTurn
from safehold.detect.intel.interface import Digest, InboundState, Quarantined, Tlp
from safehold.detect.intel.stix import EXTENSION
from safehold.detect.redteam.transforms import transform
from safehold.errors import DataError, TrustError, UsageError

_LONGEST_CHAIN = 3
"""The longest chain that is played."""
_DIGEST_DIGITS = 512
"""A digest of 256 bytes in hex."""

_KINDS = frozenset({"attack-pattern", "indicator"})


class _Extension(msgspec.Struct, frozen=True):
    """What we read of another's extension; its words are names that we must know ourselves."""

    chain: tuple[str, ...] = ()
    sketch: str = ""


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A test to try: a chain of our own transforms, the sketch, its mark, and its end."""

    object: str
    feed: str
    tlp: Tlp
    expires_at: float
    chain: tuple[str, ...]
    sketch: str
    digest: Digest | None = None


def candidate(found: Quarantined, *, now: float) -> Candidate:
    """Return the test that a quarantined object suggests.

    Raises:
        TrustError: it has expired.
        DataError: it suggests nothing: no chain of transforms that we know, and no sketch.
    """
    if found.expires_at <= now:
        raise TrustError(f"object {found.number} has expired")
    if found.kind not in _KINDS:
        raise DataError(f"object {found.number}: expected an attack-pattern or an indicator")
    value: dict[str, Any] = msgspec.json.decode(found.value)
    extensions = value.get("extensions")
    given = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    try:
        extension = msgspec.convert(given or {}, _Extension)
        for name in extension.chain:
            transform(name)
    except (msgspec.ValidationError, UsageError) as error:
        raise DataError(f"object {found.number}: its chain is none of ours") from error
    if not extension.chain and not extension.sketch:
        raise DataError(f"object {found.number} suggests no test: no chain, no sketch")
    if len(extension.chain) > _LONGEST_CHAIN:
        raise DataError(f"object {found.number}: expected at most three transforms")
    if not _is_sketch(extension.sketch):
        raise DataError(f"object {found.number}: its sketch is none")
    return Candidate(
        object=found.stix_id,
        feed=found.feed,
        tlp=found.tlp,
        expires_at=found.expires_at,
        chain=extension.chain,
        sketch=extension.sketch,
    )


def trial(test: Candidate) -> Submission:
    """Return the candidate as a submission: each question through the chain, nothing else said."""
    return Submission(
        title="Candidate test",
        handle=test.feed,
        turns=(SubmittedTurn(role="user", text="<<ask>>"),),
        transforms=test.chain,
    )


def after(state: InboundState) -> InboundState:
    """Return the next state on the way: quarantined, candidate, tested; there is no further one."""
    way = (InboundState.QUARANTINED, InboundState.CANDIDATE, InboundState.TESTED)
    return way[min(way.index(state) + 1, len(way) - 1)]


def _is_sketch(text: str) -> bool:
    return not text or (len(text) == _DIGEST_DIGITS and set(text) <= set("0123456789abcdef"))
