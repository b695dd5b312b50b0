"""The release in force, computed anew from the log, the documents and the memory each time."""

import threading
from collections.abc import Callable
from pathlib import Path

from safehold.canonical import canonical, sha256_hex
from safehold.trust.grants.leaf_reader import take_entry
from safehold.trust.grants.state import TrustState
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    Release,
    ReleaseError,
    parse_release,
)
from safehold.trust.release.release_set import ReleaseSet
from safehold.trust.release.weaker import settings_document
from safehold.trust.released.interface import ReleaseSettings
from safehold.trust.released.memory import read_memory, write_memory
from safehold.trust.released.vouching import vouched_in


class ReleaseLog:
    """The releases of one channel. Several processes may share the memory."""

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
            folder = Path(self._settings.documents)
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
                vouched=frozenset().union(
                    *(vouched_in(folder, one, self._state.roster) for one in documents)
                ),
            )
            if found.seen != seen:
                write_memory(Path(self._settings.memory), found.seen)
            return found

    def admit_settings(self, kind: ArtefactKind, settings: object) -> Artefact:
        """Refuse settings that are not those of the release in force.

        Raises:
            TrustError: they differ, or no release is in force.
        """
        document = settings_document(settings)
        return self.current().admit(kind, sha256_hex(canonical(document)), document)

    def _document(self, sha256: str) -> Release:
        path = Path(self._settings.documents) / f"{sha256}.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ReleaseError(f"the document of release {sha256[:12]} is missing") from error
        return parse_release(data)
