"""Whether a text asks for an answer that has to be decoded before anybody can read it.

An answer in base64, in a cipher, in emojis, backwards, or in the first letters of its lines tells
a reader what it tells nobody who scores words. Such a request raises doubt, not a verdict.
"""

import math
from functools import cache
from importlib import resources

import msgspec
import re2

from safehold.guard.interface import Failed
from safehold.guard.scorers.interface import StreamScorer
from safehold.guard.scorers.tokens import tokens
from safehold.guard.session.drivers import guarded
from safehold.guard.session.segments import READ

_ENDS = 1
"""Windows at each end of a long view that are read whatever stage 1 says."""
_HOT = 4
"""Windows of a long view between them that are read, the hottest."""
_MAX_BYTES = 64 << 20


def whole_windows(text: str, stage1: StreamScorer) -> list[tuple[str, float | Failed]]:
    """Return what stage 2 reads of a view of a whole reply, with what stage 1 says of it.

    Overlapping windows of 1,200 characters: all of a view of up to 5,700, of a longer one both ends
    and the hottest between them.
    """
    step = READ - READ // 4
    starts = range(0, max(len(text) - READ // 4, 1), step)
    found = [
        (window, guarded(stage1.open_reply().feed, tokens(window)))
        for start in starts
        if (window := text[start : start + READ]).strip()
    ]
    if len(found) <= 2 * _ENDS + _HOT:
        return found
    between = sorted(found[_ENDS:-_ENDS], key=_heat, reverse=True)[:_HOT]
    return [*found[:_ENDS], *between, *found[-_ENDS:]]


def _heat(one: tuple[str, float | Failed]) -> float:
    return math.inf if isinstance(one[1], Failed) else one[1]


def asks_for_code(text: str) -> bool:
    """Return whether a text names a code, or a way to write that has to be undone.

    By a table of names and phrases in some forty languages, matched in linear time. It is wide:
    talk of a code counts like the wish for one.
    """
    return any(pattern.search(text) is not None for pattern in _patterns())


@cache
def _patterns() -> tuple["re2._Regexp[str]", ...]:
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = _MAX_BYTES
    options.log_errors = False
    file = resources.files("safehold.guard.session") / "coded_asks.yaml"
    table = msgspec.yaml.decode(file.read_bytes(), type=dict[str, list[str]])
    whole = "|".join(f"(?:{one})" for some in table.values() for one in some)
    return (re2.compile(whole, options),)
