"""From an attack's text to what may be told of it; the text itself is not kept."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np

from safehold.detect.intel.interface import Technique, WeekCount
from safehold.detect.redteam.transforms import transform
from safehold.errors import DataError, UsageError
from safehold.guard.scorers.similar import folded, grams

LEAST_CHARS = 200
"""A shorter template could be found by guessing: nothing that depends on its text is shared."""
_HASHES = 64
_RUN = 5
_WORD = re.compile(r"[^\W_]+")
_LEAST_KEY_BYTES = 32


def describe(
    text: str,
    *,
    family: str,
    chain: Sequence[str],
    atlas: Sequence[str],
    band: str,
    turns: int,
    seen: Sequence[WeekCount],
    fixes: Sequence[str],
    created: int,
    updated: int,
    group_key: bytes,
) -> Technique:
    """Return what may be shared about an attack with this template (its slot left in or out).

    Raises:
        UsageError: a name is not of its vocabulary, or the group's key is too short.
    """
    for name in chain:
        transform(name)
    plain = folded(text.replace("<<ask>>", " "))
    long = len(plain) >= LEAST_CHARS
    value = {
        "family": family,
        "chain": tuple(name.lower() for name in chain),
        "atlas": tuple(atlas),
        "band": band,
        "turns": turns,
        "template_sha256": hashlib.sha256(plain.encode()).hexdigest() if long else None,
        "sketch": sketched(plain, group_key) if long else "",
        "seen": [msgspec.to_builtins(one) for one in sorted(seen, key=lambda one: one.week)],
        "fixes": tuple(sorted(fixes)),
        "created": created,
        "updated": updated,
    }
    try:
        return msgspec.convert(value, Technique)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"a technique: {error}; names are one to three short words joined by hyphens"
        ) from error


def sketched(plain: str, group_key: bytes) -> str:
    """Return 64 least hashes of a folded text's 5-grams under a group's key, as hex.

    Broder, "On the resemblance and containment of documents", 1997; each gram goes through keyed
    BLAKE2b first, so that nobody without the key can compare or guess.

    Raises:
        UsageError: the key is shorter than 32 bytes.
    """
    if len(group_key) < _LEAST_KEY_BYTES:
        raise UsageError(f"a group's key needs {_LEAST_KEY_BYTES} bytes or more")
    found = np.unique(grams(plain))
    if not len(found):
        return ""
    keyed = np.frombuffer(
        b"".join(
            hashlib.blake2b(gram.tobytes(), key=group_key[:64], digest_size=8).digest()
            for gram in found
        ),
        dtype=np.uint64,
    )
    seed = hashlib.shake_256(b"safehold sketch 1" + group_key).digest(_HASHES * 16)
    factors = np.frombuffer(seed, dtype=np.uint64).reshape(_HASHES, 2)
    least = [
        ((keyed * (factor | np.uint64(1)) + offset) >> np.uint64(32)).min()
        for factor, offset in factors
    ]
    return "".join(f"{int(one):08x}" for one in least)


def likeness(one: str, other: str) -> float:
    """Return the estimated share of 5-grams that two sketches of one group have in common."""
    if not one or len(one) != len(other):
        return 0.0
    pairs = range(0, len(one), 8)
    return sum(one[i : i + 8] == other[i : i + 8] for i in pairs) / len(pairs)


def told_words(exported: bytes, sources: Iterable[str]) -> int:
    """Count the five-word runs of the sources that an export (JSON) holds; 0 is the good answer."""
    text = exported.decode("utf-8")
    # Once as bytes with the names of fields, once as the values alone, one after the other.
    out = _runs(text) | _runs("\n".join(_values(msgspec.json.decode(exported))))
    return sum(len(_runs(source) & out) for source in sources)


def refuse_content(exported: bytes, sources: Iterable[str]) -> None:
    """Refuse an export that holds five words in a row of a source.

    Raises:
        DataError: it does.
    """
    count = told_words(exported, sources)
    if count:
        raise DataError(f"the export would tell {count} runs of five words of the source")


def _values(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _values(one)
    elif isinstance(value, list):
        for one in value:
            yield from _values(one)
    else:
        yield str(value)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)}
