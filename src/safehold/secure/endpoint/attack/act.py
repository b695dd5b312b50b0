"""What an attacker's own code does with an allowed interpreter: `act.py WHAT ARGUMENTS`.

Standard library only. It is on the list of what may run: the attack is what it does then.
"""

# ruff: noqa: PLR2004, T201 - an attacker's program, standard library only

import base64
import ctypes
import mmap
import os
import subprocess
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_AT_EMPTY_PATH, _AT_FDCWD = 0x1000, -100
_EXECVEAT, _IO_URING_SETUP, _IO_URING_ENTER = 322, 425, 426
_RW, _RX, _RWX = 3, 5, 7


def _call(address: int) -> None:
    """Run the code at an address; it returns 42."""
    if ctypes.CFUNCTYPE(ctypes.c_int)(address)() == 42:
        print("RAN", flush=True)


def _map(handle: int, protection: int, flags: int = mmap.MAP_PRIVATE) -> int:
    found = _libc.mmap(None, 4096, protection, flags, handle, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return int(found)


def _load(path: str) -> bytes:
    """Return what a text file encodes: as text it is no program that anybody could refuse."""
    with open(path, "rb") as file:
        return base64.b64decode(file.read())


def memfd(program: str) -> None:
    """Execute a program out of memory that has no name."""
    data = _load(program)
    handle = os.memfd_create("x", 0)
    os.write(handle, data)
    os.execve(handle, ["x"], {})


def otmpfile(folder: str, program: str) -> None:
    """Execute a file that was never linked into a folder."""
    data = _load(program)
    writer = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o755)
    os.write(writer, data)
    reader = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY)
    os.close(writer)
    os.execve(reader, ["x"], {})


def procfd(program: str) -> None:
    """Execute by the name that /proc gives to a descriptor."""
    handle = os.open(program, os.O_PATH)
    os.set_inheritable(handle, True)
    os.execv(f"/proc/self/fd/{handle}", ["x"])


def opath(program: str) -> None:
    """Execute a descriptor that was only looked up."""
    handle = os.open(program, os.O_PATH)
    arguments = (ctypes.c_char_p * 2)(b"x", None)
    _libc.syscall(_EXECVEAT, handle, b"", arguments, None, _AT_EMPTY_PATH)


def deleted(program: str) -> None:
    """Execute a file after its name is gone."""
    handle = os.open(program, os.O_PATH)
    os.unlink(program)
    arguments = (ctypes.c_char_p * 2)(b"x", None)
    _libc.syscall(_EXECVEAT, handle, b"", arguments, None, _AT_EMPTY_PATH)


def mapped(data: str) -> None:
    """Map a data file as code."""
    _call(_map(os.open(data, os.O_RDONLY), _RX))


def protected(data: str) -> None:
    """Map a data file, then make it code."""
    address = _map(os.open(data, os.O_RDONLY), 1)
    if _libc.mprotect(ctypes.c_void_p(address), 4096, _RX) == 0:
        _call(address)


def anonymous(data: str) -> None:
    """Write code into memory that is writable and executable."""
    with open(data, "rb") as file:
        code = file.read(4096)
    address = _map(-1, _RWX, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ctypes.memmove(address, code, len(code))
    _call(address)


def twice_mapped(data: str) -> None:
    """Write code through one mapping of a nameless file and run it through another."""
    with open(data, "rb") as file:
        code = file.read(4096)
    handle = os.memfd_create("x", 0)
    os.ftruncate(handle, 4096)
    writable = _map(handle, _RW, mmap.MAP_SHARED)
    executable = _map(handle, _RX, mmap.MAP_SHARED)
    ctypes.memmove(writable, code, len(code))
    _call(executable)


def uring(data: str) -> None:
    """Open a data file by io_uring, then map it as code."""
    parameters = (ctypes.c_uint32 * 30)()
    ring = _libc.syscall(_IO_URING_SETUP, 4, parameters)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    entries, offsets = parameters[0], parameters[10:20]
    queue = mmap.mmap(ring, offsets[6] + entries * 4, mmap.MAP_SHARED, _RW, offset=0)
    requests = mmap.mmap(ring, entries * 64, mmap.MAP_SHARED, _RW, offset=0x10000000)
    name = ctypes.create_string_buffer(os.fsencode(data))
    request = bytearray(64)
    request[0] = 18  # IORING_OP_OPENAT
    request[4:8] = _AT_FDCWD.to_bytes(4, "little", signed=True)
    request[16:24] = ctypes.addressof(name).to_bytes(8, "little")
    requests[0:64] = bytes(request)
    queue[offsets[6] : offsets[6] + 4] = bytes(4)
    queue[offsets[1] : offsets[1] + 4] = (1).to_bytes(4, "little")
    _libc.syscall(_IO_URING_ENTER, ring, 1, 1, 1, None, 0)
    done = parameters[20:30]
    answers = mmap.mmap(ring, done[5] + entries * 2 * 16, mmap.MAP_SHARED, _RW, offset=0x8000000)
    handle = int.from_bytes(answers[done[5] + 8 : done[5] + 12], "little", signed=True)
    _call(_map(handle, _RX))


def stored(program: str, other: str) -> None:
    """Rewrite a program through a shared mapping, which moves no change time on tmpfs."""
    data = _load(other)
    subprocess.run([program], check=False)
    with open(program, "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
        mapping[: len(data)] = data
        mapping.close()
    os.execv(program, ["x"])


def kept_open(program: str, other: str) -> None:
    """Keep a writer open over the check, and swap the content after it (a script)."""
    data = _load(other)
    writer = os.open(program, os.O_RDWR)
    os.pwrite(writer, data, 0)
    subprocess.run(["/bin/sh", program], check=False)


ACTS = {
    one.__name__: one
    for one in (
        memfd, otmpfile, procfd, opath, deleted, mapped, protected, anonymous, twice_mapped,
        uring, stored, kept_open,
    )
}  # fmt: skip

if __name__ == "__main__":
    ACTS[sys.argv[1]](*sys.argv[2:])
