"""Says how near the second set is to text that a guard was made from, in counts alone.

Compared are five-character shingles of lower-case text without white space. A row is near another
text when the Jaccard similarity of both is above 0.5; no text is printed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from .rows import HERE, rows

GRAM, NEAR = 5, 0.5
ROOT = Path(__file__).parents[3]
TRAINING = ROOT / "src/safehold/improve/synthesis"
OTHERS = {
    "training text": (TRAINING,),
    "own set": (HERE.parent,),
    "red team": (ROOT / "src/safehold/detect/redteam",),
    "constitution": (ROOT / "src/safehold/constitution",),
}


class Nearness(msgspec.Struct, frozen=True):
    """How many texts of one origin were compared, and how many rows are the same or near."""

    origin: str
    texts: int
    same: int
    near: int
    highest: float


def shingles(text: str) -> frozenset[str]:
    """Return the five-character shingles of a text; of a shorter one, itself."""
    plain = re.sub(r"\s+", "", text.lower())
    count = max(1, len(plain) - GRAM + 1)
    return frozenset(plain[at : at + GRAM] for at in range(count))


def texts_of(folder: Path) -> Iterator[str]:
    """Yield every text of a folder's YAML and lines of its text files; of this set, none."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".txt":
            yield from filter(None, path.read_text(encoding="utf-8").splitlines())
        elif path.suffix == ".yaml" and HERE not in path.parents:
            yield from _strings(yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader))


def _strings(given: Any) -> Iterator[str]:  # noqa: ANN401 - YAML of any shape
    if isinstance(given, str):
        yield given
    elif isinstance(given, dict):
        for key, value in given.items():
            yield from _strings(key)
            yield from _strings(value)
    elif isinstance(given, list):
        for value in given:
            yield from _strings(value)


def own_texts(folder: Path) -> list[str]:
    """Return what was written for the set: messages of single turns, and the turns of others."""
    found = {text for row in rows(folder) for _, text in row.turns}
    for one in yaml.safe_load((folder / "wrapped.yaml").read_text(encoding="utf-8")):
        found |= {one["wrapper"], *one["restricted"], *one["permitted"]}
    return sorted(found)


def nearness(origin: str, own: Iterable[str], others: Iterable[str]) -> Nearness:
    """Compare each own text of eight shingles or more with each other one."""
    sets = {text: shingles(text) for text in own}
    sets = {text: found for text, found in sets.items() if len(found) >= 8}
    index: dict[str, list[str]] = {}
    for text, found in sets.items():
        for gram in found:
            index.setdefault(gram, []).append(text)
    best: Counter[str] = Counter()
    same: set[str] = set()
    count = 0
    for other in others:
        count += 1
        theirs = shingles(other)
        shared = Counter(text for gram in theirs for text in index.get(gram, ()))
        for text, both in shared.items():
            alike = both / (len(sets[text]) + len(theirs) - both)
            best[text] = max(best[text], alike)  # type: ignore[assignment] - a share, not a count
            if alike == 1.0:
                same.add(text)
    near = sum(1 for alike in best.values() if alike > NEAR)
    return Nearness(origin, count, len(same), near, max(best.values(), default=0.0))


def apart(folder: Path) -> list[Nearness]:
    """Compare the set with every origin."""
    own = own_texts(folder)
    return [
        nearness(origin, own, (text for place in places for text in texts_of(place)))
        for origin, places in OTHERS.items()
    ]
