"""The transparency log of grants, as one worker follows it."""

from pathlib import Path

from safehold.trust.grants.leaf_reader import take_entry
from safehold.trust.grants.state import TrustState
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys


class GrantLog:
    """The transparency log as one worker reads it: only what verifies counts."""

    def __init__(self, log: Path, log_keys: Path, *, at_least: int) -> None:
        """Take the log's folder, its pinned keys, and how many leaves were seen before."""
        keys = read_keys(log_keys)
        self._emitters = keys.emitter_keys()
        self._follower = Follower(DirectorySource(log), keys, at_least=at_least)
        self.state = TrustState(keys.origin, keys.founding)

    @property
    def size(self) -> int:
        """How many leaves were read."""
        return self._follower.size

    def refresh(self) -> bool:
        """Read what is new; tell whether anything was.

        Raises:
            TrustError: the log can't be read or does not verify.
        """
        if self._follower.head().size == self._follower.size:
            return False
        for index, entry in self._follower.news():
            take_entry(self.state, index, entry, self._emitters)
        return True
