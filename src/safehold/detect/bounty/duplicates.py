"""Submissions that are much like an earlier one: evidence for triage, never a verdict.

The store keeps only keyed digests of three-word runs: without triage's key they can't be guessed.
The frozen questions' own runs do not count, or all submissions that spell one out would be alike.
"""

import hashlib
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from safehold.detect.bounty.interface import FrozenQuestions, Submission
from safehold.detect.monitoring.campaigns import runs

_KEPT = 4096
_LEAST_SHARED = 4
_LEAST_SHARE = 0.12


class Prints(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is kept of a submission's wording: keyed digests, the least 4,096 of them, sorted."""

    runs: tuple[str, ...]
    whole: str
    chain: tuple[str, ...]


class Likeness(msgspec.Struct, frozen=True, kw_only=True):
    """How far a submission is like an earlier one: runs shared, of the smaller one's."""

    submission: int
    shared: int
    of: int
    same_text: bool
    same_chain: bool


def prints(submission: Submission, questions: FrozenQuestions, key: X25519PrivateKey) -> Prints:
    """Return the keyed digests of a submission's wording."""
    secret = HKDF(
        algorithm=SHA256(), length=32, salt=None, info=b"safehold bounty prints 1"
    ).derive(key.private_bytes_raw())
    asked: set[bytes] = set().union(
        *(runs(question) for one in questions.questions for question in one.topic.questions)
    )
    text = "\n".join(turn.text for turn in submission.turns)
    found = {_keyed(run, secret) for run in runs(text) - asked}
    folded = " ".join(text.casefold().split())
    return Prints(
        runs=tuple(sorted(found)[:_KEPT]),
        whole=_keyed(folded.encode("utf-8", "surrogatepass"), secret),
        chain=submission.transforms,
    )


def likenesses(mine: Prints, earlier: Sequence[tuple[int, Prints]]) -> list[Likeness]:
    """Return the earlier submissions that are like this one, the likest first."""
    found = [_likeness(mine, number, other) for number, other in earlier]
    alike = [
        one
        for one in found
        if one.same_text
        or (one.shared >= _LEAST_SHARED and one.shared >= _LEAST_SHARE * max(1, one.of))
    ]
    return sorted(alike, key=lambda one: (not one.same_text, -one.shared / max(1, one.of)))


def _likeness(mine: Prints, number: int, other: Prints) -> Likeness:
    left, right = set(mine.runs), set(other.runs)
    if max(len(left), len(right)) >= _KEPT and left and right:
        # The least digests of each: below the lower of both ends nothing is missing.
        end = min(max(one) for one in (left, right) if len(one) >= _KEPT)
        left = {one for one in left if one <= end}
        right = {one for one in right if one <= end}
    return Likeness(
        submission=number,
        shared=len(left & right),
        of=min(len(left), len(right)),
        same_text=mine.whole == other.whole,
        same_chain=mine.chain == other.chain,
    )


def _keyed(data: bytes, secret: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8, key=secret).hexdigest()
