"""How often people from outside may ask: each by itself, and all together; a bound on memory too.

One who floods is told to wait and takes nothing from others, until so many flood that the bound for
all of them is reached.
"""

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

_MOST_PEERS = 4_096


class Pace:
    """Counts over a sliding window; a refused attempt does not count."""

    def __init__(
        self,
        *,
        each: int,
        together: int,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many a peer, and all peers, may ask within the window."""
        self._each, self._together, self._window_s = each, together, window_s
        self._clock, self._lock = clock, threading.Lock()
        self._all: deque[float] = deque()
        self._of: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, peer: str, *, count: bool = True) -> float:
        """Count one attempt and return 0, or return for how many seconds this peer must wait.

        Without `count` it is only asked whether the peer may.
        """
        with self._lock:
            now = self._clock()
            mine = self._of.pop(peer, deque())
            for times in (self._all, mine):
                while times and times[0] <= now - self._window_s:
                    times.popleft()
            # The newest is last; who has not asked for longest is forgotten first.
            self._of[peer] = mine
            while len(self._of) > _MOST_PEERS:
                self._of.popitem(last=False)
            waits = [
                times[-most] + self._window_s - now
                for times, most in ((mine, self._each), (self._all, self._together))
                if len(times) >= most
            ]
            if waits:
                return max(waits)
            if count:
                mine.append(now)
                self._all.append(now)
            return 0.0


def peer_of(host: str | None) -> str:
    """Return whom an address counts as: itself, or the /64 that an IPv6 address belongs to."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
