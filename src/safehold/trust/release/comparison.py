"""The report of two bundles on the golden set, which those who measured it sign.

It is an in-toto statement about the new bundle. `improve/evaluation` makes it, persons sign it, and
a release names the digest of the signed envelope: nobody believes a list that nobody signed.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from safehold.canonical import MAX_INTEGER, canonical, sha256_hex
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    Behaviour,
    ItemId,
    Release,
    ReleaseError,
    Sha256,
)

PREDICATE = "https://safehold.dev/comparison/v1"
NAMESPACE = "safehold-comparison"
"""The SSHSIG namespace of a signature of somebody who compared two bundles."""


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the old bundle stopped and the new one passes, on one golden set.

    `golden` is the digest of the set (`golden_digest`), `items` how many verdicts were compared.
    """

    old: Sha256
    new: Sha256
    golden: Sha256
    items: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    lost: tuple[ItemId, ...]

    @property
    def sha256(self) -> str:
        """The digest of all of it: what a vouched comparison is known by."""
        return sha256_hex(canonical(self))

    def behaviour(self, envelope_sha256: str) -> Behaviour:
        """Return what a release says of it; the digest is that of the signed envelope."""
        return Behaviour(self.old, self.new, self.items, self.lost, envelope_sha256)


def golden_digest(files: Mapping[str, str]) -> str:
    """Return the digest of a golden set: of its files' names and SHA-256 digests."""
    return sha256_hex(canonical(dict(files)))


def compared(behaviour: Behaviour, golden: str) -> Comparison:
    """Return the comparison that a release claims, on a golden set."""
    return Comparison(behaviour.old, behaviour.new, golden, behaviour.items, behaviour.lost)


def comparison_statement(found: Comparison) -> dict[str, Any]:
    """Return the statement that those who measured it sign."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "bundle", "digest": {"sha256": found.new}}],
        "predicateType": PREDICATE,
        "predicate": {
            "old": {"sha256": found.old},
            "golden": {"sha256": found.golden},
            "items": found.items,
            "lost": list(found.lost),
        },
    }


def read_comparison(statement: Mapping[str, Any]) -> Comparison:
    """Return the comparison of a statement.

    Raises:
        ReleaseError: it is another statement, or says something else besides.
    """
    try:
        said = statement["predicate"]
        found = msgspec.convert(
            {
                "old": said["old"]["sha256"],
                "new": statement["subject"][0]["digest"]["sha256"],
                "golden": said["golden"]["sha256"],
                "items": said["items"],
                "lost": said["lost"],
            },
            Comparison,
        )
    except (KeyError, IndexError, TypeError, msgspec.ValidationError) as error:
        raise ReleaseError("expected a statement that compares two bundles") from error
    if canonical(comparison_statement(found)) != canonical(dict(statement)):
        raise ReleaseError("the statement says more than a comparison of two bundles")
    return found


def golden_of(release: Release) -> str | None:
    """Return the digest of the golden set that a release holds; None unless it is exactly one."""
    found: list[Artefact] = [one for one in release.artefacts if one.kind is ArtefactKind.GOLDEN]
    return found[0].sha256 if len(found) == 1 else None
