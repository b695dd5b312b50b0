"""English words and how common they are, and how many of a text's words are among them.

The words are the 40,000 most frequent of the list in wordninja 2.0.0 (Derek Anderson, MIT), in
order of frequency; a word costs the logarithm of its rank.
"""

import functools
import gzip
import math
import re
from collections.abc import Sequence
from importlib import resources
from typing import Final

SHORTEST: Final = 3
"""Letters from which a word tells anything: nearly all shorter strings are in the list."""
_SAMPLE: Final = 60
_FUNCTION: Final = (" the ", " and ", " of ", " to ", " is ", " it ", " with ", " for ")
_TRIGRAMS: Final = tuple(
    "the ing ith ght oul wit hat ich thi you nth oft eth tha ead ake out hen her and".split()
)
"""What English, written without spaces, has 6 of in a hundred letters, other languages one."""
_WORD: Final = re.compile(rf"[A-Za-z]{{{SHORTEST},}}")


@functools.cache
def costs() -> dict[str, float]:
    """Return every word's cost, 2.4 to 13; the commonest cost least."""
    file = resources.files("safehold.exchange.views") / "words.txt.gz"
    words = gzip.decompress(file.read_bytes()).decode("ascii").split()
    scale = math.log(len(words))
    return {word: math.log((rank + 1) * scale) for rank, word in enumerate(words)}


def known(text: str) -> float:
    """Return the share of a text's longer words that are English words; of no words 0."""
    words = _WORD.findall(text.lower())
    return sum(map(costs().__contains__, words)) / max(1, len(words))


def function_words(text: str) -> int:
    """Return how often the commonest small words stand in a text, told by their spaces."""
    return sum(map(text.count, _FUNCTION))


def trigrams(text: str) -> int:
    """Return how often the trigrams of English come, whatever spaces stand between."""
    return sum(map("".join(text.split()).lower().count, _TRIGRAMS))


def various(words: Sequence[str]) -> bool:
    """Tell a text from a few words said over and over, as a code that has a word a letter says."""
    sample = words[:_SAMPLE]
    return len(set(sample)) * 2 >= len(sample)
