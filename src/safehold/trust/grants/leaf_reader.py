"""One way into the state for an entry of the log: whatever it is, it stops no reader."""

from collections.abc import Iterable, Iterator, Mapping

from safehold.errors import TrustError
from safehold.trust.grants.state import TrustState
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.log_entries import Leaf, Record, read_leaf
from safehold.trust.log.note import VerifierKey


def take_leaf(state: TrustState, index: int, leaf: Leaf) -> None:
    """Take a typed leaf into the state; one that the rules do not allow is void there."""
    if isinstance(leaf, Record):
        state.observe(leaf.time)
    else:
        state.apply(index, leaf)


def readable(
    entries: Iterable[tuple[int, bytes]], emitters: Mapping[str, VerifierKey]
) -> Iterator[tuple[int, Leaf]]:
    """Yield index and leaf of each entry that is one; what is none has no effect and is left out.

    For readers that keep no list of void entries: `take_entry` does.
    """
    for index, entry in entries:
        try:
            leaf = read_leaf(open_envelope(entry, emitters)[0])
        except TrustError:
            continue
        yield index, leaf


def take_entry(
    state: TrustState, index: int, entry: bytes, emitters: Mapping[str, VerifierKey]
) -> Leaf | None:
    """Take an entry into the state and return its leaf; None: it is none, and void.

    A holder of the log's key can append anything. What is no leaf, or no emitter's, has no effect
    and is listed; the readers go on. `safehold log verify` judges the log itself.
    """
    try:
        leaf = read_leaf(open_envelope(entry, emitters)[0])
    except TrustError as error:
        state.void(index, str(error))
        return None
    take_leaf(state, index, leaf)
    return leaf
