"""A reader that follows a growing log from its static files, and believes no byte of them."""

import copy

from safehold.trust.log.checkpoint import open_checkpoint
from safehold.trust.log.interface import Checkpoint, LogSource, LogTamperError
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.merkle import hash_leaf
from safehold.trust.log.tiles import Frontier, TileReader


class Follower:
    """Reads what is new in a log, each time against everything that was read before."""

    def __init__(self, source: LogSource, keys: LogKeys, *, at_least: int = 0) -> None:
        """Begin before the first entry.

        Args:
            source: The log's static files: its directory, or a copy.
            keys: The log's public keys, pinned by the reader.
            at_least: How many leaves the reader saw in an earlier life; fewer are a rollback.
        """
        self._source = source
        self._keys = keys
        self._at_least = at_least
        self._frontier = Frontier()

    @property
    def size(self) -> int:
        """How many entries were read."""
        return self._frontier.size

    def head(self) -> Checkpoint:
        """Return the newest signed tree head.

        Raises:
            LogTamperError: there is none, it is not this log's, or it is older than one seen.
        """
        data = self._source.read("checkpoint")
        if data is None:
            raise LogTamperError("the log has no checkpoint")
        head, _ = open_checkpoint(data, self._keys.log_key(), origin=self._keys.origin)
        least = max(self.size, self._at_least)
        if head.size < least:
            raise LogTamperError(f"expected at least {least} leaves, got {head.size}: a rollback")
        return head

    def news(self) -> list[tuple[int, bytes]]:
        """Return the index and bytes of every entry since the last call.

        Raises:
            LogTamperError: the files contradict the signed tree head, or what was read before.
        """
        # 1. A tree head of this log, not older than the last.
        head = self.head()
        entries = list(TileReader(self._source, head).entries(self.size))
        # 2. The entries, on top of all earlier ones, have its root.
        frontier = copy.deepcopy(self._frontier)
        for _, entry in entries:
            frontier.add(hash_leaf(entry))
        if frontier.root() != head.root:
            raise LogTamperError("the entries do not have the root that the checkpoint signs")
        self._frontier = frontier
        return entries
