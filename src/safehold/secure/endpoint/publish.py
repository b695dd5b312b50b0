"""Refusals on the transparency log: one leaf for a batch, with its digest, never one for each."""

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from safehold.secure.endpoint.interface import EndpointRecordError
from safehold.secure.endpoint.records import Denial
from safehold.trust.log.files import change_whole, write_new
from safehold.trust.log.log_entries import Record

LEAST_S = 60
_MOST = 8 << 20


class Published(msgspec.Struct, frozen=True):
    """How far the file of refusals was published: bytes, and when (POSIX seconds)."""

    offset: int = 0
    time: int = 0


def batch(data: bytes, host: str, now: int) -> Record | None:
    """Return the leaf of whole lines of refusals; None for none."""
    rows = [msgspec.json.decode(row, type=Denial) for row in data.splitlines()]
    if not rows:
        return None
    count = sum(row.count for row in rows)
    kinds = Counter[str]()
    for row in rows:
        kinds[row.kind] += row.count
    said = ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items()))
    return Record(
        time=now,
        kind="exec-deny",
        facts={
            "host": host,
            "refused": str(count),
            "things": str(len({(row.path, row.sha256) for row in rows})),
            "kinds": said,
            "first": str(min(row.time for row in rows)),
            "last": str(max(row.time for row in rows)),
        },
        digests={"batch": hashlib.sha256(data).hexdigest()},
    )


def publish(
    records: Path, memory: Path, host: str, now: int, record: Callable[[Record], int]
) -> int | None:
    """Log what was refused since the last batch; return the leaf's index, None if nothing is due.

    At most one leaf a minute. The position is kept after the leaf: a batch that was interrupted
    is logged twice rather than not at all.

    Raises:
        EndpointRecordError: a file can't be read or written, or holds no refusals.
    """
    index: int | None = None

    def published(known: bytes | None) -> bytes:
        nonlocal index
        known = known or b"{}"
        before = msgspec.json.decode(known, type=Published)
        if now - before.time < LEAST_S:
            return known
        with records.open("rb") as file:
            file.seek(before.offset)
            data = file.read(_MOST)
        data = data[: data.rfind(b"\n") + 1]
        leaf = batch(data, host, now)
        if leaf is None:
            return known
        index = record(leaf)
        return msgspec.json.encode(Published(before.offset + len(data), now))

    try:
        with suppress(FileExistsError):
            write_new(memory, msgspec.json.encode(Published()), mode=0o644)
        change_whole(memory, published)
    except OSError as error:
        raise EndpointRecordError(f"{records.name}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise EndpointRecordError(f"{records.name}: {error}") from error
    return index
