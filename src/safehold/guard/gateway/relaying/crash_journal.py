"""A local record of text about to be released, so that a killed process loses no delivered text.

Each frame is written with one `write(2)` before the text goes to a socket: the kernel has it even
if the process dies the next instant. (Power loss is the ledger's part: the prompt row is synced.)
After a crash `leftovers` tells what streams without a final row had delivered, and the gateway
writes their final rows before it serves again. Files are bounded: a full one is followed by a new
one and removed once every stream that wrote to it has its final row.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from safehold.errors import ConfigError, LedgerError
from safehold.exchange import Lane
from safehold.guard.ledger.engine import parse_url
from safehold.guard.ledger.interface import Delivered, FinalRow, LedgerVerdict, Outcome

_FULL_BYTES = 32 * 1024 * 1024
_MAX_FRAME = 64 * 1024 * 1024
KILLED = "WriterDied"


class JournalEntry(msgspec.Struct, array_like=True, frozen=True):
    """Released text of one exchange; no texts means that its final row is durable."""

    decision_id: str
    texts: tuple[tuple[Lane, str], ...]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(JournalEntry)


class _File:
    """One file of a journal and the exchanges whose text only it holds."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.fd = os.open(path, flags, 0o600)
        self.path = path
        self.size = 0
        self.open: set[str] = set()

    def remove(self) -> None:
        os.close(self.fd)
        self.path.unlink(missing_ok=True)


class Journal:
    """The journal of one worker: a folder, locked while the worker lives."""

    def __init__(self, folder: Path, *, full_bytes: int = _FULL_BYTES) -> None:
        """Take the folder for this worker alone.

        Raises:
            LedgerError: It can't be written, or another worker has it.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerError(f"journal {folder.name}: can't be opened for this worker") from error
        self._folder = folder
        self._full = full_bytes
        self._old = sorted(folder.glob("*.journal"))
        self._next = int(self._old[-1].stem) + 1 if self._old else 0
        self._files: list[_File] = []

    def write(self, decision_id: str, texts: Sequence[tuple[Lane, str]]) -> None:
        """Hand text to the kernel before it is released.

        Raises:
            LedgerError: It could not be written; the text must not be released.
        """
        self._append(JournalEntry(decision_id, tuple(texts))).open.add(decision_id)

    def close(self, decision_id: str) -> None:
        """Note that the final row of an exchange is durable."""
        if not any(decision_id in file.open for file in self._files):
            return
        self._append(JournalEntry(decision_id, ()))
        for file in self._files:
            file.open.discard(decision_id)
        for file in self._files[:-1]:
            if not file.open:
                self._files.remove(file)
                file.remove()

    def _append(self, entry: JournalEntry) -> _File:
        body = _encode(entry)
        frame = len(body).to_bytes(4, "big") + body
        try:
            if not self._files or self._files[-1].size > self._full:
                self._files.append(_File(self._folder / f"{self._next:012d}.journal"))
                self._next += 1
            file = self._files[-1]
            written = os.write(file.fd, frame)
        except OSError as error:
            raise LedgerError("journal: could not be written") from error
        file.size += written
        if written != len(frame):
            file.size = self._full + 1  # a torn frame ends its file: nothing is appended to it
            raise LedgerError("journal: was written in part only")
        return file

    def leftovers(self, now: float) -> list[FinalRow]:
        """Return a final row for every exchange that a killed worker left open.

        A frame that was cut short by the crash was never released, so it is dropped.

        Raises:
            LedgerError: A journal file can't be read.
        """
        return _last_rows(self._old, now)

    def forget(self) -> None:
        """Remove what `leftovers` told, once its rows are durable."""
        for path in self._old:
            path.unlink(missing_ok=True)
        self._old = []

    def shut(self) -> None:
        """Let go of the folder; files that hold open exchanges stay for the next worker."""
        for file in self._files:
            if file.open:
                os.close(file.fd)
            else:
                file.remove()
        self._files = []
        os.close(self._lock)


def _last_rows(files: Iterable[Path], now: float) -> list[FinalRow]:
    texts: dict[str, dict[Lane, list[str]]] = {}
    for path in files:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LedgerError(f"journal {path.name}: can't be read") from error
        for entry in frames(data):
            if not entry.texts:
                texts.pop(entry.decision_id, None)
            for lane, text in entry.texts:
                texts.setdefault(entry.decision_id, {}).setdefault(lane, []).append(text)
    return [_last_words(decision_id, lanes, now) for decision_id, lanes in texts.items()]


def _last_words(decision_id: str, lanes: dict[Lane, list[str]], now: float) -> FinalRow:
    delivered = tuple(Delivered(lane=lane, text="".join(parts)) for lane, parts in lanes.items())
    size = sum(len(item.text.encode()) for item in delivered)
    return FinalRow(
        decision_id=decision_id,
        at=now,
        outcome=Outcome.ERROR,
        verdict=LedgerVerdict.UNSCORED,
        delivered=delivered,
        delivered_bytes=size,
        scored_bytes=size,
        error=KILLED,
    )


def frames(data: bytes) -> Iterator[JournalEntry]:
    """Yield the whole entries of a journal file, up to a torn one.

    Raises:
        LedgerError: An entry is no entry.
    """
    at = 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size > _MAX_FRAME or at + 4 + size > len(data):
            return
        try:
            yield _decoder.decode(data[at + 4 : at + 4 + size])
        except msgspec.DecodeError as error:
            raise LedgerError("journal: an entry can't be read") from error
        at += 4 + size


def journalled(folder: Path, now: float) -> dict[str, FinalRow]:
    """Return what the journals under a folder prove, without changing them.

    Raises:
        ConfigError: There is no such folder.
        LedgerError: A journal file can't be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"expected the folder of a gateway's journal, came {folder}")
    files = sorted(folder.glob("worker-*/*.journal"))
    return {row.decision_id: row for row in _last_rows(files, now)}


def default_journal(ledger: str) -> Path:
    """Return where a gateway keeps its journal if nobody says otherwise.

    A ledger that is a file has it beside the file; one on a server has it in the working folder,
    under a digest of its address without the password.
    """
    url = parse_url(ledger)
    if url.get_backend_name() == "sqlite":
        return Path(f"{url.database}.journal")
    address = url.set(password=None).render_as_string()
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return Path(f"safehold-{digest}.journal")


def worker_journal(folder: Path, workers: int) -> Journal:
    """Open the first of this host's journals that no other worker has.

    Raises:
        LedgerError: All of them are taken, or they can't be written.
    """
    for _ in range(50):  # a predecessor may still be ending
        for index in range(workers):
            try:
                return Journal(folder / f"worker-{index}")
            except LedgerError:
                continue
        time.sleep(0.1)
    raise LedgerError(f"journal: none of {workers} folders is free or writable")
