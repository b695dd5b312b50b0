"""What a guard knows of files: digests, what everybody was just allowed, which are interpreters.

All of it is of one worker; a file is known by device, inode, size and times.
"""

import os
import time
from collections.abc import Callable, Mapping

from safehold.secure.endpoint.facts import Key, digest, is_owned, key_of
from safehold.secure.endpoint.interface import CodeKind, Target
from safehold.secure.endpoint.inventory.book import InventoryBook
from safehold.secure.endpoint.invocation import Language, language_of
from safehold.secure.endpoint.policy import EndpointPolicy, Mode, PolicyRow
from safehold.secure.fanotify.interface import FanotifyError
from safehold.secure.fanotify.mounts import UNDATED

_KEPT = 100_000
_OWNED_S = 2.0
_FRESH_NS = 100_000_000
"""A change within the clock's grain of the last one may leave the change time as it was."""


class KnownFiles:
    """The tables of one worker.

    Args:
        policy: What it says of who may execute what decides what may be kept.
        catalogue: What the policy's inventories say of digests.
        interpreters: Digests of known interpreters: under another name they are still ones.
    """

    def __init__(
        self,
        policy: EndpointPolicy,
        catalogue: InventoryBook,
        interpreters: dict[str, Language],
    ) -> None:
        self._policy = policy
        self._catalogue = catalogue
        self.interpreters = interpreters
        rows: tuple[PolicyRow, ...] = (*policy.allow, *policy.deny)
        # Forms in which it matters who asks; for the others it is looked up for a refusal only.
        self._personal = frozenset(
            kind for row in rows if row.uids or row.exes or row.units for kind in row.kinds
        )
        self._allowed: dict[tuple[Key, CodeKind], float] = {}
        self.digests: dict[Key, str] = {}
        self.programs: dict[Key, Language | None] = {}
        self._owned: dict[str, tuple[float, bool]] = {}

    def forget_other_devices(self, root: int) -> None:
        """Know only files of the device `root`: another number may be another file system's now."""
        for key in [key for key in list(self.digests) if key[0] != root]:
            self.digests.pop(key, None)
        for row in [row for row in list(self._allowed) if row[0][0] != root]:
            self._allowed.pop(row, None)

    def hashed(self, handle: int, key: Key, is_dated: Callable[[int], bool]) -> str:
        """Return a file's digest, and know it from now on where `is_dated` says it may be.

        Raises:
            FanotifyError: It changed while it was read.
            OSError: It can't be read.
        """
        sha256 = digest(handle)
        after = os.fstat(handle)
        if key_of(after) != key:
            raise FanotifyError("expected a file that stays as it is, got one that changed")
        settled = time.time_ns() - after.st_ctime_ns > _FRESH_NS
        if settled and is_dated(handle):
            if len(self.digests) > _KEPT:
                self.digests.clear()
            self.digests[key] = sha256
        return sha256

    def keep(self, key: Key, kind: CodeKind, sha256: str) -> bool:
        """Keep for a moment what was allowed to everybody; tell whether it was: not who asks."""
        plain = (
            kind in {CodeKind.ELF, CodeKind.LIBRARY}
            and kind not in self._personal
            and sha256 not in self.interpreters
            and self._policy.mode is Mode.ENFORCE
            and key in self.digests
        )
        if plain:
            if len(self._allowed) > _KEPT:
                self._allowed.clear()
            self._allowed[key, kind] = time.monotonic()
        return plain

    def lately(self, key: Key, kind: CodeKind) -> bool:
        """Tell whether this very content was allowed to everybody a moment ago."""
        return time.monotonic() - self._allowed.get((key, kind), -_OWNED_S) < _OWNED_S

    def note_program(self, key: Key, path: str, sha256: str) -> Language | None:
        """Know which interpreter a program is, if it is one; return its language."""
        if len(self.programs) > _KEPT:
            self.programs.clear()
        language = self.interpreters.get(sha256) or language_of(path)
        self.programs[key] = language
        if language is not None:
            self.digests.setdefault(key, sha256)
        return language

    def target(self, kind: CodeKind, path: str, sha256: str) -> Target:
        """Return what rows are asked about: a file of this digest, in this form, at this path."""
        return Target(
            kind,
            path,
            sha256,
            self.is_owned(path),
            self._catalogue.package(sha256),
            self._catalogue.vouching(sha256),
        )

    def is_owned(self, path: str) -> bool:
        """Tell whether nobody but root could have put a file there, looked at lately."""
        if not path:
            return False
        now = time.monotonic()
        known = self._owned.get(path)
        if known is None or now - known[0] > _OWNED_S:
            if len(self._owned) > _KEPT:
                self._owned.clear()
            known = (now, is_owned(path))
            self._owned[path] = known
        return known[1]


def is_dated(handle: int, kinds: Mapping[int, str], *, overlays: bool) -> bool:
    """Tell whether every change of an open file moves its change time.

    `kinds` are file systems' names by mount; `overlays`: overlays' are trusted with that.
    """
    kind = kinds.get(_mount_number(handle), "")
    if kind == "overlay":
        return overlays
    return kind != "" and kind not in UNDATED


def _mount_number(handle: int) -> int:
    info = os.open(f"/proc/self/fdinfo/{handle}", os.O_RDONLY)
    try:
        text = os.read(info, 512)
    finally:
        os.close(info)
    for row in text.splitlines():
        if row.startswith(b"mnt_id:"):
            return int(row[7:])
    return -1
