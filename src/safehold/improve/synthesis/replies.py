"""Rewritings of replies: the same content in other clothes, whole or in part."""

import random
import re

from safehold.improve.synthesis import rewrite
from safehold.improve.synthesis.encodings import encoded_reply

_SENTENCE = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|\n+")
_MARKS = re.compile(r"\*\*|__|`|^#+\s*|^\s*[-*•]\s+|^\s*\d+[.)]\s+|^>\s?", re.MULTILINE)
_BULLETS = ("- ", "* ", "• ", "+ ")
_UNITS: tuple[tuple[re.Pattern[str], float, float, str], ...] = (
    (re.compile(r"(\d+(?:\.\d+)?) ?°?C\b"), 1.8, 32.0, "°F"),
    (re.compile(r"(\d+(?:\.\d+)?) ?°?F\b"), 1 / 1.8, -32 / 1.8, "°C"),
    (re.compile(r"(\d+(?:\.\d+)?) ?(?:litres?|liters?|L)\b"), 0.2642, 0.0, "gal"),
    (re.compile(r"(\d+(?:\.\d+)?) ?(?:gallons?|gal)\b"), 3.785, 0.0, "L"),
    (re.compile(r"(\d+(?:\.\d+)?) ?kg\b"), 2.2046, 0.0, "lb"),
    (re.compile(r"(\d+(?:\.\d+)?) ?(?:lbs?|pounds?)\b"), 0.4536, 0.0, "kg"),
    (re.compile(r"(\d+(?:\.\d+)?) ?g\b"), 0.0353, 0.0, "oz"),
    (re.compile(r"(\d+(?:\.\d+)?) ?(?:oz|ounces?)\b"), 28.35, 0.0, "g"),
)
_FEWEST = 3
"""Sentences that a reply needs before some may be left out."""


def sentences(text: str) -> list[str]:
    """Cut a text into sentences or lines, without losing any."""
    return [piece.strip() for piece in _SENTENCE.split(text) if piece.strip()]


def plain(text: str, rng: random.Random) -> tuple[str, str]:
    """Take the markdown off and run lines together."""
    del rng
    return " ".join(_MARKS.sub("", text).split()), "plain"


def bulleted(text: str, rng: random.Random) -> tuple[str, str]:
    """Put each sentence behind a bullet."""
    mark = rng.choice(_BULLETS)
    return "\n".join(mark + line for line in sentences(_MARKS.sub("", text))), "bulleted"


def numbered(text: str, rng: random.Random) -> tuple[str, str]:
    """Number the sentences as steps."""
    style = rng.choice(("{}. ", "{}) ", "Step {}: ", "**{}.** "))
    lines = sentences(_MARKS.sub("", text))
    return "\n".join(style.format(n) + line for n, line in enumerate(lines, 1)), "numbered"


def emphasised(text: str, rng: random.Random) -> tuple[str, str]:
    """Set some words in bold and put a heading over the text."""
    words = text.split(" ")
    for index in rng.sample(range(len(words)), k=max(1, len(words) // 18)):
        if words[index].isalpha():
            words[index] = f"**{words[index]}**"
    heading = rng.choice(("## Answer", "### Overview", "# Notes", "**In short**", "---"))
    return f"{heading}\n\n{' '.join(words)}", "emphasised"


def converted(text: str, rng: random.Random) -> tuple[str, str]:
    """Convert every quantity of one or more kinds to the other system of units."""
    patterns = [unit for unit in _UNITS if rng.random() < 0.6] or list(_UNITS)
    combined = re.compile("|".join(f"(?:{unit[0].pattern})" for unit in patterns))

    def swap(match: re.Match[str]) -> str:
        for pattern, factor, offset, unit in patterns:
            found = pattern.fullmatch(match[0])
            if found:
                return f"{float(found[1]) * factor + offset:.3g} {unit}"
        return match[0]

    return combined.sub(swap, text), "units"


def dropped(text: str, rng: random.Random) -> tuple[str, str]:
    """Leave out about a quarter of the sentences."""
    lines = sentences(text)
    if len(lines) < _FEWEST:
        return text, "dropout"
    kept = [line for line in lines if rng.random() > 0.25]
    return " ".join(kept or lines[:1]), "dropout"


def from_middle(text: str, rng: random.Random) -> tuple[str, str]:
    """Begin in the middle, as a resumed stream does."""
    lines = sentences(text)
    if len(lines) < _FEWEST:
        return text, "middle"
    return " ".join(lines[rng.randrange(1, len(lines) - 1) :]), "middle"


def half(text: str, rng: random.Random) -> tuple[str, str]:
    """Keep the first half only, as a stream that is cut."""
    del rng
    words = text.split(" ")
    return " ".join(words[: max(1, len(words) // 2)]), "half"


RESTYLES: tuple[rewrite.Step, ...] = (
    plain,
    bulleted,
    numbered,
    emphasised,
    rewrite.lower,
    rewrite.upper,
    rewrite.unpunctuated,
)
PARTS: tuple[rewrite.Step, ...] = (dropped, from_middle)
NOISE: tuple[rewrite.Step, ...] = (rewrite.typos, rewrite.texting, rewrite.telegram)
ENCODE: tuple[rewrite.Step, ...] = (encoded_reply,)
