"""Standing out of a log's directory, or out of a copy of it."""

from pathlib import Path

from safehold.govern.standards.acts import StandingHistory, follow
from safehold.trust.grants.leaf_reader import readable
from safehold.trust.grants.state import TrustState
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys


def read_log(folder: Path, keys_file: Path) -> StandingHistory:
    """Return the standing records of a log, verified against pinned keys.

    Raises:
        LogError: The keys or the log can't be read, or the log contradicts its signed head.
    """
    keys = read_keys(keys_file)
    emitters = keys.emitter_keys()
    entries = Follower(DirectorySource(folder), keys).news()
    return follow(readable(entries, emitters), TrustState(keys.origin, keys.founding))
