"""Load the BPF LSM program through libbpf, pin it, and keep its keys true.

Its links are pinned in bpffs: whoever kills the loader changes nothing. Without the loader a file
that changed is not judged anew, so it is refused.
"""

import ctypes
import errno
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from safehold.errors import DependencyError, EndpointError
from safehold.secure.endpoint.lsm.keys import FileKeys

OBJECT = Path(__file__).with_name("allow.bpf.o")
OBJECT_SHA256 = "61139ef199ac60d9130d578344dfc586d5ff628a2458cd00d6a472a43af99fbc"
"""What `scripts/bpf-object` printed: another object is not loaded."""
STOP_SHA256 = hashlib.sha256(b"lsm-stop").hexdigest()
"""What a grant of `endpoint.loosen` names that takes the program out of force."""
PINS = Path("/sys/fs/bpf/safehold")
OFF, AUDIT, ENFORCE = 0, 1, 2
_HOOKS = ("on_exec", "on_map", "on_protect")
_MAPS = ("allowed", "configured", "missed", "counted")
_SETTINGS = struct.Struct("<IIQ")
_MISS = struct.Struct("<IIQQ16s")
_ONE = struct.pack("<I", 1)
_ZERO = struct.pack("<I", 0)
_HOOK_NAMES = ("exec", "map", "protect")
_ROUND_MS = 500
_Sample = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class LsmError(EndpointError):
    """Look at the kernel: `bpf` must stand in `lsm=`, and loading must be allowed."""


class LsmMiss(msgspec.Struct, frozen=True):
    """One refusal: by which hook, which file (0: memory without one), which program."""

    hook: str
    device: int
    inode: int
    pid: int
    name: str


class LsmState(msgspec.Struct, frozen=True):
    """What the program in force says: mode, keys of the last round, asked and refused."""

    mode: int
    asked: int
    refused: int


def checked_object(file: Path = OBJECT) -> bytes:
    """Return the path of the object, after its digest.

    Raises:
        LsmError: it is another one.
    """
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != OBJECT_SHA256:
        raise LsmError(f"{file.name}: expected {OBJECT_SHA256[:16]}, got {found[:16]}")
    return os.fsencode(file)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise DependencyError("libbpf is missing: apt-get install libbpf1") from error
    pointers = (
        "bpf_object__open_file", "bpf_object__find_program_by_name",
        "bpf_object__find_map_by_name", "bpf_program__attach_lsm", "ring_buffer__new",
    )  # fmt: skip
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    return library


class LsmProgram:
    """The program in this kernel, not yet refusing anything: `configure` puts it into force.

    Raises:
        DependencyError: there is no libbpf.
        LsmError: the kernel takes no such program, or the object is another one.
    """

    def __init__(self, missed: Callable[[LsmMiss], None] = lambda _: None) -> None:
        path = checked_object()
        self._bpf = _library()
        self._told = missed
        # Made now: it may need executable memory, which the program will refuse.
        self._sample = _Sample(self._take)
        self._object = self._bpf.bpf_object__open_file(path, None)
        if not self._object or self._bpf.bpf_object__load(ctypes.c_void_p(self._object)) != 0:
            raise LsmError(f"the kernel does not take the program: {_reason()}")
        self._maps = {name: self._map(name) for name in _MAPS}
        self._links = []
        for name in _HOOKS:
            hook = self._bpf.bpf_object__find_program_by_name(
                ctypes.c_void_p(self._object), name.encode()
            )
            link = self._bpf.bpf_program__attach_lsm(ctypes.c_void_p(hook))
            if not link:
                raise LsmError(f"{name} is not attached: {_reason()}; is bpf in lsm=?")
            self._links.append(link)
        self._ring = self._bpf.ring_buffer__new(self._maps["missed"], self._sample, None, None)
        if not self._ring:
            raise LsmError(f"no ring of refusals: {_reason()}")

    def _map(self, name: str) -> int:
        found = self._bpf.bpf_object__find_map_by_name(ctypes.c_void_p(self._object), name.encode())
        return int(self._bpf.bpf_map__fd(ctypes.c_void_p(found)))

    def _take(self, context: int, data: int, size: int) -> int:
        del context
        if size >= _MISS.size:
            pid, hook, device, inode, name = _MISS.unpack(ctypes.string_at(data, _MISS.size))
            text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
            self._told(LsmMiss(_HOOK_NAMES[hook % 3], device, inode, pid, text))
        return 0

    def configure(self, mode: int, *, nameless: bool = True, cgroup: Path | None = None) -> None:
        """Put it into force for the host, or for one cgroup of the first level (version 2).

        `nameless` refuses memory without a file that is made executable, as W^X does.
        """
        number = cgroup.stat().st_ino if cgroup is not None else 0
        self._put("configured", _ZERO, _SETTINGS.pack(mode, nameless, number))

    def update(self, keys: FileKeys) -> int:
        """Bring the map to what the files are now; return how many keys were new."""
        fresh, void = keys.refresh()
        for key in void:
            self._bpf.bpf_map_delete_elem(self._maps["allowed"], key)
        for key in fresh:
            self._put("allowed", key, _ONE)
        return len(fresh)

    def _put(self, name: str, key: bytes, value: bytes) -> None:
        if self._bpf.bpf_map_update_elem(self._maps[name], key, value, ctypes.c_uint64(0)) != 0:
            raise LsmError(f"the kernel takes no entry of {name}: {_reason()}")

    def pin(self, folder: Path = PINS) -> None:
        """Keep program and maps in force without this process, until the pins are removed.

        Raises:
            LsmError: there are pins already, or no bpffs.
        """
        _mount_bpffs(folder.parent)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise LsmError(f"can't make {folder}: {error.strerror}; is it in force?") from error
        for name, link in zip(_HOOKS, self._links, strict=True):
            if self._bpf.bpf_link__pin(ctypes.c_void_p(link), os.fsencode(folder / name)) != 0:
                raise LsmError(f"{name} can't be pinned: {_reason()}")
        for name in ("configured", "counted"):
            if self._bpf.bpf_obj_pin(self._maps[name], os.fsencode(folder / f"{name}_map")) != 0:
                raise LsmError(f"{name} can't be pinned: {_reason()}")

    def poll(self, timeout_ms: int = _ROUND_MS) -> int:
        """Take refusals for at most so long; return how many came."""
        came: int = self._bpf.ring_buffer__poll(ctypes.c_void_p(self._ring), timeout_ms)
        return max(came, 0)


def state(folder: Path = PINS) -> LsmState:
    """Return what the pinned program says of itself.

    Raises:
        LsmError: nothing is pinned there, or not all of it.
    """
    missing = [name for name in (*_HOOKS, "configured_map") if not (folder / name).exists()]
    if missing:
        raise LsmError(f"not in force: {', '.join(missing)} is not in {folder}")
    bpf = _library()

    def read(name: str, key: bytes, size: int) -> bytes:
        handle = bpf.bpf_obj_get(os.fsencode(folder / f"{name}_map"))
        if handle < 0:
            raise LsmError(f"can't read {name}: {_reason()}")
        value = ctypes.create_string_buffer(size)
        try:
            if bpf.bpf_map_lookup_elem(handle, key, value) != 0:
                raise LsmError(f"can't read {name}: {_reason()}")
        finally:
            os.close(handle)
        return value.raw

    mode, _, _ = _SETTINGS.unpack(read("configured", _ZERO, _SETTINGS.size))
    asked, refused = (
        int.from_bytes(read("counted", struct.pack("<I", which), 8), "little") for which in (0, 1)
    )
    return LsmState(mode, asked, refused)


def remove(folder: Path = PINS) -> None:
    """Take the pins away: when the loader has ended too, everything runs again. A weakening.

    Raises:
        LsmError: a pin can't be removed.
    """
    try:
        for pin in sorted(folder.iterdir()):
            pin.unlink()
        folder.rmdir()
    except OSError as error:
        raise LsmError(f"can't remove {folder}: {error.strerror}") from error


def _mount_bpffs(folder: Path) -> None:
    if folder.is_dir() and not os.path.ismount(folder):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=False)


def _reason() -> str:
    number = ctypes.get_errno()
    return os.strerror(number or errno.EINVAL)
