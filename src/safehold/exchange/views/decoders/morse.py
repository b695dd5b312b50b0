"""Morse code (ITU-R M.1677-1), with dots and dashes of many kinds."""

import re
from collections.abc import Iterator

from safehold.exchange.views.interface import Found, ViewSource, Work

_CODES = (
    "a.- b-... c-.-. d-.. e. f..-. g--. h.... i.. j.--- k-.- l.-.. m-- n-. o--- p.--. q--.- r.-. "
    "s... t- u..- v...- w.-- x-..- y-.-- z--.. 0----- 1.---- 2..--- 3...-- 4....- 5..... 6-.... "
    "7--... 8---.. 9----. ..-.-.- ,--..-- ?..--.. /-..-. --....- =-...- :---... '.----. "
    '+.-.-. @.--.-. !-.-.-- ".-..-. (-.--. )-.--.- ;-.-.-. &.-... _..--.- $...-..-'
)
_LETTERS = {code[1:]: code[0] for code in _CODES.split()}
_PLAIN = str.maketrans("·•∙⋅–—−‐‑_ˉ", "....-------"[: len("·•∙⋅–—−‐‑_ˉ")])
_RUN = re.compile(r"(?<!\S)[.\-·•∙⋅–—−‐‑_]{1,7}(?:[ \t\n/|]{1,7}+[.\-·•∙⋅–—−‐‑_]{1,7}(?!\S)){3,}+")
_HINT = re.compile(r"[.\-·•∙⋅–—−‐‑_][ /|]+[.\-·•∙⋅–—−‐‑_]")
_WORD_GAP = re.compile(r"\s*[/|]\s*|\s{2,}|\n")
_KNOWN = 0.9
_MIN_KINDS = 3
_MANY = 24


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of code as text; a slash, bar or wide gap ends a word."""
    if source.letters.count * 2 > len(source.text) and not _HINT.search(source.text):
        return
    for match in _RUN.finditer(source.text):
        part = match[0].translate(_PLAIN)
        if not work.take(4 * len(part)):
            return
        words = [_WORD_GAP.split(part), part.split("   ")][0]
        letters = [[_LETTERS.get(code, "") for code in word.split()] for word in words]
        flat = [letter for word in letters for letter in word]
        known = [letter for letter in flat if letter]
        kinds = {letter for letter in known if letter.isalnum()}
        if (
            known
            and len(known) >= _KNOWN * len(flat)
            and (len(kinds) >= _MIN_KINDS or (len(kinds) > 1 and len(known) >= _MANY))
        ):
            plain = " ".join("".join(word) for word in letters)
            yield Found(match.start(), match.end(), plain, "morse")
