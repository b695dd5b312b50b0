r"""Escapes that stand for single characters: URL, HTML, quoted-printable, \\u and \\x."""

import html
import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from safehold.exchange.views.interface import Found, ViewSource, Work

_MIN_ESCAPES = 3
_MAX_CODE = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

_URL = re.compile(r"%[0-9A-Fa-f]{2}")
_HTML = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});")
_QUOTED = re.compile(r"(?:=[0-9A-F]{2}){1,8}|(?<=\S)=\r?\n")
_SOFT = re.compile(r"(?<=\S)=\r?\n")
_QUOTED_RUN = re.compile(r"(?:=[0-9A-F]{2})+")
# An assignment of a number (`x=50`) looks like an escape: one must be none.
_QUOTED_SURE = re.compile(r"=\r?\n|=[0-9A-F][A-F]|=[A-F][0-9]|(?:=[2-7][0-9]){3}")
_UNICODE = re.compile(
    r"\\u\{([0-9A-Fa-f]{1,6})\}|\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|\\x([0-9A-Fa-f]{2})"
    r"|%u([0-9A-Fa-f]{4})|\bU\+([0-9A-Fa-f]{4,6})\b ?|\\([0-3][0-7]{2})"
)
_BYTES = re.compile(r"(?:\\x[0-9A-Fa-f]{2}|\\[0-3][0-7]{2}){2,}")
_BYTE = re.compile(r"\\x(..)|\\(...)")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def find_url(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the text with %XX undone (and + as a space where no space is)."""
    return _undone(source, work, _URL, _unquoted, "url")


def find_html(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the text with character references undone."""
    return _undone(source, work, _HTML, html.unescape, "html")


def find_quoted_printable(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the text with =XX and soft line ends undone (RFC 2045)."""
    if "=" not in source.text or not _QUOTED_SURE.search(source.text):
        return iter(())
    return _undone(
        source,
        work,
        _QUOTED,
        lambda text: _QUOTED_RUN.sub(_bytes, _SOFT.sub("", text)),
        "quoted-printable",
    )


def find_unicode(source: ViewSource, work: Work) -> Iterator[Found]:
    r"""Yield the text with \\uXXXX, \\xXX, \\ooo, %uXXXX and U+XXXX undone."""
    if "\\" not in source.text and "%u" not in source.text and "U+" not in source.text:
        return iter(())

    def undo(text: str) -> str:
        joined = _UNICODE.sub(_character, _BYTES.sub(_utf8, text))
        return _PAIR.sub(
            lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), joined
        )

    return _undone(source, work, _UNICODE, undo, "unicode-escapes")


def _undone(
    source: ViewSource, work: Work, pattern: re.Pattern[str], undo: Callable[[str], str], how: str
) -> Iterator[Found]:
    text = source.text
    first = pattern.search(text)
    if first is None or not work.take(len(text)):
        return
    count, end = 0, first.end()
    for match in pattern.finditer(text):
        soft = match[0].endswith("\n")  # a soft line end is rare enough to count for several
        count, end = count + (_MIN_ESCAPES if soft else 1), match.end()
    start = text.rfind(" ", 0, first.start()) + 1
    stop = text.find(" ", end)
    end = len(text) if stop < 0 else stop
    plain = undo(text[start:end])
    hidden = count > 1 and _hides_letters(first, undo)
    if plain != text[start:end] and (count >= _MIN_ESCAPES or hidden):
        yield Found(start, end, plain, how)


def _hides_letters(escape: re.Match[str], undo: Callable[[str], str]) -> bool:
    plain = undo(escape[0])
    return plain.isascii() and plain.isalnum()  # nobody needs to escape these


def _unquoted(text: str) -> str:
    return unquote(text if " " in text else text.replace("+", " "), errors="replace")


def _bytes(match: re.Match[str]) -> str:
    digits = match[0].replace("=", "").strip()
    return bytes.fromhex(digits).decode("utf-8", "replace")


def _utf8(match: re.Match[str]) -> str:
    raw = bytes(int(h, 16) if h else int(o, 8) for h, o in _BYTE.findall(match[0]))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _character(match: re.Match[str]) -> str:
    code = int(match[7], 8) if match[7] else int(next(g for g in match.groups() if g), 16)
    return chr(code) if code <= _MAX_CODE else match[0]
