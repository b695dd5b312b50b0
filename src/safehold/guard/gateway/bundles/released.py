"""Enforcing mode: what the log did not release does not load, swap or roll back.

The log, the documents and the memory are read anew for each load; the verdict is `ReleaseSet`'s.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.errors import BundleError, TrustError
from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.bundles.swap import Loaded, Loader
from safehold.guard.gateway.release_settings import ReleaseSettings
from safehold.trust.grants.leaf_reader import take_entry
from safehold.trust.grants.state import TrustState
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys
from safehold.trust.release.interface import (
    ArtefactKind,
    Release,
    ReleaseError,
    Seen,
    parse_release,
)
from safehold.trust.release.release_set import ReleaseSet
from safehold.trust.release.weaker import settings_document

UNRELEASED = "UnsafeUnreleased"
"""The mode of a gateway that names no log: any bundle with a trusted signature loads."""


class Releases:
    """The releases of this gateway's channel, from a log that is followed."""

    def __init__(self, settings: ReleaseSettings, clock: Callable[[], float]) -> None:
        """Open the log and the memory.

        Raises:
            TrustError: the memory is lost or another log's, or the keys can't be read.
        """
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._keys = read_keys(Path(settings.log_keys))
        self._seen = read_memory(Path(settings.memory))
        if (self._seen.origin, self._seen.channel) != (self._keys.origin, settings.channel):
            raise ReleaseError("the memory of releases is of another log or channel")
        source = DirectorySource(Path(settings.log))
        self._log = Follower(source, self._keys, at_least=self._seen.log_size)
        self._state = TrustState(self._keys.origin, self._keys.founding)

    def current(self) -> ReleaseSet:
        """Read what is new in the log and return the release in force.

        Raises:
            TrustError: the log, a document or a step of the release does not verify.
        """
        with self._lock:
            for index, entry in self._log.news():
                take_entry(self._state, index, entry, self._keys.emitter_keys())
            head = self._state.head(self._log.size)
            # Another worker may have accepted a later release meanwhile.
            seen = read_memory(Path(self._settings.memory))
            documents = [
                self._document(one.details.release_sha256)
                for one in head.releases
                if one.details.channel == self._settings.channel
            ]
            found = ReleaseSet(
                head,
                documents,
                seen=seen,
                now=int(self._clock()),
                max_age_s=self._settings.max_age_s,
            )
            if found.seen != seen:
                write_memory(Path(self._settings.memory), found.seen)
            return found

    def _document(self, sha256: str) -> Release:
        path = Path(self._settings.documents) / f"{sha256}.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ReleaseError(f"the document of release {sha256[:12]} is missing") from error
        return parse_release(data)

    def admit_guard(self, held: Held) -> None:
        """Refuse a guard that the release in force does not hold.

        Raises:
            BundleError: it is not released, or no release is in force.
        """
        rules = held.name.endswith((".yaml", ".yml"))
        kind = ArtefactKind.RULES if rules else ArtefactKind.BUNDLE
        try:
            self.current().admit(kind, held.digest)
        except TrustError as error:
            raise BundleError(f"not released: {error}") from error

    def admit_settings(self, settings: msgspec.Struct) -> None:
        """Refuse settings that are not those of the release in force.

        Raises:
            ReleaseError: they differ, or no release is in force.
        """
        document = settings_document(settings)
        self.current().admit(ArtefactKind.GATEWAY, sha256_hex(canonical(document)), document)


class ReleasedLoader:
    """A loader that gives only released guards."""

    def __init__(self, inner: Loader, releases: Releases) -> None:
        """Take the loader that verifies signatures, and the releases."""
        self._inner = inner
        self._releases = releases

    def __call__(self, path: Path) -> Loaded:
        """Load, then look at the digest of what was loaded, so that nothing changes in between.

        Raises:
            BundleError: it does not verify, or it is not released.
        """
        loaded = self._inner(path)
        try:
            self._releases.admit_guard(loaded.held)
        except BundleError:
            loaded.held.retire()
            raise
        return loaded


def begin_memory(path: Path, *, origin: str, channel: str) -> None:
    """Make the memory of a verifier that has seen nothing: once, when it is set up.

    Raises:
        ReleaseError: there is one; a second beginning would forget what was accepted.
    """
    if path.exists():
        raise ReleaseError(f"{path.name}: there is a memory of releases already; it stays")
    write_memory(
        path, Seen(origin=origin, channel=channel, log_size=0, version=0, release_sha256="")
    )


def read_memory(path: Path) -> Seen:
    """Return what was accepted before.

    Raises:
        ReleaseError: it is lost or damaged; nothing may load then.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Seen)
    except OSError as error:
        raise ReleaseError(
            f"{path.name}: the memory of releases is lost; bring it back from a backup"
        ) from error
    except msgspec.DecodeError as error:
        raise ReleaseError(f"{path.name}: the memory of releases is damaged") from error


def write_memory(path: Path, seen: Seen) -> None:
    """Keep what was accepted, durably and atomically.

    Raises:
        ReleaseError: the disk refused.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(seen))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ReleaseError(f"{path.name}: the memory of releases can't be written") from error
