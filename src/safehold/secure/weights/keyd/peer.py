"""Who is at the other end of the socket, by the kernel's word and by measurement."""

import hashlib
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.secure.weights.keyd.interface import KeydError

_SO_PEERPIDFD = 77  # asm-generic/socket.h, Linux 6.5
_UCRED = struct.Struct("iII")
_BLOCK = 2**20


class Peer(msgspec.Struct, frozen=True):
    """The process that connected: SO_PEERCRED, and the digest of what it runs."""

    pid: int
    uid: int
    gid: int
    workload_sha256: str

    @property
    def words(self) -> str:
        """One line for the log."""
        return f"uid {self.uid} pid {self.pid} workload {self.workload_sha256[:16]}"


@contextmanager
def peer_of(connection: socket.socket, code: Sequence[Path]) -> Iterator[Peer]:
    """Yield who connected, measured while its process is held so that its number can't be reused.

    Args:
        connection: An accepted Unix connection.
        code: The folders whose content is part of the workload.

    Raises:
        KeydError: it can't be measured, or it ended meanwhile.
    """
    # 1. The kernel says who connected, and gives a handle on that very process.
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    try:
        process = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        process = _open_process(pid)
    try:
        # 2. What it runs.
        digest = workload_sha256(Path(f"/proc/{pid}/exe"), code)
        # 3. It is still the same process: its number can't have been given to another.
        if select.select([process], [], [], 0)[0]:
            raise KeydError("the loader ended while it was measured")
        yield Peer(pid=pid, uid=uid, gid=gid, workload_sha256=digest)
    finally:
        os.close(process)


def _open_process(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise KeydError("the loader ended before it was measured") from error


def workload_sha256(exe: Path, code: Sequence[Path]) -> str:
    """Return the digest that a request names as its workload: a program and its code folders.

    It proves which interpreter and which installed code the host has, not every byte that the
    process executes: see the documentation for what an attacker inside the process can do.

    Raises:
        KeydError: something can't be read.
    """
    try:
        program = _file_sha256(exe)
    except PermissionError as error:
        raise KeydError("can't measure the loader: keyd needs CAP_SYS_PTRACE") from error
    except OSError as error:
        raise KeydError(f"can't measure the loader: {error.strerror}") from error
    return sha256_hex(
        b"safehold-workload/1\0"
        + canonical({"code": [tree_sha256(root) for root in code], "exe": program})
    )


def tree_sha256(root: Path) -> str:
    """Return the digest of every file below a folder, byte-code caches aside.

    Raises:
        KeydError: a file can't be read, or there is none.
    """
    try:
        rows = [
            [path.relative_to(root).as_posix(), _file_sha256(path)]
            for path in sorted(root.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
    except OSError as error:
        raise KeydError(f"can't measure {root.name}: {error.strerror}") from error
    if not rows:
        raise KeydError(f"can't measure {root.name}: no file there")
    return sha256_hex(canonical(rows))


def check_code(code: Sequence[Path], loaders: Sequence[int]) -> None:
    """Refuse code folders that a loader's user could change.

    Raises:
        KeydError: a file is writable by others, or belongs to a loader that is not root.
    """
    for root in code:
        for path in (root, *root.rglob("*")):
            found = path.lstat()
            foreign = found.st_uid != 0 and found.st_uid in loaders
            if foreign or (not path.is_symlink() and found.st_mode & 0o002):
                raise KeydError(f"code of {root.name}: {path.name} can be changed by loaders")


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
