"""Letters turned upside down, in reversed order."""

import re
from collections.abc import Iterator

from safehold.exchange.views.english_likeness import likeness
from safehold.exchange.views.interface import Found, ViewSource, Work

_TURNED = "ɐqɔpǝɟƃɥᴉɾʞןɯuodbɹsʇnʌʍxʎz" + "∀ꓭƆᗡƎℲפHIſꓘ⅂WNOԀΌᴚS┴∩ΛMX⅄Z" + "⇂ᄅƐㄣϛ9ㄥ860" + "˙‘¡¿,"
_PLAIN = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + "1234567890"[:6] + "7890" + ".,!?'"
)
_TABLE = str.maketrans(dict(zip(_TURNED, _PLAIN, strict=True)) | {"ı": "i", "ƒ": "f", "ʃ": "l"})
_SURE = "ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ"
_LINE = re.compile(r"[^\n]+")
_SURE_LETTER = re.compile(f"[{_SURE}]")
_MIN_SURE = 3


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield lines, or the part of a line, whose letters stand on their heads."""
    if source.ascii:
        return
    for match in _LINE.finditer(source.text):
        if not work.take(4 * len(match[0])):
            return
        marks = [mark.start() for mark in _SURE_LETTER.finditer(match[0])]
        if len(marks) < _MIN_SURE:
            continue
        # Words that hold a turned letter, and the words between them.
        start = match[0].rfind(" ", 0, marks[0]) + 1
        stop = match[0].find(" ", marks[-1])
        part = match[0][start : stop if stop >= 0 else len(match[0])]
        plain = part.translate(_TABLE)
        plain = max((plain[::-1], plain), key=likeness)
        yield Found(match.start() + start, match.start() + start + len(part), plain, "upside-down")
