"""Drift: what runs, what is on disk and what is released are one, or it is said where not."""

from collections.abc import Mapping, Sequence

import msgspec

from safehold.trust.release.interface import Artefact, Release

ABSENT = ""
"""Digest of what is not there."""


class DriftRow(msgspec.Struct, frozen=True):
    """One artefact in its places; an empty digest: it is not there, or nobody was asked."""

    path: str
    kind: str
    released: str
    disk: str
    running: str
    problem: str
    """In words; empty: no drift."""


def drift(
    release: Release,
    disk: Sequence[Artefact],
    running: Mapping[str, str],
    *,
    unread: Mapping[str, str] | None = None,
) -> tuple[DriftRow, ...]:
    """Compare each artefact of a release with the disk and with what runs.

    Args:
        release: The release in force.
        disk: The artefacts as they are on disk now.
        running: For each kind, the digest of what a running part says (or shows) it has.
        unread: For each kind that could not be asked or read, why: that is a finding too.

    Returns:
        One row for each artefact of the release, and one for each that no release holds.
    """
    here = {(one.kind.value, one.path): one.sha256 for one in disk}
    unread = unread or {}
    rows: list[DriftRow] = []
    for one in release.artefacts:
        kind = one.kind.value
        found = here.pop((kind, one.path), ABSENT)
        rows.append(
            DriftRow(
                path=one.path,
                kind=kind,
                released=one.sha256,
                disk=found,
                running=running.get(kind, ABSENT),
                problem=_problem(one, found, running.get(kind), unread.get(kind), disk),
            )
        )
    rows += [
        DriftRow(path, kind, ABSENT, digest, ABSENT, "on disk, and in no release")
        for (kind, path), digest in here.items()
    ]
    return tuple(rows)


def _problem(
    one: Artefact, found: str, runs: str | None, unread: str | None, disk: Sequence[Artefact]
) -> str:
    kind = one.kind
    problems = []
    if unread is not None:
        problems.append(f"could not be asked: {unread}")
    if found and found != one.sha256:
        problems.append("the disk has another one than was released")
    if not found and any(other.kind is kind for other in disk):
        problems.append("the disk has it under another name, or not at all")
    if runs is not None and runs != one.sha256:
        problems.append("another one runs than was released")
    return "; ".join(problems)
