"""A transparency log, verified from a copy."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from safehold.errors import TrustError
from safehold.trust.grants.leaf_reader import take_leaf
from safehold.trust.grants.state import TrustState
from safehold.trust.log.audit import audit, check_size
from safehold.trust.log.dsse import Statement
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.keys import read_keys
from safehold.trust.log.log_entries import read_leaf


class LogFinding(msgspec.Struct, frozen=True):
    """What a verified log showed."""

    origin: str
    size: int
    """Leaves in the log."""
    root: str
    """The Merkle root, in hex."""
    witnesses: tuple[str, ...]
    """Known witnesses whose cosignature verified."""
    witnessed_size: int
    voids: tuple[tuple[int, str], ...]
    """Leaves that have no effect by the rules of grants: index and reason."""
    seconds_ahead: int
    """How far the newest leaf lies ahead of this clock: more than a skew is a fast clock's work."""


def verify_log(
    log: str | Path,
    keys: str | Path,
    *,
    witnesses: int = 0,
    at_least: int = 0,
    progress: Callable[[int], None] | None = None,
) -> LogFinding:
    """Verify a whole copy of a log offline: signatures, tiles, root, witnesses, grants' rules.

    Args:
        log: The folder of the copy.
        keys: The `log.json` that you pinned, from somewhere else than the copy.
        witnesses: How many distinct known witnesses must have cosigned.
        at_least: Leaves that you have seen before: a shorter log is refused.
        progress: Called with the number of leaves read so far.

    Raises:
        TrustError: Something is not as signed; the message names the first such thing.
    """
    known = read_keys(Path(keys))
    source = DirectorySource(Path(log))
    check_size(source, known, at_least)
    state = TrustState(known.origin, known.founding)

    def check_leaf(index: int, statement: Statement, emitter: str) -> None:
        del emitter
        try:
            leaf = read_leaf(statement)
        except TrustError as error:
            state.void(index, str(error))
        else:
            take_leaf(state, index, leaf)

    found = audit(source, known, check_leaf=check_leaf, need_witnesses=witnesses, progress=progress)
    return LogFinding(
        origin=found.checkpoint.origin,
        size=found.checkpoint.size,
        root=found.checkpoint.root.hex(),
        witnesses=found.witnesses,
        witnessed_size=found.witnessed_size,
        voids=tuple((void.index, void.reason) for void in state.voids),
        seconds_ahead=max(0, max(state.last_time, state.newest) - int(time.time())),
    )
