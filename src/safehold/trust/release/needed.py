"""Which operation a release needs: computed from the old and the new release alone."""

from collections.abc import Collection

from safehold.trust.release.comparison import compared, golden_of
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    Release,
    ReleaseOperation,
)
from safehold.trust.release.orders import GuardDirection
from safehold.trust.release.weaker import Change, changes, weakens

Vouched = Collection[tuple[str, str]]
"""Digests of an envelope, and of what persons of the roster signed in it: the artefact whose
provenance it is, or the comparison of two bundles."""
NOBODY: Vouched = frozenset()
_BY_BEHAVIOUR = frozenset({ArtefactKind.BUNDLE})
_BY_PROVENANCE = frozenset({ArtefactKind.PRODUCT})


def release_changes(
    old: Release | None, new: Release, vouched: Vouched = NOBODY
) -> tuple[Change, ...]:
    """Return every difference that guards more or less, over all artefacts.

    A first release is weaker by definition: nothing is known to compare it with.

    Args:
        old: The release before it.
        new: The release.
        vouched: Which provenance was verified; none by itself.
    """
    if old is None:
        return (Change("release", GuardDirection.WEAKER, "a first release"),)
    before = {one.path: one for one in old.artefacts}
    after = {one.path: one for one in new.artefacts}
    found: list[Change] = []
    for path in sorted(before.keys() | after.keys()):
        if path not in before or path not in after:
            why = "an artefact that is gone" if path in before else "an artefact that was not there"
            found.append(Change(path, GuardDirection.WEAKER, why))
        else:
            found += _artefact(before[path], after[path], (old, new), vouched)
    return tuple(found)


def permits(operation: str, old: Release | None, new: Release, vouched: Vouched = NOBODY) -> bool:
    """Tell whether an operation is enough for this change.

    `release.weaken` has the highest quorum and permits all. A change that weakens nothing may
    also come by `release.publish` or, in need, by `release.emergency`.
    """
    if operation == ReleaseOperation.WEAKEN:
        return True
    if weakens(release_changes(old, new, vouched)):
        return False
    return operation in {ReleaseOperation.PUBLISH, ReleaseOperation.EMERGENCY}


def _artefact(
    old: Artefact, new: Artefact, releases: tuple[Release, Release], vouched: Vouched
) -> list[Change]:
    if old.kind is not new.kind:
        return [Change(new.path, GuardDirection.WEAKER, "another kind of artefact")]
    if new.kind in _BY_BEHAVIOUR:
        return [] if old.sha256 == new.sha256 else [_behaviour(old, new, releases, vouched)]
    if new.kind in _BY_PROVENANCE:
        return [] if old.sha256 == new.sha256 else [_provenance(new, releases[1], vouched)]
    if new.kind is ArtefactKind.GOLDEN and old.sha256 == new.sha256:
        return []
    if new.document is None or old.document is None:
        return [Change(new.path, GuardDirection.WEAKER, "settings without their document")]
    found = changes(new.kind.value, old.document, new.document)
    return [Change(f"{new.path}: {one.path}", one.direction, one.why) for one in found]


def _provenance(new: Artefact, release: Release, vouched: Vouched) -> Change:
    known = release.provenance.get(new.path)
    if known is None:
        return Change(new.path, GuardDirection.WEAKER, "no provenance")
    if (known, new.sha256) not in vouched:
        return Change(new.path, GuardDirection.WEAKER, "provenance that two did not sign")
    return Change(new.path, GuardDirection.EQUAL, "rebuilt by two persons")


def _behaviour(
    old: Artefact, new: Artefact, releases: tuple[Release, Release], vouched: Vouched
) -> Change:
    before, release = releases
    reports = [one for one in release.behaviour if (one.old, one.new) == (old.sha256, new.sha256)]
    if len(reports) != 1:
        return Change(new.path, GuardDirection.WEAKER, "no comparison with the bundle in force")
    # The golden set is that of the release in force: whoever asks for a change doesn't choose it.
    golden = golden_of(before)
    if golden is None or golden != golden_of(release):
        return Change(new.path, GuardDirection.WEAKER, "no golden set that was released before")
    if (reports[0].report_sha256, compared(reports[0], golden).sha256) not in vouched:
        why = "a comparison that two did not sign for this golden set"
        return Change(new.path, GuardDirection.WEAKER, why)
    lost = len(reports[0].lost)
    if lost:
        return Change(new.path, GuardDirection.WEAKER, f"{lost} items that it no longer stops")
    return Change(new.path, GuardDirection.EQUAL, f"none of {reports[0].items} items lost")
