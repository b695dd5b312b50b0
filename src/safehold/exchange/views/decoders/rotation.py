"""Letters moved along the alphabet (ROT-n, Caesar), the alphabet reversed (atbash), and ROT47."""

import re
from collections.abc import Iterator
from itertools import islice
from string import ascii_lowercase, ascii_uppercase

from safehold.exchange.views.decoders._ciphered import (
    MIN_LETTERS,
    running,
    runs,
    stretches,
    widened,
)
from safehold.exchange.views.decoders._envelopes import SAMPLE, ciphered, opened
from safehold.exchange.views.english_likeness import (
    Letters,
    flipped,
    likeness,
    likeness_backwards,
    rotations,
)
from safehold.exchange.views.interface import Found, ViewSource, Work

_GOOD = 0.6
_GAIN = 0.8
_SHORT = 24
_SHORT_TARE = 0.3
_SAMPLE = 600
_COST = 6000
_ODD = 0.25
# base64 and the like, escapes and codes that have letters in them, whatever letters they are.
_CIPHERABLE = re.compile(
    r"[A-Za-z0-9+/_-]{24}|(?:[%=][0-9A-Za-z]{2}){4}|(?:&#[A-Za-z]?[0-9A-Za-z]{2,6};){4}"
    r"|(?:\\[A-Za-z][0-9A-Za-z]{2,8}){4}|(?:[A-Za-z]\+[0-9A-Za-z]{4,6}\s?){4}"
    r"|(?:[0-9A-Za-z]{2}[\s:]){8}|[!-~]{40}"
)
_OPENS = 0.3
_TURNED_I_TO_O = re.compile(r"[:-@]")
_MIN_KINDS = 7  # letters, the gap among them
_MANY = 40
_MAX_TRIES = 12
_FOREIGN = 0.3
_SURE = 1.0
_FOREIGN_SIGNS = 0.1


def _moved(alphabet: str, places: int) -> str:
    return alphabet[places:] + alphabet[:places]


_ROTATE = [
    str.maketrans(
        ascii_lowercase + ascii_uppercase,
        _moved(ascii_lowercase, places) + _moved(ascii_uppercase, places),
    )
    for places in range(26)
]
_MIRROR = str.maketrans(
    ascii_lowercase + ascii_uppercase, ascii_lowercase[::-1] + ascii_uppercase[::-1]
)
_ROT47 = str.maketrans({chr(33 + n): chr(33 + (n + 47) % 94) for n in range(94)})


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield stretches of un-English words that one rotation or the mirror makes English."""
    found: dict[tuple[int, int], Found] = {}
    for start, end in islice(stretches(source), _MAX_TRIES):
        letters = Letters(source.text[start:end][:_SAMPLE])
        if letters.count < MIN_LETTERS:
            continue
        if not work.take(_COST + 2 * len(source.text)):
            break
        key = _best_key(letters)
        if key is None:
            continue
        table, how = key
        # With the key known, the whole text tells where its use begins and ends.
        turned = source.text.translate(table)
        gain = Letters(turned).bits - source.letters.bits
        sums = running(gain)
        for begin, stop in runs(source.letters, gain):
            if begin < end and start < stop:
                wide = slice(*widened(source, sums, begin, stop))
                found[wide.start, wide.stop] = Found(wide.start, wide.stop, turned[wide], how)
    yield from _find_blobs(source, work)
    yield from (found[span] for span in sorted(found))


def _best_key(letters: Letters) -> tuple[dict[int, int], str] | None:
    """Return the alphabet, and its name, under which the letters are English, read either way."""
    if len(set(letters.codes.tolist())) < _MIN_KINDS:
        return None
    plain = max(letters.mean(), likeness_backwards(letters))
    tare = _SHORT_TARE if letters.count < _SHORT else 0.0
    best, key = _GOOD + tare, None
    directions = ((letters.codes, 0.0), (letters.codes[::-1], _ODD))
    for codes, handicap in directions[: 2 if letters.count >= _MANY else 1]:
        for name, mirror in (("rot", False), ("atbash", True)):
            means = rotations(flipped(codes) if mirror else codes) - handicap
            if mirror:
                means[1:] -= _ODD  # two ciphers on top of each other are rarer than one
            places = int(means.argmax())
            score = float(means[places])
            if score >= best and score - plain >= _GAIN + tare:
                best, key = score, _named(name, places)
    return key


def _named(name: str, places: int) -> tuple[dict[int, int], str]:
    if name == "rot":
        return _ROTATE[places], f"rot{-places % 26}"
    # Mirrored first, then moved; without a move it is plain atbash.
    table = {code: _ROTATE[places].get(to, to) for code, to in _MIRROR.items()}
    return table, f"atbash-rot{places}" if places else "atbash"


def _find_blobs(source: ViewSource, work: Work) -> Iterator[Found]:
    for start, end in source.dense:
        part = source.text[start:end]
        sample = part[:SAMPLE]
        if not _CIPHERABLE.search(sample):
            continue
        if not work.take(_COST):
            return
        opens = opened(sample, work) or _OPENS
        if opens >= _SURE:
            continue
        best, key = opens, None
        readings = [_named("rot", n) for n in range(1, 26)] + [_named("atbash", 0)]
        for table, how in readings:
            score = opened(sample.translate(table), work)
            if score is not None and score > best:
                best, key = score, (table, how)
        if key is not None:
            yield Found(start, end, part.translate(key[0]), key[1])


def find_rot47(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield runs of tokens of signs and digits that ROT47 makes English, or an encoding."""
    for start, end in source.dense:
        part = source.text[start:end]
        sample = part[:SAMPLE]
        if sum(map("\x7f".__lt__, sample)) > _FOREIGN_SIGNS * len(sample):
            continue  # ROT47 leaves signs such as ° and — as they are
        if not work.take(_COST // 4):
            return
        turned = sample.translate(_ROT47)
        if _reads_turned(sample, turned) or _opens_turned(sample, turned, work):
            yield Found(start, end, part.translate(_ROT47), "rot47")


def _reads_turned(sample: str, turned: str) -> bool:
    if sum(map(str.isalpha, turned)) * 3 < len("".join(turned.split())) * 2:
        return False  # ordinary code: its letters became signs and digits
    letters = Letters(turned)
    if (
        not _TURNED_I_TO_O.search(sample)
        or letters.count < MIN_LETTERS
        or len(set(letters.codes.tolist())) < _MIN_KINDS
    ):
        return False
    reading = letters.mean()
    if letters.count >= _SHORT:
        reading = max(reading, ciphered(turned))
    return reading >= max(_GOOD, likeness(sample) + _GAIN / 2)


def _opens_turned(sample: str, turned: str, work: Work) -> bool:
    return (
        likeness(sample) < _FOREIGN
        and opened(turned, work) is not None
        and opened(sample, work) is None
    )
