"""Programs whose exec question is left out, because opening them is asked about anyway.

The kernel asks twice about each program and loader: that it is executed, and that it is opened.
The second question can't be left out: it is where changed content is seen, and a store through a
mapping ends no mark. The first one can, for a file that everybody may execute and open as a
library: its opening is then judged for both.
"""

import msgspec

from safehold.secure.endpoint.facts import Key
from safehold.secure.fanotify.group import Group
from safehold.secure.fanotify.interface import Asked, FanotifyError

_MOST = 1024
Place = tuple[int, int]
"""Device and inode."""


class MutedFile(msgspec.Struct, frozen=True):
    """What was let go; whether the kernel opens a loader for it next, or it is one."""

    key: Key
    dynamic: bool
    loader: bool


class Mutes:
    """The files of one worker whose exec question is left out, and who is about to load one.

    The kernel drops the mark itself when the file is written or leaves memory. `on` is False where
    opening is not asked about: there nothing may be left out.
    """

    def __init__(self, group: Group, *, on: bool) -> None:
        self._group = group
        self._on = on
        self._files: dict[Place, MutedFile] = {}
        self.loading: dict[int, bool] = {}
        """Processes that execute a dynamic interpreter: their next opening is the loader's.

        False: an earlier worker saw the exec, so it is the loader's only if it has such a name.
        """

    def begin(self) -> None:
        """Forget what an earlier worker left out: call it before the first answer."""
        self._group.flush_files()

    def get(self, place: Place) -> MutedFile | None:
        """Return what is known of a file whose exec question may have been left out."""
        return self._files.get(place)

    def add(self, file: MutedFile, handle: int) -> None:
        """Leave out the exec question of an open file from now on, if the kernel can."""
        place = file.key[:2]
        if not self._on or (len(self._files) >= _MOST and place not in self._files):
            return
        # Known before the kernel knows: what is left out is never unknown here.
        self._files[place] = file
        try:
            self._group.ignore(handle, Asked.EXEC)
        except FanotifyError:
            self._on = False  # before Linux 5.19: such a mark would keep the file in memory

    def drop(self, place: Place, handle: int) -> bool:
        """Ask again; tell whether an exec may have gone unasked until now."""
        self._files.pop(place, None)
        try:
            self._group.heed(handle, Asked.EXEC)
        except FanotifyError:
            return False  # no such mark: who executed it was asked
        return True
