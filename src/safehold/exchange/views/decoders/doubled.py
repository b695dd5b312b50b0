"""Letters said twice around a filler that never changes: robber language and its kin.

`bob` for each b (Rövarspråket), `hopolapa` for hola (jeringonza), `habalobo` for halo: each
consonant, or each vowel, comes back behind the same filler. In language such echoes are a few of a
hundred letters; here they are most of the text.
"""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from safehold.exchange.views.english_likeness import GAP, Letters, likeness
from safehold.exchange.views.interface import Found, ViewSource, Work

_CONSONANTS = "b-df-hj-np-tv-xz"
_GAMES = (
    (rf"[{_CONSONANTS}]", "[aeiou]"),
    ("[aeiouy]{1,3}", f"[{_CONSONANTS}]{{1,2}}|[{_CONSONANTS}]e[{_CONSONANTS}]"),
)
"""What is said twice, and what may stand between."""
_DISTANCES = (2, 4)
_LEAST = 40
_ECHOES = 0.12
"""The least share of letters that come back at one distance; in language it is below 0.1."""
_COVERED = 0.45
_SAMPLE = 600
_READS = 0.3
_ENGLISH = 1.25


def find(source: ViewSource, work: Work) -> Iterator[Found]:
    """Yield the text with each letter that is said twice said once."""
    letters = source.letters
    if letters.count < _LEAST or letters.mean() >= _ENGLISH or not _echoes(letters):
        return
    if not work.take(2 * len(source.text) + 6000):
        return
    sample = source.text[:_SAMPLE]
    for twice, between in _GAMES:
        heard = Counter[str]()
        for match in re.finditer(rf"({twice})({between})\1", sample, re.IGNORECASE):
            heard[match[2].lower()] += len(match[0])
        if not heard:
            continue
        filler, covered = heard.most_common(1)[0]
        if covered < _COVERED * sum(map(str.isalpha, sample)):
            continue
        plain = re.sub(rf"({twice}){filler}\1", r"\1", source.text, flags=re.IGNORECASE)
        if likeness(plain[:_SAMPLE]) >= _READS:
            yield Found(0, len(source.text), plain, "doubled-letters")
            return


def _echoes(letters: Letters) -> bool:
    """Tell cheaply whether far more letters come back after one or three others than usually."""
    codes = letters.codes
    return any(
        np.count_nonzero((codes[apart:] == codes[:-apart]) & (codes[apart:] != GAP))
        >= _ECHOES * letters.count
        for apart in _DISTANCES
    )
