"""Host and box tell each other what they counted, and each compares.

Each publishes one signed document with its newest cumulative counts (and one for each hour of a
day), replaced at every look. How it reaches the other is open: a shared folder, a pull over the
inside network. Counts are cumulative, so a document that was missed costs nothing.

Every packet of a row that the box forwards was counted by the host's rules a little earlier. So
between any two looks the box can't have counted more than the host in a slightly longer time; if it
has, something left the host past its rules. The other way round, what the host counted and the box
did not see was lost, or went out another way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from safehold.secure.egress.bounds.judge import LEAST_SEGMENT, SEGMENT_HEADERS
from safehold.secure.egress.enforcement.snapshot import Snapshot
from safehold.secure.egress.enforcement.state import write_durably
from safehold.secure.egress.explain.ledger import Signer, Verifier
from safehold.secure.egress.interface import StateError

DOMAIN = b"safehold/egress/counts/v1\n"
_NEWEST = 64
_HOURS = 24
_MAX_BYTES = 64 * 2**20
_LOST_SHARE = 10
"""Host counts that the box did not see are told of above one tenth (and the bound)."""


class CountRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one side had counted at one moment: bytes by account, and packets since `boot`."""

    seq: int
    at: float
    boot: str
    passed: dict[str, int]
    packets: dict[str, int]


class SideCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A side's signed document."""

    party: str
    rows: tuple[CountRow, ...]
    v: Literal[1] = 1
    sig: str = ""

    def signed_part(self) -> bytes:
        """The bytes that the signature covers."""
        return DOMAIN + msgspec.json.encode(msgspec.structs.replace(self, sig=""), order="sorted")


class CountsCompared(msgspec.Struct, frozen=True):
    """What a comparison says: more at the box than the host let through, and less."""

    past: str = ""
    lost: str = ""


def counts_of(snapshot: Snapshot, seq: int) -> CountRow:
    """One look as a row of counts."""
    return CountRow(
        seq, snapshot.wall_s, snapshot.boot, dict(snapshot.passed), dict(snapshot.packets)
    )


def kept(rows: Iterable[CountRow]) -> tuple[CountRow, ...]:
    """The newest rows, and before them the first of each hour of the last day."""
    rows = list(rows)
    old, new = rows[:-_NEWEST], rows[-_NEWEST:]
    hours: dict[int, CountRow] = {}
    for row in old:
        hours.setdefault(int(row.at // 3600), row)
    return (*list(hours.values())[-_HOURS:], *new)


def publish(path: Path, party: str, signer: Signer, snapshot: Snapshot) -> SideCounts:
    """Add a look to this side's document; raises StateError when it can't be written."""
    before = _decoded(path).rows if path.exists() else ()
    seq = before[-1].seq + 1 if before else 0
    document = SideCounts(party, kept((*before, counts_of(snapshot, seq))))
    signature = signer.sign(document.signed_part()).hex()
    document = msgspec.structs.replace(document, sig=signature)
    write_durably(path, msgspec.json.encode(document))
    return document


def read_counts(path: Path, party: str, verifier: Verifier) -> SideCounts:
    """Read the other side's document.

    Raises:
        StateError: It is missing, malformed, of another party, or not signed by its key.
    """
    document = _decoded(path)
    try:
        signature = bytes.fromhex(document.sig)
    except ValueError:
        signature = b""
    if document.party != party or not verifier.verify(signature, document.signed_part()):
        raise StateError(f"{path.name}: expected counts that {party} signed")
    return document


def _decoded(path: Path) -> SideCounts:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise StateError(f"{path.name}: expected at most {_MAX_BYTES} bytes")
        return msgspec.json.decode(path.read_bytes(), type=SideCounts)
    except OSError as error:
        raise StateError(f"{path.name}: can't be read ({error.strerror})") from error
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise StateError(f"{path.name}: expected a document of counts") from error


def compare(
    host: Sequence[CountRow],
    box: Sequence[CountRow],
    account: Mapping[str, str],
    *,
    lag_s: float,
    bound: int,
) -> CountsCompared:
    """Compare both sides' rows; `account` says which account of the box a host's row pays from.

    `lag_s` is how far apart the clocks may be and how long a packet may travel, together; `bound`
    bytes may differ either way. Rows of any pair of looks are compared, so neither a slow thief nor
    bytes that were lost on the way give credit.
    """
    host = [_grouped(row, account) for row in host]
    past = _worst(box, host, lag_s, _excess)
    lost = _worst(host, box, lag_s, _missing)
    return CountsCompared(
        past=(
            f"the box forwarded {past[0]} bytes of {past[1]} that the host's rules did not count"
            if past[0] > bound
            else ""
        ),
        lost=(
            f"{lost[0]} bytes of {lost[1]} that the host's rules counted did not reach the box"
            if lost[0] > bound
            else ""
        ),
    )


def _grouped(row: CountRow, account: Mapping[str, str]) -> CountRow:
    passed: dict[str, int] = {}
    packets: dict[str, int] = {}
    for name in row.passed:
        if name in account:
            into = account[name]
            passed[into] = passed.get(into, 0) + row.passed[name]
            packets[into] = packets.get(into, 0) + row.packets.get(name, 0)
    return msgspec.structs.replace(row, passed=passed, packets=packets)


class _Growth(msgspec.Struct, frozen=True):
    """Bytes and packets between two rows; packets are -1 when a boot lies between them."""

    size: int
    packets: int


def _growth(first: CountRow, last: CountRow, name: str) -> _Growth:
    size = last.passed.get(name, 0) - first.passed.get(name, 0)
    count = last.packets.get(name, 0) - first.packets.get(name, 0)
    return _Growth(size, count if first.boot == last.boot and count >= 0 else -1)


def _excess(box: _Growth, host: _Growth) -> int:
    """Bytes at the box beyond the host's and the headers that cutting into segments repeats."""
    cuts = host.size // LEAST_SEGMENT
    if box.packets >= 0 and host.packets >= 0:
        cuts = min(cuts, max(0, box.packets - host.packets))
    return box.size - host.size - cuts * SEGMENT_HEADERS


def _missing(host: _Growth, box: _Growth) -> int:
    over = host.size - box.size
    return over if over > host.size // _LOST_SHARE else 0


def _worst(
    ours: Sequence[CountRow],
    theirs: Sequence[CountRow],
    lag_s: float,
    over: Callable[["_Growth", "_Growth"], int],
) -> tuple[int, str]:
    """The most that `ours` is ahead of `theirs` between the newest row and any before it."""
    worst = (0, "")
    if not theirs:
        return worst
    ends = [row for row in ours if row.at <= theirs[-1].at - lag_s]
    if not ends:
        return worst
    end = ends[-1]
    after = next(row for row in theirs if row.at >= end.at + lag_s)
    for begin in ends[:-1]:
        before = [row for row in theirs if row.at <= begin.at - lag_s]
        if before:
            for name in end.passed.keys() & after.passed.keys():
                here = _growth(begin, end, name)
                there = _growth(before[-1], after, name)
                worst = max(worst, (over(here, there), name))
    return worst


class CountsPeer(msgspec.Struct, frozen=True):
    """The other side, and what this side publishes for it.

    `stale_s` is how old the other's newest row may be before that is told.
    """

    path: Path
    party: str
    verifier: Verifier
    own_path: Path
    own_party: str
    signer: Signer
    lag_s: float = 5.0
    stale_s: float = 120.0


def exchange(
    peer: CountsPeer, snapshot: Snapshot, account: Mapping[str, str], *, bound: int, is_box: bool
) -> tuple[CountsCompared, str]:
    """Publish this look and compare with the other side; the text says why it can't be done."""
    own = publish(peer.own_path, peer.own_party, peer.signer, snapshot)
    try:
        other = read_counts(peer.path, peer.party, peer.verifier)
    except StateError as error:
        return CountsCompared(), f"nothing to compare with: {error}"
    host, box = (other.rows, own.rows) if is_box else (own.rows, other.rows)
    found = compare(host, box, account, lag_s=peer.lag_s, bound=bound)
    age = snapshot.wall_s - other.rows[-1].at if other.rows else snapshot.wall_s
    if age > peer.stale_s:
        return found, f"{peer.party} has told no counts for {age:.0f} s"
    return found, ""
