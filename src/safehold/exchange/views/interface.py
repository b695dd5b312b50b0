"""A decoded view of a text, the limits of looking for views, and what a decoder is."""

import re
from collections.abc import Callable, Iterator
from functools import cached_property

import msgspec

from safehold.exchange.views.english_likeness import Letters
from safehold.exchange.views.english_words import function_words
from safehold.exchange.views.token_density import dense_spans


class View(msgspec.Struct, frozen=True):
    """What a text means after undoing the encodings in `chain`, outermost first.

    An empty chain is the text itself, normalised. `span` is where the innermost decoded part sat
    in the text that its decoder read (the normalised text, for a chain of one). A view with
    `spliced` is that whole text with the decoded parts put back in place. `cut` says that this
    view's text is cut; on the first view, also that the limits ended the search before its end, so
    that something may be hidden still: whether that is safe is the caller's decision.
    """

    text: str
    chain: tuple[str, ...]
    span: tuple[int, int]
    spliced: bool = False
    cut: bool = False


class ViewLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one search; all are counts, none is a clock, so equal text gives equal views.

    A text over `max_chars` is cut to its head (three quarters) and tail. `max_work` counts
    what decoders do, in units of very roughly a tenth of a microsecond. `depth` is how many
    encodings may lie on top of each other.
    """

    max_chars: int = 262_144
    max_views: int = 32
    max_view_chars: int = 65_536
    max_found: int = 16
    max_work: int = 10_000_000
    depth: int = 2


class Found(msgspec.Struct, frozen=True):
    """One decoded part: where it sat, what it says, and the encoding's name."""

    start: int
    end: int
    text: str
    how: str


_LONG = 16
_NEAR_ENGLISH, _PLAIN_ENGLISH = 0.45, 1.6
_FUNCTION_WORDS = 50
"""Letters of English to each small word, at most; median 25."""
_DIGIT = re.compile(r"[0-9]")
_MIXED = re.compile(r"[a-z0-9][A-Z]|[A-Za-z][0-9]|[0-9][a-z]|=")


class Work:
    """A counter that ends a search, the same way each time."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, amount: int) -> bool:
        """Spend an amount of work; False when that is more than is left."""
        self.left -= amount
        return self.left >= 0


class ViewSource:
    """A text that decoders read, and what they share about it."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def ascii(self) -> bool:
        """Whether the text has ASCII characters alone, which rules many decoders out."""
        return self.text.isascii()

    @cached_property
    def digits(self) -> bool:
        """Whether the text has a digit."""
        return _DIGIT.search(self.text) is not None

    @cached_property
    def mixed(self) -> bool:
        """Whether letters and digits, or small and capital letters, are mixed inside a word."""
        return _MIXED.search(self.text) is not None

    @cached_property
    def longest(self) -> int:
        """The length of the longest run without white space."""
        return max(map(len, self.text.split()), default=0)

    @cached_property
    def dense(self) -> list[tuple[int, int]]:
        """Spans that are no language, in which encodings may lie."""
        worth = self.digits or self.mixed or self.longest >= _LONG
        return dense_spans(self.text) if worth or not self.letters.count else []

    @cached_property
    def broken(self) -> bool:
        """Whether it is by its letters near English, and lacks the small words of English."""
        near = _NEAR_ENGLISH <= self.letters.mean() < _PLAIN_ENGLISH
        return near and function_words(self.text) * _FUNCTION_WORDS < self.letters.count

    @cached_property
    def letters(self) -> Letters:
        """The text's letters, scored by how English their pairs are."""
        return Letters(self.text)


Find = Callable[[ViewSource, Work], Iterator[Found]]
"""Yield the parts of a text that an encoding explains; never raise, never yield ordinary text."""
