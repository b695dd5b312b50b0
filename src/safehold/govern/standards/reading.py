"""Standing out of a log's directory, or out of a copy of it."""

from pathlib import Path

from safehold.govern.standards.acts import StandingHistory, follow
from safehold.trust.grants.state import TrustState
from safehold.trust.log.dsse import unseal
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys
from safehold.trust.log.log_entries import read_leaf


def read_log(folder: Path, keys_file: Path) -> StandingHistory:
    """Return the standing records of a log, verified against pinned keys.

    Raises:
        LogError: The keys or the log can't be read, or the log contradicts its signed head.
    """
    keys = read_keys(keys_file)
    emitters = keys.emitter_keys()
    entries = Follower(DirectorySource(folder), keys).news()
    leaves = ((index, read_leaf(unseal(entry, emitters)[0])) for index, entry in entries)
    return follow(leaves, TrustState(keys.origin, keys.founding))
