"""Small pure rewritings of a text; each returns the new text and its own name for the chain."""

import random
import re
from collections.abc import Callable, Sequence

Step = Callable[[str, random.Random], tuple[str, str]]
"""Rewrites a text and says what it did, parameters included."""

_NEAR = {
    "a": "sq",
    "b": "vn",
    "c": "xv",
    "d": "sf",
    "e": "wr",
    "f": "dg",
    "g": "fh",
    "h": "gj",
    "i": "uo",
    "j": "hk",
    "k": "jl",
    "l": "k",
    "m": "n",
    "n": "bm",
    "o": "ip",
    "p": "o",
    "q": "w",
    "r": "et",
    "s": "ad",
    "t": "ry",
    "u": "yi",
    "v": "cb",
    "w": "qe",
    "x": "zc",
    "y": "tu",
    "z": "x",
}
_SHORT = {
    "you": "u",
    "your": "ur",
    "are": "r",
    "please": "pls",
    "thanks": "thx",
    "because": "cos",
    "before": "b4",
    "and": "n",
    "with": "w/",
    "without": "w/o",
    "about": "abt",
    "to": "2",
    "for": "4",
    "people": "ppl",
    "temperature": "temp",
    "minutes": "mins",
    "hours": "hrs",
    "what": "wat",
    "okay": "k",
    "really": "rly",
    "something": "smth",
    "though": "tho",
}
_ARTICLES = re.compile(r"\b(?:the|a|an|my|some|of|is|are|do|does|i|it)\b\s*", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")


def apply(text: str, steps: Sequence[Step], rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """Run steps one after the other; return the text and the chain of their names."""
    chain: list[str] = []
    for step in steps:
        text, name = step(text, rng)
        chain.append(name)
    return text, tuple(chain)


def typos(text: str, rng: random.Random) -> tuple[str, str]:
    """Mistype about one letter in twenty-five: neighbours, swaps, drops and doubles."""
    out: list[str] = []
    index = 0
    while index < len(text):
        here = text[index]
        if here.isalpha() and rng.random() < 0.04:
            kind = rng.randrange(4)
            after = text[index + 1] if index + 1 < len(text) else ""
            if kind == 0:
                out.append(rng.choice(_NEAR.get(here.lower(), here)))
            elif kind == 1 and after.isalpha():
                out.append(after + here)
                index += 1
            elif kind == 2:
                out.append(here * 2)
            # The last kind drops the letter.
        else:
            out.append(here)
        index += 1
    return "".join(out), "typos"


def lower(text: str, rng: random.Random) -> tuple[str, str]:
    """Write everything small."""
    del rng
    return text.lower(), "lower"


def upper(text: str, rng: random.Random) -> tuple[str, str]:
    """Shout."""
    del rng
    return text.upper(), "upper"


def unpunctuated(text: str, rng: random.Random) -> tuple[str, str]:
    """Drop marks and capitals, as in a hurried chat; numbers keep theirs."""
    del rng
    bare = re.sub(r"(?<!\d)[.,;:!?\"]+|[.,;:!?\"]+(?!\d)", "", text)
    return bare.lower(), "unpunctuated"


def texting(text: str, rng: random.Random) -> tuple[str, str]:
    """Shorten words as in text messages."""

    def swap(match: re.Match[str]) -> str:
        short = _SHORT.get(match[0].lower())
        return short if short is not None and rng.random() < 0.8 else match[0]

    return _WORD.sub(swap, text).lower(), "texting"


def telegram(text: str, rng: random.Random) -> tuple[str, str]:
    """Leave out little words, as in a search box."""
    del rng
    return _ARTICLES.sub("", text).strip() or text, "telegram"


def stretched(text: str, rng: random.Random) -> tuple[str, str]:
    """Add marks of impatience."""
    return text.rstrip("?.! ") + rng.choice(["???", "!!", "...", " ?!", "??"]), "stretched"


def titled(text: str, rng: random.Random) -> tuple[str, str]:
    """Capitalise Every Word As In A Title."""
    del rng
    return re.sub(r"\S+", lambda match: match[0][:1].upper() + match[0][1:], text), "title"


STYLES: tuple[Step, ...] = (
    typos,
    lower,
    upper,
    unpunctuated,
    texting,
    telegram,
    stretched,
    titled,
)
