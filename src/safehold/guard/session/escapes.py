r"""The text that growing JSON means: what a tool reads where the wire shows `\u0070urple`.

Arguments of tools arrive as JSON in pieces. A rule or a scorer that reads the wire alone is blind
to a letter written as an escape, so a session also scores the unescaped text, and withholds the
wire's characters until the text that they stand for may leave.
Source of the escapes: RFC 8259, section 7.
"""

import re
from collections import deque

_SURROGATES = range(0xD800, 0xE000)

_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
_ESCAPE = re.compile(
    r"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r'|u(?P<unit>[0-9a-fA-F]{4})|(?P<short>["\\/bfnrt]))'
)
_CUT = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?))?\Z"
)
"""The beginning of an escape at the end of a text, a pair's second half included."""
_LONGEST = 12


def unescaped(text: str) -> str:
    """Return a whole text with JSON's escapes read."""
    growing = Unescaping()
    return growing.feed(text) + growing.finish()


class Unescaping:
    """Unescapes a growing text, and counts which of its characters the unescaped ones came from."""

    __slots__ = ("_sizes", "_tail")

    def __init__(self) -> None:
        self._tail = ""
        self._sizes: deque[int] = deque()

    def feed(self, text: str) -> str:
        """Return the characters that the new text completes; a cut escape waits."""
        buffer = self._tail + text
        return self._read(buffer, last=False)

    def finish(self) -> str:
        """Return what is left: an escape that never became whole, as it stands."""
        return self._read(self._tail, last=True)

    def spent(self, count: int) -> int:
        """Return how many characters of the wire the next `count` unescaped ones stand for."""
        return sum(self._sizes.popleft() for _ in range(count))

    def _read(self, buffer: str, *, last: bool) -> str:
        out: list[str] = []
        at = 0
        while (stop := buffer.find("\\", at)) >= 0:
            out.append(self._plain(buffer[at:stop]))
            at = stop
            if not last and len(buffer) - at < _LONGEST and _CUT.match(buffer, at):
                break
            match = _ESCAPE.match(buffer, at)
            size = len(match[0]) if match else 1
            out.append(_character(match) if match else "\\")
            self._sizes.append(size)
            at += size
        else:
            out.append(self._plain(buffer[at:]))
            at = len(buffer)
        self._tail = buffer[at:]
        return "".join(out)

    def _plain(self, text: str) -> str:
        self._sizes.extend([1] * len(text))
        return text


def _character(escape: "re.Match[str]") -> str:
    """Return the character of a whole escape; half a surrogate pair is none."""
    if escape["short"]:
        return _SHORT[escape["short"]]
    if escape["high"]:
        high, low = int(escape["high"], 16), int(escape["low"], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    unit = int(escape["unit"], 16)
    return "\N{REPLACEMENT CHARACTER}" if unit in _SURROGATES else chr(unit)
