"""Campaigns: texts of many accounts that share rare wording.

Three-word runs that the background does not know tie texts together; a cluster is an alarm when
enough accounts take part and the guard stops it significantly more often than the background. An
inverted index over rare runs, not MinHash LSH: that joined 19-44 % of planted pairs where this
joined 99 % (docs/detection.md).
"""

import hashlib
import itertools
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from safehold.errors import DataError
from safehold.stats import lower_bound

_WORD = re.compile(r"\w+")
_RUN = 3
_ROWS, _COLUMNS = 4, 1 << 20
_EACH_ROW = np.arange(_ROWS)
_MOST_WEIGHT = 1e6
_HALF_LIFE_S = 30 * 86_400.0
_KNOWN = 0.5
_LEAST_SHARED = 4
_LEAST_SHARE = 0.12
_MOST_HOLDERS = 400
_PARTNERS = 40


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One text: who sent it and whether the guard stopped it."""

    decision_id: str
    account: str
    text: str
    stopped: bool


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """Texts that share rare wording. `shared` holds digests of the runs, never the words."""

    decision_ids: tuple[str, ...]
    accounts: tuple[str, ...]
    stopped: int
    shared: tuple[str, ...]
    alarm: bool


class Background:
    """How often each run of words was seen, decaying: a count-min sketch of 16 MB.

    Cormode and Muthukrishnan, "An improved data stream summary", 2005. Counts are never too low.
    """

    def __init__(self, *, half_life_s: float = _HALF_LIFE_S) -> None:
        """Begin with an empty background."""
        self._counts = np.zeros((_ROWS, _COLUMNS), dtype=np.float32)
        self._half_life_s = half_life_s
        self._at = 0.0
        self._weight = 1.0
        self.texts = 0
        self.stopped = 0
        self.clustered = 0
        self.clustered_stopped = 0
        self.most_accounts = 0

    @property
    def usual(self) -> float:
        """The greater share that the guard stops: of all usual texts, or of its own clusters."""
        every = self.stopped / self.texts if self.texts else 0.0
        own = self.clustered_stopped / self.clustered if self.clustered else 0.0
        return max(every, own)

    def learn_cluster(self, cluster: "Campaign") -> None:
        """Take a cluster that people sent for no campaign: alarms are only above those."""
        self.clustered += len(cluster.decision_ids)
        self.clustered_stopped += cluster.stopped
        self.most_accounts = max(self.most_accounts, len(cluster.accounts))

    def packed(self) -> bytes:
        """Return everything as bytes, for the monitor's database."""
        self._settle()
        numbers = [self._half_life_s, self._at, self.texts, self.stopped]
        numbers += [self.clustered, self.clustered_stopped, self.most_accounts]
        head = msgspec.json.encode(numbers)
        return len(head).to_bytes(4, "big") + head + zlib.compress(self._counts.tobytes(), 1)

    @classmethod
    def unpacked(cls, data: bytes) -> "Background":
        """Return the background of `packed`.

        Raises:
            DataError: those are no bytes of a background.
        """
        try:
            size = int.from_bytes(data[:4], "big")
            half, at, *rest = msgspec.json.decode(data[4 : 4 + size], type=list[float])
            texts, stopped, clustered, clustered_stopped, most = (int(one) for one in rest)
            counts = np.frombuffer(zlib.decompress(data[4 + size :]), dtype=np.float32)
            found = cls(half_life_s=half)
            found._counts = counts.reshape(_ROWS, _COLUMNS).copy()
        except (ValueError, msgspec.DecodeError, zlib.error) as error:
            raise DataError("the stored background of campaigns is damaged: delete it") from error
        found._at, found.texts, found.stopped = at, texts, stopped
        found.clustered, found.clustered_stopped = clustered, clustered_stopped
        found.most_accounts = most
        return found

    def learn(self, text: str, *, at: float, stopped: bool = False) -> None:
        """Count a text's runs, once each; earlier ones weigh less as time goes by."""
        if not self._at:
            self._at = at
        # Counts are in units of a weight that grows: nothing is multiplied for each text. A clock
        # set back leaves the weights as they are.
        self._weight = max(self._weight, 2.0 ** ((at - self._at) / self._half_life_s))
        if self._weight > _MOST_WEIGHT:
            self._settle()
        self.texts += 1
        self.stopped += stopped
        for run in runs(text):
            self._counts[_EACH_ROW, _cells(run)] += self._weight

    def _settle(self) -> None:
        """Begin anew with a weight of one."""
        self._counts /= np.float32(self._weight)
        self._at += self._half_life_s * float(np.log2(self._weight))
        self._weight = 1.0

    def rare(self, found: Iterable[bytes]) -> set[bytes]:
        """Return the runs that the background does not know, or knows no more."""
        least = _KNOWN * self._weight
        return {run for run in found if self._counts[_EACH_ROW, _cells(run)].min() < least}


def runs(text: str) -> set[bytes]:
    """Return the digests of a text's three-word runs."""
    words = _WORD.findall(text.casefold())
    return {
        hashlib.blake2b(" ".join(words[i : i + _RUN]).encode(), digest_size=16).digest()
        for i in range(len(words) - _RUN + 1)
    }


def campaigns(
    seen: Sequence[Sighting], background: Background, *, least_accounts: int = 3
) -> list[Campaign]:
    """Return the clusters of two or more texts, alarms first, larger ones first."""
    rare = [background.rare(runs(one.text)) for one in seen]
    holders: dict[bytes, list[int]] = defaultdict(list)
    for index, found in enumerate(rare):
        for run in found:
            holders[run].append(index)
    parent = list(range(len(seen)))
    for (left, right), shared in _pairs(holders).items():
        if shared >= _LEAST_SHARED and shared >= _LEAST_SHARE * min(
            len(rare[left]), len(rare[right])
        ):
            parent[_root(parent, left)] = _root(parent, right)
    clusters: dict[int, list[int]] = defaultdict(list)
    for index in range(len(seen)):
        clusters[_root(parent, index)].append(index)
    usual = background.usual
    found_campaigns = [
        _campaign(seen, rare, members, usual=usual, least_accounts=least_accounts)
        for members in clusters.values()
        if len(members) > 1
    ]
    return sorted(found_campaigns, key=lambda one: (not one.alarm, -len(one.decision_ids)))


def _pairs(holders: dict[bytes, list[int]]) -> Counter[tuple[int, int]]:
    """Count the runs that two texts share; a run links a text to its next holders only."""
    pairs: Counter[tuple[int, int]] = Counter()
    for found in holders.values():
        if len(found) <= _MOST_HOLDERS:
            for place, left in enumerate(found):
                pairs.update((left, right) for right in found[place + 1 : place + _PARTNERS])
        else:  # a chain: a run of everybody links neighbours, in linear time
            pairs.update(itertools.pairwise(found))
    return pairs


def _campaign(
    seen: Sequence[Sighting],
    rare: Sequence[set[bytes]],
    members: Sequence[int],
    *,
    usual: float,
    least_accounts: int,
) -> Campaign:
    accounts = tuple(sorted({seen[index].account for index in members}))
    stopped = sum(seen[index].stopped for index in members)
    counts = Counter(run for index in members for run in rare[index])
    common = [run for run, count in counts.most_common(8) if count > 1]
    return Campaign(
        decision_ids=tuple(seen[index].decision_id for index in members),
        accounts=accounts,
        stopped=stopped,
        shared=tuple(run.hex() for run in common),
        alarm=len(accounts) >= least_accounts and lower_bound(stopped, len(members)) > usual,
    )


def _cells(run: bytes) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return np.frombuffer(run, dtype=np.uint32) % np.uint32(_COLUMNS)


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index
