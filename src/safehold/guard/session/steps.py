"""Where a growing text is looked at: at the same places however it arrived.

A step is one word with the white space around it, or `STEP` characters of a run without any. Its
end depends on the text alone, so all that a session decides at the end of a step (whether stage 2
is asked, about which text, and what may leave) is a function of the text, not of the deltas.
"""

import re

STEP = 64
"""The longest step, in characters."""

_WORD = re.compile(r"\s*\S+\s")


class Steps:
    """Cuts a growing text into steps; the beginning of the next one stays inside."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = ""

    def feed(self, text: str) -> list[str]:
        """Return the steps that the new text completes."""
        buffer = self._waiting + text
        found: list[str] = []
        at = 0
        while at < len(buffer):
            word = _WORD.match(buffer, at, at + STEP)
            end = word.end() if word else at + STEP
            if end > len(buffer):
                break
            found.append(buffer[at:end])
            at = end
        self._waiting = buffer[at:]
        return found

    def finish(self) -> str:
        """Return what is left when the text ends; the cutter is then empty."""
        left, self._waiting = self._waiting, ""
        return left
