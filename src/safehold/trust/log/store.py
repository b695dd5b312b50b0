"""The log on disk: append with group commit, publish signed trees, survive any crash.

    log.json        origin and public keys (what a verifier is given beforehand)
    checkpoint      the newest signed tree head
    tile/…          tiles and entry bundles (C2SP tlog-tiles)
    witnessed       the newest checkpoint with witnesses' cosignatures
    journal         entries that are durable but not yet in a signed tree
    lock            held by whoever appends

The order of writes makes every instant safe to die in: journal, then tiles, then checkpoint, then
a fresh journal. An entry is acknowledged when the journal is synced; what the checkpoint covers is
skipped when the journal is read again.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safehold.trust.log.checkpoint import open_checkpoint, sign_checkpoint
from safehold.trust.log.files import DirectorySource, write_durably
from safehold.trust.log.interface import Checkpoint, InclusionProof, LogError, LogTamperError
from safehold.trust.log.journal import JournalFile, new_journal, read_journal
from safehold.trust.log.keys import LogKeys, read_keys, write_keys
from safehold.trust.log.merkle import hash_leaf, prove_inclusion
from safehold.trust.log.note import SigningKey
from safehold.trust.log.tiles import (
    WIDTH,
    Frontier,
    TileReader,
    bundle_path,
    check_entry,
    encode_bundle,
    tile_path,
)

_PAUSES_S = (0.0, 0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""How long a reader waits, one time after another, for a writer between two files."""
_CONTRADICT = "the log's journal and its checkpoint contradict each other"


def create_log(root: Path, key: SigningKey, keys: LogKeys) -> Checkpoint:
    """Make an empty log and return its first checkpoint.

    Raises:
        LogError: the directory already holds a log, or can't be written.
    """
    if (root / "checkpoint").exists() or (root / "journal").exists():
        raise LogError("expected a new directory, got one that holds a log")
    if not keys.emitters:
        raise LogError("expected log.json to name at least one emitter of leaves")
    if keys.log_key() != key.verifier or keys.origin != key.verifier.name:
        raise LogError("expected log.json to name the log's own key and origin")
    empty = Checkpoint(origin=keys.origin, size=0, root=Frontier().root())
    write_keys(root / "log.json", keys)
    new_journal(root / "journal", 0)
    write_durably(root / "checkpoint", str(sign_checkpoint(empty, key)).encode())
    return empty


class LogStore:
    """One process's hands on a log; several processes and threads may append at once."""

    def __init__(
        self,
        root: Path,
        key: SigningKey | None,
        *,
        check: Callable[[bytes], None] | None = None,
    ) -> None:
        """Open an existing log.

        Args:
            root: The log's directory.
            key: The log's own private key; None: append only, somebody else publishes.
            check: Judges an entry before it is appended, and each one that is found in the
                journal before it gets into a signed tree; it raises to refuse.

        Raises:
            LogError: there is none.
            LogTamperError: its files contradict each other or its signed checkpoint.
        """
        self.root = root
        self.keys = read_keys(root / "log.json")
        self._key = key
        self._check = check
        self._source = DirectorySource(root)
        if key is not None and self.keys.log_key() != key.verifier:
            raise LogError("expected the private key of this log, got another")
        self._thread = threading.RLock()
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._depth = 0
        self._owner = 0
        self._led = False
        self._journal: JournalFile | None = None
        self._frontier = Frontier()
        self._bundle: list[bytes] = []
        self._synced = False
        self._look(check)

    def _look(self, check: Callable[[bytes], None] | None) -> None:
        """Compare the files with each other, without holding the log."""
        head, pending = self._view()
        reader = TileReader(self._source, head)
        Frontier.of(reader)
        if head.size % WIDTH:
            reader.bundle(head.size // WIDTH)
        if check is not None:
            for entry in pending:
                check(entry)

    # ---- reading -------------------------------------------------------------------------

    @property
    def source(self) -> DirectorySource:
        """The log's static files."""
        return self._source

    def checkpoint(self) -> Checkpoint:
        """Return the newest signed tree head."""
        return open_checkpoint(self._checkpoint_bytes(), self.keys.log_key())[0]

    def _checkpoint_bytes(self) -> bytes:
        data = self._source.read("checkpoint")
        if data is None:
            raise LogTamperError("the log has no checkpoint: it was removed or never finished")
        return data

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield every durable entry from `start` on, published or not."""
        if self._owner == threading.get_ident():
            reader, pending = TileReader(self._source, self._head()), self._pending()
        else:
            head, pending = self._view()
            reader = TileReader(self._source, head)
        yield from reader.entries(start)
        for offset, entry in enumerate(pending):
            if reader.size + offset >= start:
                yield reader.size + offset, entry

    def _view(self) -> tuple[Checkpoint, list[bytes]]:
        """Return the published head and what is durable beyond it, without holding the log.

        The journal is read before the checkpoint: what a writer publishes in between is in the
        tree then, and tiles are never taken back.

        Raises:
            LogTamperError: the files contradict each other.
        """
        for pause in (*_PAUSES_S, None):
            try:
                base, journal, _ = read_journal(self._journal_bytes())
                head = self._fitting_head(base, base + len(journal))
            except LogTamperError:
                # A writer may be in the middle of a frame, or between two files.
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return head, journal[head.size - base :]
        raise LogTamperError(_CONTRADICT)

    def _fitting_head(self, base: int, end: int) -> Checkpoint:
        """Return the checkpoint, if a journal from `base` to `end` goes with it."""
        head = self.checkpoint()
        if head.origin != self.keys.origin:
            raise LogTamperError("expected a checkpoint of this log, got another log's")
        # A journal that begins after the tree, or ends before it, has lost entries.
        if not base <= head.size <= end:
            raise LogTamperError(_CONTRADICT)
        return head

    def _journal_bytes(self) -> bytes:
        try:
            return (self.root / "journal").read_bytes()
        except FileNotFoundError as error:
            raise LogError("the log has no journal: it was not made here, or is a copy") from error
        except OSError as error:
            raise LogError(f"can't open the log's journal: {error.strerror}") from error

    def prove(self, index: int) -> tuple[InclusionProof, bytes]:
        """Return the inclusion proof of a published entry, and the signed checkpoint's bytes."""
        data = self._checkpoint_bytes()
        head = open_checkpoint(data, self.keys.log_key())[0]
        reader = TileReader(self._source, head)
        return prove_inclusion(index, head.size, reader.node), data

    @property
    def size(self) -> int:
        """The number of durable entries, published or not, as far as this process knows."""
        journal = self._open_journal()
        return max(self._frontier.size, journal.base + len(journal.entries))

    # ---- appending -----------------------------------------------------------------------

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the log's lock: nobody else appends, and this process has seen every entry."""
        with self._thread:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            lock = self._open_lock()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._depth, self._owner = 1, threading.get_ident()
                self._catch_up()
                yield
            finally:
                self._depth = self._owner = 0
                os.close(lock)

    def _open_lock(self) -> int:
        try:
            return os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogError(f"can't lock the log: {error.strerror}") from error

    def append(self, entries: Sequence[bytes]) -> range:
        """Append entries in order; return their indices once they are on disk.

        Threads that call at the same time share one sync (group commit).

        Raises:
            LogError: an entry is empty or too long, or the disk refused: nothing was appended.
        """
        for entry in entries:
            check_entry(entry)
            if self._check is not None:
                self._check(entry)
        if not entries:
            return range(self.size, self.size)
        mine = _Waiting(list(entries))
        with self._queue_lock:
            self._queue.append(mine)
            leads = not self._led or self._owner == threading.get_ident()
            self._led = True
        # Who finds no leader writes for everybody who waits, then wakes them, and one to lead on.
        if not leads:
            mine.woken.wait()
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise type(mine.error)(str(mine.error)) from mine.error
        return range(mine.first, mine.first + len(entries))

    def _lead(self) -> None:
        """Commit what waits; then hand the lead to the next who waits, or leave it free."""
        batch: list[_Waiting] = []
        problem = LogError("the append was interrupted: look whether the entry is there")
        try:
            with self.exclusive():
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                if batch:
                    self._commit(batch)
        except LogError as error:
            problem = error
            with self._queue_lock:
                batch, self._queue = batch + self._queue, []
        finally:
            with self._queue_lock:
                heir = self._queue[0] if self._queue else None
                self._led = heir is not None
            for waiting in batch:
                if not waiting.done:
                    waiting.done, waiting.error = True, problem
                waiting.woken.set()
            if heir is not None:
                heir.woken.set()

    def _commit(self, batch: list["_Waiting"]) -> None:
        """Write a batch in one frame."""
        journal = self._open_journal()
        first = self.size
        try:
            journal.append([entry for waiting in batch for entry in waiting.entries])
        except LogError as error:
            for waiting in batch:
                waiting.done, waiting.error = True, error
            return
        for waiting in batch:
            waiting.done, waiting.first = True, first
            first += len(waiting.entries)

    def publish(self) -> Checkpoint:
        """Put every durable entry into the tree, sign its head and return it.

        Raises:
            LogError: there is no key, or the disk refused; then every entry is as durable as before
                and the next call takes it into the tree.
        """
        if self._key is None:
            raise LogError("expected the log's private key: without it nothing can be published")
        with self.exclusive():
            pending = self._pending()
            if not pending:
                return self.checkpoint()
            # 1. Build the tiles beside the state: a failure leaves the state as it was.
            frontier = Frontier.of(TileReader(self._source, self._head()))
            bundle = list(self._bundle)
            files: dict[str, bytes] = {}
            done: list[int] = []
            for entry in pending:
                bundle.append(entry)
                for level, index, data in frontier.add(hash_leaf(entry)):
                    files[tile_path(level, index)] = data
                    if level == 0:
                        files[bundle_path(index)] = encode_bundle(bundle)
                        done.append(index)
                        bundle.clear()
            for level, index, width, data in frontier.partials():
                files[tile_path(level, index, width)] = data
            if bundle:
                files[bundle_path(frontier.size // WIDTH, len(bundle))] = encode_bundle(bundle)
            # 2. Tiles, then the checkpoint that needs them, then a journal without them.
            for path, data in files.items():
                write_durably(self.root / path, data)
            head = self._head(frontier)
            note = str(sign_checkpoint(head, self._key)).encode()
            write_durably(self.root / "checkpoint", note)
            new_journal(self.root / "journal", frontier.size)
            self._frontier, self._bundle = frontier, bundle
            self._reopen_journal()
            # 3. Partial files of tiles that are now full.
            for index in done:
                self._drop_partials(index)
            return head

    def _drop_partials(self, index: int) -> None:
        for path in (tile_path(0, index), bundle_path(index)):
            folder = self.root / f"{path}.p"
            # They are in nobody's way: the tree is published, and an error would deny it.
            with suppress(OSError):
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()

    # ---- state ---------------------------------------------------------------------------

    def _open_journal(self) -> JournalFile:
        if self._journal is None:
            self._journal = JournalFile(self.root / "journal")
        return self._journal

    def _reopen_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._open_journal()

    def _head(self, frontier: Frontier | None = None) -> Checkpoint:
        """Return the head of a tree; None: of the one that this process wrote or read last."""
        tree = self._frontier if frontier is None else frontier
        return Checkpoint(self.keys.origin, tree.size, tree.root())

    def _pending(self) -> list[bytes]:
        journal = self._open_journal()
        return journal.entries[self._frontier.size - journal.base :]

    def _catch_up(self) -> None:
        """Read what other processes, or a life before a crash, have left."""
        if self._synced and self._journal is not None and self._journal.is_current():
            return
        self._reopen_journal()
        journal = self._open_journal()
        journal.discard_tail()
        head = self._fitting_head(journal.base, journal.base + len(journal.entries))
        reader = TileReader(self._source, head)
        self._frontier = Frontier.of(reader)
        self._bundle = reader.bundle(head.size // WIDTH) if head.size % WIDTH else []
        if self._check is not None:
            for entry in self._pending():
                self._check(entry)
        self._synced = True

    def close(self) -> None:
        """Release the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


class _Waiting:
    """One caller's entries in the group commit's queue."""

    def __init__(self, entries: list[bytes]) -> None:
        self.entries = entries
        self.done = False
        self.first = 0
        self.woken = threading.Event()
        self.error: LogError | None = None
