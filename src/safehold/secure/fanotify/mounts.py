"""Mounts: read the kernel's table, mark what can hold a program, mark what is mounted later."""

import ctypes
import os
import re
import select
import struct
import time
from collections.abc import Iterator

import msgspec

from safehold.secure.fanotify.group import Group
from safehold.secure.fanotify.interface import Asked, FanotifyError, Scope

# They hold no file that a process wrote; marking `/proc` would make the daemon wait for itself.
PSEUDO = frozenset(
    {
        "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
        "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs",
        "selinuxfs", "sysfs", "tracefs",
    }
)  # fmt: skip
# Where a store through a shared mapping moves no change time, so that no verdict may be kept.
UNDATED = frozenset({"tmpfs", "devtmpfs", "ramfs", "hugetlbfs", "fuse", "fuseblk", "overlay"})
_OCTAL = re.compile(r"\\([0-7]{3})")
_MAX_NAMESPACES = 256
_SILENT_S = 30.0
_FIELDS_BEFORE, _FIELDS_AFTER = 6, 2


_EMPTY_PATH, _MOUNT_NUMBER, _STATX_BYTES = 0x1000, 0x1000, 256
_STATX = struct.Struct("<I140xQ")
"""The mask of what is given, and at 144 the mount's number (statx(2), since Linux 5.8)."""
_statx = ctypes.PyDLL(None).statx
_statx.argtypes = [
    ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p,
]  # fmt: skip


def mount_of(handle: int) -> int:
    """Return the number of the mount on which an open file lies; -1 where the kernel can't say."""
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx(handle, b"", _EMPTY_PATH, _MOUNT_NUMBER, found):
        return -1
    given, number = _STATX.unpack_from(found)
    return int(number) if given & _MOUNT_NUMBER else -1


class Mount(msgspec.Struct, frozen=True):
    """One row of `mountinfo` (proc(5)); `point` as its reader's root sees it."""

    number: int
    device: str
    point: str
    kind: str
    options: tuple[str, ...]
    data: tuple[str, ...] = ()
    """Options of the file system itself: the layers of an overlay."""


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Return the rows.

    Raises:
        FanotifyError: a row is not as proc(5) says.
    """
    found = []
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        first, last = left.split(" "), right.split(" ")
        if (
            not dash
            or len(first) < _FIELDS_BEFORE
            or len(last) < _FIELDS_AFTER
            or not first[0].isdigit()
        ):
            raise FanotifyError("expected a row of mountinfo, got something else")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), first[4])
        data = tuple(last[2].split(",")) if len(last) > _FIELDS_AFTER else ()
        options = tuple(first[5].split(","))
        found.append(Mount(int(first[0]), first[2], point, last[0], options, data))
    return tuple(found)


def markable(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Return the mounts that can hold a program."""
    return tuple(one for one in mounts if one.kind not in PSEUDO)


def hidden_overlays(pid: int) -> frozenset[str]:
    """Return the devices of overlays whose layers this process can't reach, as in a container.

    An overlay's file is opened on its layer too, and there the kernel asks. So an overlay whose
    layers are marked must not be: the kernel would ask again while it hands us the first question,
    and we would wait for ourselves (measured). Only what no layer covers is marked itself.
    """
    table = MountTable(pid)
    try:
        return frozenset(
            mount.device
            for mount in table.read()
            if mount.kind == "overlay" and not _reaches_layers(mount)
        )
    finally:
        table.close()


def _reaches_layers(overlay: Mount) -> bool:
    layers: list[str] = []
    for option in overlay.data:
        name, _, value = option.partition("=")
        if name in {"lowerdir", "lowerdir+", "datadir+", "upperdir"}:
            layers += [part for part in value.split(":") if part]
    for layer in layers:
        try:
            found = os.stat(layer).st_dev
        except OSError:
            return False
        if f"{os.major(found)}:{os.minor(found)}" == overlay.device:
            return False
    return bool(layers)


class MountTable:
    """The mounts of one process's namespace, kept open: the kernel wakes us at each change."""

    def __init__(self, pid: int) -> None:
        """Open the table.

        Raises:
            OSError: the process is gone.
        """
        self.last_s = time.monotonic()
        self.handle = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The process may be gone when something is mounted; its root is not.
            self.root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            os.close(self.handle)
            raise

    def read(self) -> tuple[Mount, ...]:
        """Return what is mounted now."""
        os.lseek(self.handle, 0, os.SEEK_SET)
        parts = []
        while part := os.read(self.handle, 1 << 16):
            parts.append(part)
        return parse_mountinfo(b"".join(parts).decode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Let the namespace go."""
        os.close(self.handle)
        os.close(self.root)


class MountWatch:
    """Marks every file system that any known namespace mounts, at once.

    A namespace becomes known with the first program that runs in it. What is mounted is marked
    when the kernel reports the change, and in any case before the next answer.
    """

    def __init__(
        self,
        group: Group,
        asked: Asked,
        *,
        scope: Scope = Scope.FILESYSTEM,
        leave: frozenset[str] = frozenset(),
        overlays: frozenset[str] = frozenset(),
        layers: bool = True,
    ) -> None:
        """Watch nothing yet.

        Args:
            group: Takes the marks.
            asked: What to be asked about.
            scope: What to mark of each mount; a mount alone where the kernel refuses more.
            leave: Devices (`major:minor`) that are never marked: a trial leaves the machine alone.
            overlays: What `hidden_overlays` said: only these overlays are marked themselves.
            layers: What `layers_are_asked` said; if False every overlay is marked itself.
        """
        self._group = group
        self._asked = asked
        self._scope = scope
        self._tables: dict[tuple[str, int, int], MountTable] = {}
        self._leave = leave
        self._overlays = overlays
        self._layers = layers
        self._poll = select.poll()
        self._poll.register(group.handle, select.POLLIN)
        self.unmarked: dict[str, str] = {}
        """Mounts that the kernel refused to mark, with its reason."""
        self.kinds: dict[int, str] = {}
        """File system by mount number (`mnt_id` of a descriptor)."""
        self._owners: dict[int, MountTable] = {}
        """The known namespace of each mount that there is now."""
        self.changes = 0
        """How often a known table changed or a namespace became known."""
        self.processes: set[int] = set()
        """Devices of every mounted `proc`: what lies there is another thing for each reader."""

    def meet(self, pid: int) -> bool:
        """Know the namespace of a process; return whether it was new."""
        try:
            # The link's text names the namespace, at half the price of looking behind it.
            space = os.readlink(f"/proc/{pid}/ns/mnt")
            root = os.stat(f"/proc/{pid}/root")
            key = (space, root.st_dev, root.st_ino)
            known = self._tables.get(key)
            if known is not None:
                known.last_s = time.monotonic()
                return False
            table = MountTable(pid)
        except OSError:
            return False  # gone: nothing of it runs
        if len(self._tables) >= _MAX_NAMESPACES:
            self.forget_ended()
        self._tables[key] = table
        self._poll.register(table.handle, select.POLLPRI)
        self._mark(table)
        return True

    def knows(self, handle: int) -> bool:
        """Tell whether an open file lies on a mount of a namespace that is known.

        Call `changed` first: a mount's number is given again when it is gone.
        """
        table = self._owners.get(mount_of(handle))
        if table is None:
            return False
        table.last_s = time.monotonic()
        return True

    def wait(self, timeout_s: float, looks: int = 0) -> bool:
        """Return as soon as there is a question, or something was mounted; that is marked.

        `looks` times it looks without sleeping first; the answer is whether that brought it.
        """
        for _ in range(looks):
            found = self._poll.poll(0)
            if found:
                self._take(found)
                return True
        self._take(self._poll.poll(timeout_s * 1000))
        return False

    def changed(self) -> None:
        """Mark what was mounted since the last call; costs one system call when nothing was."""
        self._take(self._poll.poll(0))

    def _take(self, found: list[tuple[int, int]]) -> None:
        ready = [handle for handle, _ in found if handle != self._group.handle]
        if ready:
            for table in list(self._tables.values()):
                if table.handle in ready:
                    self._mark(table)

    def forget_ended(self) -> None:
        """Let go namespaces in which nothing ran for a while: they would stay mounted for us.

        If something does run there later, it is met again, with what was mounted meanwhile.
        """
        own = os.readlink("/proc/self/ns/mnt")
        for key, table in list(self._tables.items()):
            if key[0] != own and time.monotonic() - table.last_s > _SILENT_S:
                self._poll.unregister(table.handle)
                self._disown(table)
                table.close()
                del self._tables[key]

    def close(self) -> None:
        """Let every namespace go."""
        for table in self._tables.values():
            table.close()
        self._tables.clear()

    def _disown(self, table: MountTable) -> None:
        for number in [number for number, owner in self._owners.items() if owner is table]:
            del self._owners[number]

    def _mark(self, table: MountTable) -> None:
        self.changes += 1
        self._disown(table)
        try:
            found = table.read()
        except OSError:
            return  # its namespace ended
        self._owners.update((mount.number, table) for mount in found)
        for mount in found:
            if mount.kind == "proc":
                major, minor = mount.device.split(":")
                self.processes.add(os.makedev(int(major), int(minor)))
        for mount in markable(found):
            self.kinds[mount.number] = mount.kind
            layered = mount.kind == "overlay" and self._layers
            covered = layered and mount.device not in self._overlays
            if covered or mount.device in self._leave:
                continue
            # Also what was marked: a number is given again when its file system is gone.
            path = f"/proc/self/fd/{table.root}{mount.point}".encode("utf-8", "surrogateescape")
            try:
                _cover(self._group, path, self._asked, self._scope)
            except FanotifyError as error:
                self.unmarked[mount.point] = str(error)
            else:
                self.unmarked.pop(mount.point, None)


def _cover(group: Group, path: bytes, asked: Asked, scope: Scope) -> None:
    try:
        group.mark(path, asked, scope)
    except FanotifyError:
        if scope is not Scope.FILESYSTEM:
            raise
        group.mark(path, asked, Scope.MOUNT)


def watched(tables: MountWatch) -> Iterator[str]:
    """Yield what could not be marked, as one line each."""
    for point, reason in sorted(tables.unmarked.items()):
        yield f"{point}: {reason}"
