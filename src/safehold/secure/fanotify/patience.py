"""Whether to look for the next question before sleeping: only where looking has paid lately.

One exec asks several times in a row. On an idle processor to be woken for each costs more than the
answer itself; on a busy one who asks next is not running, and looking would only take its time.
"""


class Patience:
    """How often to look before sleeping; each vain time doubles the pause before the next try.

    Args:
        most: Looks in one go; 0 never looks.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pause = 0
        self._left = 0

    def looks(self) -> int:
        """Return how often to look now."""
        if self._left:
            self._left -= 1
            return 0
        return self._most

    def told(self, *, caught: bool) -> None:
        """Say what looking brought, after `looks` was not 0."""
        self._pause = 0 if caught else min(LONGEST, 2 * self._pause + 1)
        self._left = self._pause


LONGEST = 63
"""The longest pause, in sleeps: looking costs a busy machine at most one in 64."""
