"""What a value on the command line may be, for values that click itself takes unread.

Click takes `nan` and `inf` for numbers, also within a range, and any text for a key, a language or
an address. They would fail, or do nothing, far from the option that they came from.
`tests/cli/test_cli_values.py` goes through all commands and finds options without these types.
"""

import math
import re
from typing import Any

import click

from safehold.errors import UsageError

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_LONGEST_LANGUAGE = 32
_SHOWN = 60
"""Characters of a wrong value that a message repeats."""


class Finite(click.FloatRange):
    """A number, in a range where one is given, and never `nan` or an infinity."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number.

        Raises:
            click.BadParameter: It is none, is not finite, or lies outside of the range.
        """
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            self.fail(
                f"expected a finite number{self._within()}, got {_short(value)!r}", param, ctx
            )
        try:
            return super().convert(number, param, ctx)
        except click.BadParameter:
            self.fail(f"expected a number{self._within()}, got {_short(value)!r}", param, ctx)

    def _within(self) -> str:
        said = self._describe_range()
        return f" ({said})" if said else ""

    def _describe_range(self) -> str:
        """Return the range as `--help` shows it; empty where there is none."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class HeaderKey(click.ParamType[str]):
    """A secret that is sent in an HTTP header: visible ASCII characters. No message shows it."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the key; an empty one is none.

        Raises:
            click.BadParameter: It could not stand in a header.
        """
        from safehold.http_ask import checked_key  # its libraries are wanted only now

        try:
            return checked_key(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Words(click.ParamType[str]):
    """One line that a person types and others read: a reason, a note, the name of somebody.

    It is kept, signed, logged or shown, so it has to be visible and of a bounded length. A default
    is taken as it is: an empty one stands for nothing said.
    """

    name = "text"

    def __init__(self, most: int) -> None:
        """Take the most characters."""
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text.

        Raises:
            click.BadParameter: It is empty, too long, has more lines than one, or characters that
                nobody sees.
        """
        from safehold.trust.text import LINE_PATTERN, is_hidden  # only where there is a text

        text = str(value)
        if param is not None and text == param.default:
            return text
        expected = f"expected one line of 1 to {self.most} visible characters, got"
        if not text.strip():
            self.fail(f"{expected} none", param, ctx)
        if len(text) > self.most:
            self.fail(f"{expected} {len(text)}", param, ctx)
        for place, one in enumerate(text, start=1):
            if is_hidden(one):
                self.fail(f"{expected} U+{ord(one):04X} as number {place}", param, ctx)
        if re.match(LINE_PATTERN, text) is None:
            self.fail(f"{expected} marks piled up on a letter", param, ctx)
        return text


class LanguageCode(click.ParamType[str]):
    """A language as a lexicon names it: `en`, `de`, `zh-Hant`."""

    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the code.

        Raises:
            click.BadParameter: It is no code of a language.
        """
        code = str(value)
        if len(code) > _LONGEST_LANGUAGE or not _LANGUAGE.fullmatch(code):
            self.fail(
                "expected the code of a language, such as en, de or zh-Hant, "
                f"got {_short(code)!r}; give --language again for each further one",
                param,
                ctx,
            )
        return code


class Address(click.ParamType[str]):
    """An http or https address, or one of some names that stand in its place."""

    name = "url"

    def __init__(self, *names: str, prefixes: tuple[str, ...] = ()) -> None:
        """Take the names, and beginnings of other texts, that are taken as they are."""
        self.names = names
        self.prefixes = prefixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address or name.

        Raises:
            click.BadParameter: It is neither.
        """
        text = str(value)
        if text in self.names or (self.prefixes and text.startswith(self.prefixes)):
            return text
        from safehold.http_ask import checked_address  # its libraries are wanted only now

        try:
            return checked_address(text)
        except UsageError as error:
            others = [f"`{one}`" for one in (*self.names, *self.prefixes)]
            also = f"{', '.join(others)} or " if others else ""
            self.fail(str(error).replace("expected ", f"expected {also}", 1), param, ctx)


class WholeNumber(click.IntRange):
    """A whole number of a range that has two ends: click's own has none, and takes 10**30."""

    def __init__(self, least: int, most: int = 1_000_000_000) -> None:
        """Take the ends, which are of the range."""
        super().__init__(least, most)


KEPT_NUMBER = WholeNumber(0, 2**63 - 1)
"""The number of something that is kept: of a row, a case or a leaf. A database has 64 bits for it.
"""
POSIX_S = WholeNumber(0, 253_402_300_799)
"""A moment in POSIX seconds, to the end of the year 9999, where calendars end."""
SENTENCE = Words(400)
"""Why, what for, a note, a ticket: as long as the log's lines."""
WHO = Words(120)
"""The name of a person, an account, a finding: what a table shows in a column."""
PORT = WholeNumber(0, 65_535)
SEED = click.IntRange(0, 2**32 - 1)
"""What every generator of random numbers here takes."""


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
