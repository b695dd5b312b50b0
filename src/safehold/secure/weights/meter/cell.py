"""The tally in memory that holder and workers share: a killed worker forgets nothing."""

import mmap
import struct

from safehold.secure.weights.meter.budget import Tally, closed

_NUMBERS = struct.Struct("<QQQ")
_SLOTS = (64, 128)
_REASON, _REASON_BYTES = 256, 200


class TallyCell:
    """One tally, written as a whole: two places, and a byte that says which one holds.

    A process killed in the middle of writing leaves the byte as it was.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        # A new mapping holds zeros: nothing is charged yet.
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def tally(self) -> Tally:
        """What was metered so far, by all workers."""
        charged, allowed, refused = _NUMBERS.unpack_from(self._shared, _SLOTS[self._shared[0]])
        tally = Tally(self._budget, charged, allowed, refused)
        length = self._shared[1]
        if not length:
            return tally
        reason = bytes(self._shared[_REASON : _REASON + length]).decode("utf-8", "replace")
        return closed(tally, reason)

    def store(self, tally: Tally) -> None:
        """Keep a tally; only the one worker may call this."""
        other = 1 - self._shared[0]
        _NUMBERS.pack_into(self._shared, _SLOTS[other], tally.charged, tally.allowed, tally.refused)
        self._shared[0] = other

    def close(self, reason: str) -> None:
        """Refuse everything from now on; the holder may call this beside a worker."""
        text = (reason or "ended").encode()[:_REASON_BYTES]
        self._shared[_REASON : _REASON + len(text)] = text
        self._shared[1] = len(text)
