"""Families of near relatives, the split by family, and the removal of near-duplicates by MinHash.

MinHash: Broder, "On the resemblance and containment of documents", SEQUENCES 1997; the banded
index is datasketch's.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import msgspec
from datasketch import MinHash, MinHashLSH

from safehold.exchange import Role
from safehold.improve.synthesis.crossed import CROSSED
from safehold.improve.synthesis.interface import CONSTITUTION, GENERAL, Example, Side, Split

PERMUTATIONS = 64
_SHINGLE_WORDS = 3
_SHINGLE_CHARS = 4
_FEWEST = 6
"""Families that a clause needs to be in every split."""
_MANY = 60
"""Families from which chance is even enough."""
_WHOLE = 60
"""Characters from which a reply is text of its own and no common phrase."""
_NOT_WRITTEN = frozenset({CONSTITUTION, CROSSED, GENERAL})
"""Generators whose examples nobody wrote about the class."""
_BOUNDS = ((Split.TRAIN, 0.72), (Split.CALIBRATE, 0.90), (Split.TEST, 1.0))


class Nearness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Estimated Jaccard similarities from which texts are one text, or families one family."""

    same: float = 0.85
    """Two generated texts are one text."""
    same_rewritten: float = 0.95
    """Two rewritten texts are one text; case counts."""
    related: float = 0.5
    """Two families are one family."""


def text_of(example: Example) -> str:
    """Return what an example says: the prompt's texts and the reply."""
    said = [part.text for part in example.exchange.texts() if part.text]
    return "\n".join([*said, example.reply])


def told_by_user(example: Example) -> str:
    """Return the user's words of an example."""
    return "\n".join(part.text for part in example.exchange.texts(Role.USER))


@lru_cache(maxsize=1 << 14)
def sketch(text: str) -> MinHash:
    """Return the MinHash of a text's shingles: words where there are spaces, else characters."""
    units: Sequence[str] = text.split()
    width = _SHINGLE_WORDS
    if len(units) <= len(text) // 16:
        units, width = text, _SHINGLE_CHARS
    last = max(1, len(units) - width + 1)
    shingles = {" ".join(units[start : start + width]).encode() for start in range(last)}
    result = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
    result.update_batch(sorted(shingles))
    return result


def split_of(family: str) -> Split:
    """Return the split of a family: 72 % train, 18 % calibrate, 10 % test, by a stable hash."""
    share = _share(family)
    return next(split for split, bound in _BOUNDS if share < bound)


def _share(family: str) -> float:
    return int.from_bytes(hashlib.sha256(family.encode()).digest()[:8], "big") / 2**64


def merged(examples: Sequence[Example], nearness: Nearness) -> list[Example]:
    """Give near relatives one family name, and every example the split of its family.

    Raises:
        ValueError: Two examples have one id.
    """
    roots: dict[str, str] = {example.family: example.family for example in examples}

    def root(name: str) -> str:
        while roots[name] != name:
            roots[name] = roots[roots[name]]
            name = roots[name]
        return name

    index = MinHashLSH(threshold=nearness.related, num_perm=PERMUTATIONS)
    sketches: dict[str, tuple[str, MinHash]] = {}
    for example in examples:
        own = sketch(text_of(example).casefold())
        for key in sorted(index.query(own)):
            family, other = sketches[key]
            if other.jaccard(own) >= nearness.related:
                first, second = sorted((root(example.family), root(family)))
                roots[second] = first
        index.insert(example.id, own)
        sketches[example.id] = (example.family, own)
    told: dict[str, str] = {}
    for example in examples:
        # One reply is one family, whatever the index of resemblances finds.
        if example.reply:
            key = " ".join(example.reply.casefold().split())
            first, second = sorted(
                (root(example.family), root(told.setdefault(key, example.family)))
            )
            roots[second] = first
    result: list[Example] = []
    for example in examples:
        family = root(example.family)
        result.append(msgspec.structs.replace(example, family=family, split=split_of(family)))
    return balanced(result)


def balanced(examples: Sequence[Example]) -> list[Example]:
    """Share out the families of small clauses evenly over the splits.

    Chance gives a clause of few families too few of one split, or none. Such a clause's families
    are ranked by their hash and cut at the splits' shares; a family that stands in several clauses
    goes where its restricted one puts it. Clauses of many families stay as they are,
    and so does a dataset whose restricted clauses all have many. What is left empty then is filled
    (`_filled`).
    """
    moved = {example.family: example.split for example in examples}
    # Families with a reply are shared out by themselves: both surfaces are calibrated and measured.
    told = {example.family for example in examples if example.reply}
    clauses: dict[tuple[bool, str, bool], set[str]] = {}
    for example in examples:
        permitted = example.side is not Side.RESTRICTED
        key = (permitted, example.clause, example.family not in told)
        clauses.setdefault(key, set()).add(example.family)
    restricted = [families for (permitted, _, _), families in clauses.items() if not permitted]
    enough = all(len(families) >= _MANY for families in restricted)
    placed: set[str] = set()
    for key in () if enough else sorted(clauses):
        families = sorted(clauses[key] - placed, key=_share)
        if _FEWEST <= len(clauses[key]) < _MANY:
            for rank, family in enumerate(families):
                share = (rank + 0.5) / len(families)
                moved[family] = next(split for split, bound in _BOUNDS if share < bound)
        placed |= clauses[key]
    _filled(moved, examples)
    return [
        one
        if moved[one.family] is one.split
        else msgspec.structs.replace(one, split=moved[one.family])
        for one in examples
    ]


def _filled(moved: dict[str, Split], examples: Sequence[Example]) -> None:
    """Give each split a written family of each side, where there are three about the class.

    A side's families with a reply count, where there are three of them, else all of it. Texts that
    are crossed of the constitution's words, and general ones, are no proof of anything and don't
    count. A split that lacks a family takes one from the split that has most; none is left empty by
    that on the other side: of two families in one split, one at least is not the other side's last.
    """
    sides: list[set[str]] = []
    for side in (Side.RESTRICTED, Side.PERMITTED):
        own = [
            one
            for one in examples
            if one.side is side and one.lineage.generator not in _NOT_WRITTEN
        ]
        told = {one.family for one in own if one.reply}
        every = {one.family for one in own}
        sides.append(told if len(told) >= len(Split) else every)

    def inside(families: set[str], split: Split) -> list[str]:
        return sorted((one for one in families if moved[one] is split), key=_share)

    for families in sides:
        if len(families) < len(Split):
            continue
        for split in Split:
            if inside(families, split):
                continue
            donor = max(Split, key=lambda one: len(inside(families, one)))
            spare = [
                family
                for family in inside(families, donor)
                if all(
                    family not in others or len(inside(others, donor)) > 1
                    for others in sides
                    if len(others) >= len(Split)
                )
            ]
            moved[spare[-1]] = split


def leaks(examples: Iterable[Example]) -> list[str]:
    """Return the families, and the ids of long replies, that stand in more than one split."""
    families: dict[str, Split] = {}
    replies: dict[str, Split] = {}
    found: list[str] = []
    for example in examples:
        if families.setdefault(example.family, example.split) is not example.split:
            found.append(example.family)
        text = " ".join(example.reply.casefold().split())
        whole = not example.lineage.chain and len(text) >= _WHOLE
        if whole and replies.setdefault(text, example.split) is not example.split:
            found.append(example.id)
    return found


class Deduplicator:
    """Lets through the first of each group of near-equal examples."""

    def __init__(self, threshold: float, *, fold_case: bool) -> None:
        """Take the similarity from which two texts are one, and whether case counts."""
        self._threshold = threshold
        self._fold_case = fold_case
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self._sketches: dict[str, MinHash] = {}
        self._exact: set[bytes] = set()
        self.dropped = 0

    def filter(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield the examples that say something new, in order."""
        for example in examples:
            if self._new(example):
                yield example
            else:
                self.dropped += 1

    def _new(self, example: Example) -> bool:
        text = text_of(example)
        if self._fold_case:
            text = text.casefold()
        exact = hashlib.sha256(text.encode()).digest()
        if exact in self._exact:
            return False
        own = sketch(text)
        for key in self._index.query(own):
            if self._sketches[key].jaccard(own) >= self._threshold:
                return False
        self._exact.add(exact)
        self._index.insert(example.id, own)
        self._sketches[example.id] = own
        return True
