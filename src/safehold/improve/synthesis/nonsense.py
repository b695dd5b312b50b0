"""Fluent nonsense, noticed: an answer that loops, is in another language, or answers no message.

A weak model writes whole sentences about nothing, and a guard that is trained from them flags
ordinary text. Three things are looked at, none of which needs a model:

1. Loops and junk, by the rules of Rae et al., "Scaling Language Models: Methods, Analysis and
   Insights from Training Gopher" (2021), table A1.
2. The script, and for English the share of function words.
3. Whether the answer tells its own message from messages of other cells: answers that were dealt at
   random tell it from half of them.
"""

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import resources

_WORD = re.compile(r"[^\W\d_]+")
_TOKEN = re.compile(r"\w+")
_STEM = 5
_SHORTEST = 3
_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""Most of a text's letters that its commonest run of so many words may hold."""
_TWICE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Most of a text's letters that runs of so many words said before may hold."""
_RULED_WORDS = 30
"""Words from which those shares mean something; a short text says its subject often."""
_LETTERED = 0.3
"""Least share of a text's signs, blanks apart, that are letters: tables of amounts have few."""
_ENGLISH_LEAST = 0.08
"""Share of function words below which a text is no English prose; notes and tables have fewer."""
_ENGLISH_MOST = 0.25
"""Share from which a text is English, whatever it should be."""
_ENGLISH_WORDS = 25
_SCRIPTS = {
    "ar": "ARABIC", "fa": "ARABIC", "ur": "ARABIC", "bg": "CYRILLIC", "ru": "CYRILLIC",
    "uk": "CYRILLIC", "el": "GREEK", "he": "HEBREW", "hi": "DEVANAGARI", "th": "THAI",
    "ko": "HANGUL", "zh": "CJK", "ja": "CJK", "ka": "GEORGIAN", "hy": "ARMENIAN", "ta": "TAMIL",
    "bn": "BENGALI",
}  # fmt: skip
"""The script of each language that is not written in Latin letters; Serbian has two."""
_KANA = ("HIRAGANA", "KATAKANA")
_OF_SCRIPT = 0.3
_BESIDE = 48
"""Messages of other cells that an answer is held against."""
_CHANCE = 0.5
_SPREAD = 0.204
"""Standard deviation of the mean of two shares that are drawn at random: the root of 1/24."""
_Z95 = 1.645
_LOST = 0.35
"""Mark below which one answer is left out: few that keep to their message have it."""
_FEWEST = 4
"""Answers from which something is said of them together."""

Cells = Mapping[str, tuple[str, Sequence[tuple[str, str]]]]
"""By a cell's name: its group, and its messages with their answers."""


def loops(text: str) -> bool:
    """Say whether a text repeats itself or is mostly no words."""
    letters = sum(map(len, _WORD.findall(text)))
    if letters < _LETTERED * len("".join(text.split())):
        return True
    words = _TOKEN.findall(text.casefold())
    if len(words) < _RULED_WORDS:
        return False
    size = sum(map(len, words))
    for width, most in _TOP.items():
        runs = Counter(zip(*(words[at:] for at in range(width)), strict=False))
        run, count = max(runs.items(), key=lambda item: item[1] * sum(map(len, item[0])))
        if count > 1 and count * sum(map(len, run)) > most * size:
            return True
    return any(_said_twice(words, width) > most * size for width, most in _TWICE.items())


def _said_twice(words: Sequence[str], width: int) -> int:
    """Return the letters of the words in runs that were said before."""
    seen: set[tuple[str, ...]] = set()
    again = [False] * len(words)
    for at in range(len(words) - width + 1):
        run = tuple(words[at : at + width])
        if run in seen:
            again[at : at + width] = [True] * width
        seen.add(run)
    return sum(len(word) for word, said in zip(words, again, strict=True) if said)


def other_language(text: str, language: str) -> bool:
    """Say whether a text is surely not in a language; false where too little is known of it."""
    letters = [sign for sign in text if sign.isalpha()]
    if not letters:
        return False
    words = _WORD.findall(text.casefold())
    english = sum(word in _english() for word in words) / max(1, len(words))
    counted = len(words) >= _ENGLISH_WORDS
    if language == "en":
        return counted and english < _ENGLISH_LEAST
    script = _SCRIPTS.get(language)
    if script is None:
        return counted and english >= _ENGLISH_MOST
    own = sum(_of(sign, script) for sign in letters)
    return own < _OF_SCRIPT * len(letters)


@cache
def _english() -> frozenset[str]:
    """Return the words that hold an English sentence together, whatever it is about."""
    file = resources.files("safehold.improve.synthesis") / "phrases" / "function-words.txt"
    return frozenset(file.read_text(encoding="utf-8").split())


def _of(sign: str, script: str) -> bool:
    name = unicodedata.name(sign, "")
    return name.startswith((script, *(_KANA if script == "CJK" else ())))


def unrelated(marks: Mapping[str, Sequence[float]]) -> dict[str, list[bool]]:
    """Say which answers of each cell are left out, by their marks of `told_apart`.

    All of a cell are, where together they can't be told from answers that were dealt at random (one
    side, 95 %); elsewhere those that lie far below chance. A run in which all is well loses about
    one answer in a hundred, and of cells whose answers are somebody else's nineteen in twenty go.
    """
    found: dict[str, list[bool]] = {}
    for name, own in marks.items():
        least = _CHANCE + _Z95 * _SPREAD / math.sqrt(len(own)) if own else 0.0
        all_lost = len(own) >= _FEWEST and sum(own) / len(own) < least
        found[name] = [all_lost or mark < _LOST for mark in own]
    return found


def told_apart(
    cells: Cells,
    *,
    seed: int,
    anything: frozenset[str] = frozenset(),
    only: Collection[str] | None = None,
) -> dict[str, list[float]]:
    """Return, of each cell, how well each answer tells where it belongs: 0.5 is chance, 1 always.

    A mark is the mean of two shares: of the messages of other groups that the answer resembles
    less than its own, and of the other groups whose texts it resembles less than those of its own.
    Ties count half, so answers that were dealt at random have 0.5 on average. The texts of a group
    in `anything` are about no one subject, so there it is the first share alone. With `only`, the
    cells of these names are marked, against all. Sums are rounded once (`fsum`): words come out of
    sets in an order that each process has for itself, and a mark must not depend on it.
    """
    asks = [(group, ask) for group, pairs in cells.values() for ask, _ in pairs]
    pools = _pools(cells)
    known: Counter[str] = Counter()
    for _, pairs in cells.values():
        for ask, reply in pairs:
            known.update(features(ask))
            known.update(features(reply))
    weight = {word: math.log(2 * len(asks) / count) for word, count in known.items()}
    norms = {group: _norm(pool, weight) for group, pool in pools.items()}
    found: dict[str, list[float]] = {}
    for name, (group, pairs) in cells.items():
        if only is not None and name not in only:
            continue
        others = [ask for other, ask in asks if other != group]
        random.Random(f"{seed}/{name}").shuffle(others)
        beside = [features(ask) for ask in others[:_BESIDE]]
        found[name] = []
        for ask, reply in pairs:
            said, told = features(ask), features(reply)
            of_asks = _share(
                _alike(said, told, weight), [_alike(other, told, weight) for other in beside]
            )
            if group in anything:
                found[name].append(of_asks)
                continue
            own, norm = _without(pools[group], norms[group], said, told, weight)
            of_groups = _share(
                _near(told, own, norm, weight),
                [
                    _near(told, pool, norms[other], weight)
                    for other, pool in pools.items()
                    if other != group
                ],
            )
            found[name].append((of_asks + of_groups) / 2)
    return found


def _pools(cells: Cells) -> dict[str, Counter[str]]:
    pools: dict[str, Counter[str]] = {}
    for group, pairs in cells.values():
        pool = pools.setdefault(group, Counter())
        for ask, reply in pairs:
            pool.update(features(ask))
            pool.update(features(reply))
    return pools


def _norm(pool: Mapping[str, int], weight: Mapping[str, float]) -> float:
    return math.sqrt(math.fsum((count * weight[word]) ** 2 for word, count in pool.items()))


def _without(
    pool: Mapping[str, int],
    norm: float,
    said: frozenset[str],
    told: frozenset[str],
    weight: Mapping[str, float],
) -> tuple[dict[str, int], float]:
    """Return a pool without one message and its answer: the words of these, and its norm."""
    left = {word: pool[word] - (word in said) - (word in told) for word in said | told}
    less = math.fsum(
        (pool[word] ** 2 - count**2) * weight[word] ** 2 for word, count in left.items()
    )
    return left, math.sqrt(max(0.0, norm**2 - less))


def _near(
    told: frozenset[str], pool: Mapping[str, int], norm: float, weight: Mapping[str, float]
) -> float:
    return math.fsum(pool.get(word, 0) * weight[word] ** 2 for word in told) / norm if norm else 0.0


def _share(own: float, others: Sequence[float]) -> float:
    if not others:
        return 1.0
    return sum((mark < own) + 0.5 * (mark == own) for mark in others) / len(others)


def _alike(ask: frozenset[str], reply: frozenset[str], weight: Mapping[str, float]) -> float:
    """Return how alike two sets of words are, by how rare each is, for the message's length."""
    size = math.fsum(weight[word] ** 2 for word in ask)
    return math.fsum(weight[word] ** 2 for word in ask & reply) / math.sqrt(size) if size else 0.0


@cache
def features(text: str) -> frozenset[str]:
    """Return the beginnings of a text's words, and pairs of signs where no blanks stand between."""
    found: set[str] = set()
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if ord(word[0]) >= 0x2E80 or 0x0E00 <= ord(word[0]) < 0x0F00:
            found.update(word[at : at + 2] for at in range(len(word) - 1))
        elif len(word) >= _SHORTEST and word not in _english():
            found.add(word[:_STEM])
    return frozenset(found)
