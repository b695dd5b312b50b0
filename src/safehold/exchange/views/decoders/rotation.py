"""Letters moved along the alphabet (ROT-n, Caesar), the alphabet reversed (atbash), and ROT47."""

import re
from collections.abc import Iterator
from string import ascii_lowercase, ascii_uppercase

from safehold.exchange.views.decoders._ciphered import MIN_LETTERS, blobs, stretches
from safehold.exchange.views.interface import Found, Source, Work
from safehold.exchange.views.likeness import Letters, likeness, mirrored, rotations
from safehold.exchange.views.plausible import armoured

_GOOD = 0.6
_GAIN = 0.8
_SAMPLE = 600
_SLOW = 30
_BLOB_SAMPLE = 48


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
_NOISY = re.compile(r"[!-~]{2,}+(?: [!-~]++)*")


def find(source: Source, work: Work) -> Iterator[Found]:
    """Yield stretches of un-English words that one rotation or the mirror makes English."""
    for start, end in stretches(source):
        part = source.text[start:end]
        letters = Letters(part[:_SAMPLE])
        if letters.count < MIN_LETTERS:
            continue
        if not work.take(_SLOW * min(len(part), _SAMPLE)):
            return
        means = rotations(letters.codes)
        places, mirror = int(means.argmax()), mirrored(letters.codes)
        table, best, how = _ROTATE[places], float(means[places]), f"rot{-places % 26}"
        if mirror > best:
            table, best, how = _MIRROR, mirror, "atbash"
        if best >= _GOOD and best - float(means[0]) >= _GAIN:
            yield Found(start, end, part.translate(table), how)
    yield from _find_blobs(source, work)


def _find_blobs(source: Source, work: Work) -> Iterator[Found]:
    for start, end in blobs(source):
        token = source.text[start:end]
        sample = token[:_BLOB_SAMPLE]
        if not work.take(_SLOW * len(sample)):
            return
        if armoured(sample):
            continue
        readings = [(_ROTATE[n], f"rot{-n % 26}") for n in range(1, 26)] + [(_MIRROR, "atbash")]
        for table, how in readings:
            if armoured(sample.translate(table)):
                yield Found(start, end, token.translate(table), how)
                break


def find_rot47(source: Source, work: Work) -> Iterator[Found]:
    """Yield stretches of printable characters that ROT47 makes English."""
    letters = source.letters
    if letters.count and letters.mean() > _GOOD:
        return  # ROT47 leaves few letters standing
    for match in _NOISY.finditer(source.text):
        part = match[0]
        if not work.take(2 * len(part)):
            return
        plain = part.translate(_ROT47)
        sample = Letters(plain[:_SAMPLE])
        if (
            sample.count >= max(MIN_LETTERS, len(part[:_SAMPLE]) * 2 // 3)
            and sample.mean() >= _GOOD
            and likeness(part[:_SAMPLE]) <= sample.mean() - _GAIN
        ) or (armoured(plain[:_BLOB_SAMPLE]) and not armoured(part[:_BLOB_SAMPLE])):
            yield Found(match.start(), match.end(), plain, "rot47")
