"""A fanotify group by ctypes: marks, questions, answers.

A daemon that answers must open no file on a marked mount: it would wait for itself. What it
needs to know it reads from the event's own descriptor and from `/proc`, which is never marked.
"""

import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from safehold.secure.fanotify.interface import Asked, FanotifyError, GroupClass, Scope
from safehold.secure.fanotify.wire import METADATA, OVERFLOW, Event, events, response

_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE, _UNLIMITED_MARKS = 0x1, 0x2, 0x10, 0x20
_ADD, _REMOVE, _FLUSH = 0x1, 0x2, 0x80
# An evictable mark lets the kernel forget the file, and is forgotten with it (Linux 5.19).
_IGNORED, _EVICTABLE = 0x20, 0x200
_AT_FDCWD = -100
_O_LARGEFILE = 0o100000
# Each event read takes a descriptor; a read that runs out of them is refused by the kernel.
_BATCH = 32 * (METADATA.size + 40)
HANDLES = 4096
"""Descriptors a worker may hold at once: so many unanswered questions a successor can end."""


class Question:
    """One question of the kernel; exactly one answer is owed."""

    __slots__ = ("_group", "event")

    def __init__(self, group: int, event: Event) -> None:
        self.event = event
        self._group = group

    def answer(self, *, allow: bool, refusal: int = 0) -> None:
        """Let it go on or refuse it; then the event's descriptor is closed."""
        try:
            os.write(self._group, response(self.event.handle, allow=allow, refusal=refusal))
        except FileNotFoundError:
            pass  # whoever asked was killed meanwhile
        finally:
            os.close(self.event.handle)


class Group:
    """The kernel's questions about what is marked.

    When the last descriptor of the group closes, the kernel allows everything. So a second
    process keeps one (`safehold.secure.fanotify.hold`).
    """

    def __init__(self, kind: GroupClass = GroupClass.CONTENT) -> None:
        """Make an empty group.

        Raises:
            FanotifyError: not root, or no such kernel feature.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.fanotify_mark.argtypes = [
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_char_p,
        ]
        self.kind = kind
        self.overflows = 0
        self.unread = 0
        """Questions that the kernel refused by itself because they could not be handed over."""
        self.handle: int = self._libc.fanotify_init(
            kind | _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE | _UNLIMITED_MARKS,
            os.O_RDONLY | os.O_CLOEXEC | _O_LARGEFILE,
        )
        if self.handle < 0:
            raise FanotifyError(f"fanotify: {_reason()}; it needs CAP_SYS_ADMIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up this descriptor; when it was the last, the kernel allows everything."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def mark(self, path: bytes, asked: Asked, scope: Scope) -> None:
        """Be asked about what `path` stands for. The path is looked up, never opened.

        Raises:
            FanotifyError: the kernel refused, with its reason.
        """
        if self._mark(_ADD, path, asked, scope) < 0:
            raise FanotifyError(f"fanotify: {asked!r} on {scope.name}: {_reason()}")

    def unmark(self, path: bytes, asked: Asked, scope: Scope) -> None:
        """Be asked no longer.

        Raises:
            FanotifyError: there is no such mark.
        """
        if self._mark(_REMOVE, path, asked, scope) < 0:
            raise FanotifyError(f"fanotify: no {asked!r} on {scope.name}: {_reason()}")

    def ignore(self, handle: int, asked: Asked) -> None:
        """Be asked no longer about an open file, until it is written or leaves memory.

        A store through a mapping is no writing here: never ignore the opening itself.

        Raises:
            FanotifyError: the kernel refused: it is older than 5.19.
        """
        if self._file(_ADD | _IGNORED | _EVICTABLE, handle, asked) < 0:
            raise FanotifyError(f"fanotify: {asked!r} ignored: {_reason()}")

    def heed(self, handle: int, asked: Asked) -> None:
        """Be asked again about an open file.

        Raises:
            FanotifyError: it was not ignored.
        """
        if self._file(_REMOVE | _IGNORED, handle, asked) < 0:
            raise FanotifyError(f"fanotify: {asked!r} was not ignored: {_reason()}")

    def flush_files(self) -> None:
        """Drop every mark on a single file; those on mounts and file systems stay.

        Raises:
            FanotifyError: the group is closed.
        """
        if self._libc.fanotify_mark(self.handle, _FLUSH, 0, _AT_FDCWD, b"/proc") < 0:
            raise FanotifyError(f"fanotify: flush: {_reason()}")

    def _file(self, how: int, handle: int, asked: Asked) -> int:
        done: int = self._libc.fanotify_mark(self.handle, how, int(asked), handle, None)
        return done

    def _mark(self, how: int, path: bytes, asked: Asked, scope: Scope) -> int:
        done: int = self._libc.fanotify_mark(self.handle, how | scope, int(asked), _AT_FDCWD, path)
        return done

    def marks(self) -> int:
        """Return how many marks the kernel holds for this group, read back from it.

        A mark that asks about nothing (`ignore`) is not counted.
        """
        handle = os.open(f"/proc/self/fdinfo/{self.handle}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = b""
            while part := os.read(handle, 1 << 16):
                text += part
        finally:
            os.close(handle)
        rows = text.splitlines()
        marks = [row for row in rows if row.startswith(b"fanotify ") and b" mask:" in row]
        return sum(1 for row in marks if b" mask:0 " not in row)

    def questions(self, timeout_s: float) -> Iterator[Question]:
        """Yield what is waiting, after at most `timeout_s` seconds. Each must be answered."""
        if timeout_s and not select.select([self.handle], [], [], timeout_s)[0]:
            return
        try:
            data = os.read(self.handle, _BATCH)
        except BlockingIOError:
            return
        except OSError:
            # The kernel could not open the file for us and has refused the access itself.
            self.unread += 1
            return
        for event in events(data):
            if event.mask & OVERFLOW or event.handle < 0:
                self.overflows += 1
                continue
            yield Question(self.handle, event)

    def deny_unanswered(self) -> int:
        """Refuse every question that a dead reader took and did not answer; return how many.

        The kernel knows a question by the number that its descriptor had in the reader. The new
        reader, before its first read, refuses all numbers that there can be.
        """
        ended = 0
        for handle in range(HANDLES):
            try:
                os.write(self.handle, response(handle, allow=False))
                ended += 1
            except FileNotFoundError:
                continue
        return ended


def prepare_reader() -> None:
    """Make this process fit to answer: bounded descriptors, and no death by a lease's signal.

    Whoever opens a file for writing while it is hashed breaks the lease; the kernel then sends
    SIGIO, which would end a process that does not ignore it.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = HANDLES if hard == resource.RLIM_INFINITY else min(hard, HANDLES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class WriterError(FanotifyError):
    """Somebody has the file open for writing, or mapped for it: what is hashed may change."""


@contextmanager
def read_lease(handle: int) -> Iterator[None]:
    """Hold a read lease: the kernel gives it only while no writer and no writable mapping is.

    Raises:
        WriterError: there is one.
        FanotifyError: the file system gives no leases.
    """
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError as error:
        raise WriterError("expected a file without writers, got one that is open") from error
    except OSError as error:
        raise FanotifyError(f"expected a lease, got {os.strerror(error.errno or 0)}") from error
    try:
        yield
    finally:
        try:
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            if error.errno != errno.EAGAIN:  # broken meanwhile: the writer waited long enough
                raise


def _reason() -> str:
    return os.strerror(ctypes.get_errno())
