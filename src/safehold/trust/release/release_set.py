"""The one verifier of releases: values in, verdict out, no input and no output.

The shape is python-tuf's `TrustedMetadataSet`: whoever loads, swaps or applies something asks the
same set. Freeze, rollback, fork and mix-and-match are the attacks of the TUF specification.
"""

from collections.abc import Callable, Iterable

from safehold.canonical import canonical
from safehold.trust.release.comparison import compared, golden_of
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    LoggedRelease,
    LogHead,
    Release,
    ReleaseError,
    Seen,
)
from safehold.trust.release.needed import NOBODY, Vouched, permits


class ReleaseSet:
    """The releases of one channel, as the log gives them, and the one in force."""

    def __init__(
        self,
        head: LogHead,
        releases: Iterable[Release],
        *,
        seen: Seen,
        now: int,
        max_age_s: int,
        vouched: Vouched = NOBODY,
    ) -> None:
        """Find the release in force.

        Args:
            head: What the verified log says.
            releases: Release documents, in any order; every logged one must be among them.
            seen: What was accepted before.
            now: POSIX seconds.
            max_age_s: How old the log's newest leaf may be.
            vouched: Which provenance was verified now, by the roster of now. That of a step which
                was accepted before, or of an artefact that is no more in force, is not asked for
                again: who rebuilt it may have left.

        Raises:
            ReleaseError: one of the numbered steps fails; nothing is in force then.
        """
        # 1. The log: the same one, not shorter than before (rollback), not stale (freeze).
        if head.origin != seen.origin:
            raise ReleaseError(f"expected the log {seen.origin}, got {head.origin}")
        if head.size < seen.log_size:
            raise ReleaseError(f"expected {seen.log_size} leaves or more, got {head.size}")
        if now - head.last_time > max_age_s:
            raise ReleaseError(
                f"the log's newest leaf is {now - head.last_time} s old, expected {max_age_s} s"
            )
        # 2. The chain of versions, each granted for this channel.
        chain = _chain(head, seen.channel)
        documents = {release.sha256: release for release in releases}
        # 3. Every step of the chain was carried by an operation that is enough for its change.
        previous: Release | None = None
        last = documents.get(chain[-1].details.release_sha256)
        alive = set() if last is None else {(one.path, one.sha256) for one in last.artefacts}
        for logged in chain:
            taken = logged.details.version <= seen.version
            previous = _step(logged, previous, documents, _known(vouched, alive, taken=taken))
        newest = chain[-1]
        # 4. Not older than what was accepted, and not another document of the same version.
        if newest.details.version < seen.version:
            raise ReleaseError(
                f"expected version {seen.version} or later, got {newest.details.version}: rollback"
            )
        accepted = {one.details.version: one.details.release_sha256 for one in chain}
        if seen.version and accepted.get(seen.version) != seen.release_sha256:
            raise ReleaseError(f"version {seen.version} is another release than before: a fork")
        # 5. Its time has come and is not over.
        if previous is None:
            raise ReleaseError("expected a release, got none")
        if not previous.not_before <= now <= previous.expires:
            raise ReleaseError("the newest release is not valid at this time")
        self.current = previous
        self.operation = newest.operation
        self.seen = Seen(
            origin=head.origin,
            channel=seen.channel,
            log_size=head.size,
            version=previous.version,
            release_sha256=previous.sha256,
        )

    def admit(self, kind: ArtefactKind, sha256: str, document: object | None = None) -> Artefact:
        """Return the artefact of the release in force that this is.

        Args:
            kind: What was loaded.
            sha256: Digest of what was really loaded, not of what a file says.
            document: For settings, the document that they were read into.

        Raises:
            ReleaseError: the release has none of this kind and digest, or it is read otherwise.
        """
        of_kind = [one for one in self.current.artefacts if one.kind is kind]
        for one in of_kind:
            same = document is None or canonical(one.document) == canonical(document)
            if one.sha256 == sha256 and same:
                return one
        raise ReleaseError(
            f"{kind.value} {sha256[:12]} is not in release {self.current.version} of channel "
            f"{self.current.channel}; expected {[one.sha256[:12] for one in of_kind] or 'none'}"
        )


def _chain(head: LogHead, channel: str) -> tuple[LoggedRelease, ...]:
    ours = [one for one in head.releases if one.details.channel == channel]
    for one in ours:
        if one.host != channel:
            raise ReleaseError(f"a release for {channel} was granted for {one.host}: not for here")
    ours.sort(key=lambda one: one.details.version)
    if not ours:
        raise ReleaseError(f"the log has no release for the channel {channel}")
    before = ""
    for number, one in enumerate(ours, 1):
        if one.details.version != number or one.details.previous != before:
            raise ReleaseError(f"the releases of {channel} are no chain at version {number}")
        before = one.details.release_sha256
    if ours[-1].ended:
        raise ReleaseError(f"release {ours[-1].details.version} was revoked: publish the next one")
    return tuple(ours)


def _step(
    logged: LoggedRelease,
    previous: Release | None,
    documents: dict[str, Release],
    known: Callable[[Release], Vouched],
) -> Release:
    details = logged.details
    release = documents.get(details.release_sha256)
    if release is None:
        raise ReleaseError(f"the document of release {details.version} is missing")
    if (release.channel, release.version, release.previous) != (
        details.channel,
        details.version,
        details.previous,
    ):
        raise ReleaseError(f"release {details.version} is not what its approvers were told")
    paths = [one.path for one in release.artefacts]
    if len(set(paths)) != len(paths):
        raise ReleaseError(f"release {details.version} names a path twice")
    if not permits(logged.operation, previous, release, known(release)):
        raise ReleaseError(
            f"release {details.version} weakens a safeguard: expected release.weaken, "
            f"got {logged.operation}"
        )
    return release


def _known(
    vouched: Vouched, alive: set[tuple[str, str]], *, taken: bool
) -> Callable[[Release], Vouched]:
    """Return what counts as vouched for a step: what was verified, and what need not be again."""

    def known(release: Release) -> Vouched:
        old = {
            (release.provenance[one.path], one.sha256)
            for one in release.artefacts
            if one.path in release.provenance and (taken or (one.path, one.sha256) not in alive)
        }
        golden, running = golden_of(release), {sha256 for _, sha256 in alive}
        old |= {
            (one.report_sha256, compared(one, golden).sha256)
            for one in release.behaviour
            if golden is not None and (taken or one.new not in running)
        }
        return old | set(vouched)

    return known
