"""The meter's view of the kernel's questions: every read of some files, or every open.

`FAN_PRE_ACCESS` (Linux 6.14, file systems that allow it: ext4, XFS, Btrfs) reports offset and
length of each read before it happens; `FAN_OPEN_PERM` is older and reports only the open.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from safehold.errors import WeightsError
from safehold.secure.fanotify.group import Group, Question
from safehold.secure.fanotify.interface import Asked, FanotifyError, GroupClass, Scope
from safehold.secure.weights.meter.budget import Active, Read


class MeterError(WeightsError):
    """Look at the kernel, the file system or the privileges: reads can't be metered."""


class AccessEvent:
    """One question of the kernel about one read; exactly one answer is owed."""

    def __init__(self, question: Question, read: Read) -> None:
        self.read = read
        self._question = question

    def answer(self, *, allow: bool, detailed: bool) -> None:
        """Let the access go on or refuse it (`EDQUOT`, where the kernel can say so)."""
        self._question.answer(allow=allow, refusal=errno.EDQUOT if detailed else 0)


class FanotifyGroup:
    """A fanotify group that is asked about the given files.

    When the last descriptor of the group closes, the kernel allows everything. A holder keeps
    one (`safehold.secure.fanotify.hold`); what it guards is ciphertext all the same.
    """

    def __init__(self, files: Sequence[Path], active: Active) -> None:
        """Mark the files.

        Raises:
            MeterError: not root, no such kernel feature, or not on this file system.
        """
        if not files:
            raise MeterError("expected at least one file to meter, got none")
        self.active = active
        detailed = active is Active.PRE_ACCESS
        self._names = {_identity(path.stat()): path.name for path in files}
        try:
            self.group = Group(GroupClass.PRE_CONTENT if detailed else GroupClass.CONTENT)
        except FanotifyError as error:
            raise MeterError(str(error)) from error
        for path in files:
            try:
                asked = Asked.PRE_ACCESS if detailed else Asked.OPEN
                self.group.mark(os.fsencode(path), asked, Scope.FILE)
            except FanotifyError as error:
                self.group.close()
                raise MeterError(f"{active.value} on {path.name}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.group.close()

    def events(self, timeout_s: float) -> Iterator[AccessEvent]:
        """Yield the questions that are waiting, after at most `timeout_s` seconds."""
        for question in self.group.questions(timeout_s):
            event = question.event
            found = os.fstat(event.handle)
            left = found.st_size - event.offset
            # A reader may ask for more than there is; only what is there can be read.
            count = max(0, min(event.count or found.st_size, left))
            name = self._names.get(_identity(found), "unknown")
            yield AccessEvent(question, Read(name, event.pid, event.offset, count))


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def open_gate(files: Sequence[Path]) -> FanotifyGroup:
    """Return the finest gate that this kernel and file system have.

    Raises:
        MeterError: none at all.
    """
    try:
        return FanotifyGroup(files, Active.PRE_ACCESS)
    except MeterError:
        return FanotifyGroup(files, Active.OPEN)
