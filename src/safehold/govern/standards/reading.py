"""Standing out of a log's directory, or out of a copy of it."""

from pathlib import Path

from safehold.trust.demands.ask import read_standing
from safehold.trust.demands.records import StandingHistory
from safehold.trust.standing.interface import StandardsDocument


def read_log(folder: Path, keys_file: Path, document: StandardsDocument) -> StandingHistory:
    """Return the standing records of a log under a document, verified against pinned keys.

    Raises:
        LogError: The keys or the log can't be read, or the log contradicts its signed head.
    """
    return read_standing(folder, keys_file, document)
