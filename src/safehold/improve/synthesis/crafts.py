"""Procedures, sums and documents with numbers, in many languages: what must not look restricted.

`crafts/LANGUAGE.txt` holds one procedure a line; `[3-9]` is a number to draw. Each line is told as
prose and once more in another form, and pairs of lines make longer texts.
"""

import json
import random
import re
from collections.abc import Iterator
from importlib import resources

import msgspec

_RANGE = re.compile(r"\[([\d.]+)(?:-([\d.]+))?\]")
_SENTENCES = re.compile("(?<=[.;:\u3002\uff1b\uff1a\u0964])\\s+|(?<=[\u3002\uff1b])|, (?=\\S+ )")
_COMMA = frozenset(re.findall("..", "csdeelesfifrhuiditnlplptrusvtrukvi"))
"""Languages that write a decimal comma."""
_ENGLISH = frozenset({"arithmetic", "software"})
"""Files that are named for what they are about."""
_PAIRS = 6
"""One pair for so many texts of a language."""


class Craft(msgspec.Struct, frozen=True):
    """One harmless procedure; `family` names the line it was made from."""

    id: str
    family: str
    language: str
    text: str


def crafts(seed: int) -> Iterator[Craft]:
    """Yield the procedures of every language, in an order that depends on the files alone."""
    folder = resources.files("safehold.improve.synthesis") / "crafts"
    for entry in sorted(folder.iterdir(), key=lambda file: file.name):
        language = entry.name.removesuffix(".txt")
        rng = random.Random(f"{seed}/crafts/{language}")
        told: list[Craft] = []
        for number, line in enumerate(entry.read_text(encoding="utf-8").splitlines()):
            if not line.strip():
                continue
            family = f"crafts-{language}-{number:03}"
            spoken = "en" if language in _ENGLISH else language
            for form in (0, rng.randint(1, 5)):
                text = told_in_form(drawn(line.strip(), rng), spoken, form, rng)
                told.append(Craft(f"{family}-{form}", family, spoken, text))
        yield from told
        for number in range(len(told) // _PAIRS):
            first, second = rng.sample(told, 2)
            family = first.family
            text = f"{first.text}\n\n{second.text}"
            yield Craft(f"crafts-{language}-pair-{number:03}", family, first.language, text)


def drawn(line: str, rng: random.Random) -> str:
    """Return the line with each range (`[3-9]`) replaced by a number of it."""

    def number(match: re.Match[str]) -> str:
        low, high = match[1], match[2]
        if high is None:
            return low
        places = max(len(end.partition(".")[2]) for end in (low, high))
        if float(low) > float(high):
            return low
        return f"{rng.uniform(float(low), float(high)):.{places}f}"

    return _RANGE.sub(number, line)


def told_in_form(text: str, language: str, form: int, rng: random.Random) -> str:
    """Return a text as prose (form 0), in lower case (3), or as one of four kinds of list."""
    if language in _COMMA and rng.random() < 0.6:
        text = re.sub(r"(\d)\.(\d)", r"\1,\2", text)
    steps = [step.strip() for step in _SENTENCES.split(text) if step and step.strip()]
    numbered = list(enumerate(steps, 1))
    match form:
        case 0:
            return text
        case 1:
            return "\n".join(f"{number}. {step}" for number, step in numbered)
        case 2:
            return "\n".join(f"- {step}" for step in steps)
        case 3:
            return text.lower()
        case 4:
            return json.dumps({"steps": steps}, ensure_ascii=False)
        case _:
            rows = "\n".join(f"| {number} | {step} |" for number, step in numbered)
            return f"| # | |\n|---|---|\n{rows}"
