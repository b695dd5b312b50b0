"""Who is at the other end of the socket, by the kernel's word and by measurement."""

import hashlib
import os
import select
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.secure.weights.keyd.interface import CREDENTIALS, KeydError

_SO_PEERPIDFD = 77  # asm-generic/socket.h, Linux 6.5
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


class Image(msgspec.Struct, frozen=True):
    """What tells one program in one process from whatever it becomes: `execve` changes it.

    `started` is when the process began, `program` the file it runs, `stack` where its first stack
    begins: the kernel draws that anew for each program (proc_pid_stat(5), fields 22 and 28).
    """

    started: int
    stack: int
    program: tuple[int, int, int, int]

    @classmethod
    def of(cls, pid: int) -> "Image":
        """Read it.

        Raises:
            KeydError: the process ended, or keyd may not look at it.
        """
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            file = Path(f"/proc/{pid}/exe").stat()
        except PermissionError as error:
            raise KeydError("can't measure the loader: keyd needs CAP_SYS_PTRACE") from error
        except (OSError, UnicodeDecodeError) as error:
            raise KeydError("the loader ended while it was measured") from error
        program = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)
        return cls(started=int(fields[19]), stack=int(fields[25]), program=program)


@contextmanager
def peer_of(
    connection: socket.socket, code: Sequence[Path]
) -> Iterator[tuple[Peer, Callable[[], None]]]:
    """Yield who connected, and a check that it is still the same program with the same code.

    Args:
        connection: An accepted Unix connection.
        code: The folders whose content is part of the workload.

    Raises:
        KeydError: it can't be measured, it ended, or it became another program meanwhile. The
            check raises it too.
    """
    # 1. The kernel says who connected, and gives a handle on that very process.
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, gid = CREDENTIALS.unpack(raw)
    try:
        process = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        process = _open_process(pid)
    try:
        # 2. What it runs.
        before = Image.of(pid)
        digest = workload_sha256(Path(f"/proc/{pid}/exe"), code)

        def check() -> None:
            # 3. The same process (its number can't have been given to another), the same program
            # in it (no exec in between), and the same bytes on disk.
            if select.select([process], [], [], 0)[0]:
                raise KeydError("the loader ended while it was measured")
            if Image.of(pid) != before:
                raise KeydError("the loader became another program while it was measured")
            if workload_sha256(Path(f"/proc/{pid}/exe"), code) != digest:
                raise KeydError("the loader's code changed while it was measured")

        if Image.of(pid) != before or select.select([process], [], [], 0)[0]:
            raise KeydError("the loader became another program while it was measured")
        yield Peer(pid=pid, uid=uid, gid=gid, workload_sha256=digest), check
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
    """Return the digest of every file below a folder.

    Raises:
        KeydError: a file can't be read, there is none, or there is what Python would run instead
            of the measured source (a byte-code cache) or what leads out of the folder (a link).
    """
    try:
        paths = sorted(root.rglob("*"))
        for path in paths:
            if path.name == "__pycache__" or path.suffix in {".pyc", ".pyo"}:
                raise KeydError(
                    f"code of {root.name}: expected no byte-code cache, got "
                    f"{path.relative_to(root)}: remove it, and run loaders with "
                    "PYTHONDONTWRITEBYTECODE=1"
                )
            if path.is_symlink():
                raise KeydError(f"code of {root.name}: expected no link, got {path.name}")
        rows = [
            [path.relative_to(root).as_posix(), _file_sha256(path)]
            for path in paths
            if path.is_file()
        ]
    except OSError as error:
        raise KeydError(f"can't measure {root.name}: {error.strerror}") from error
    if not rows:
        raise KeydError(f"can't measure {root.name}: no file there")
    return sha256_hex(canonical(rows))


def check_code(code: Sequence[Path], loaders: Sequence[int]) -> None:
    """Refuse code folders that a loader's user, or a group, could change.

    Raises:
        KeydError: a file or a folder above it is writable by a group or by others, or belongs to
            a loader that is not root.
    """
    for root in code:
        for path in (root, *root.rglob("*"), *root.absolute().parents):
            found = path.lstat()
            foreign = found.st_uid != 0 and found.st_uid in loaders
            # In a sticky folder (/tmp) nobody renames what is another's.
            shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
            if foreign or (shared and not path.is_symlink()):
                raise KeydError(
                    f"code of {root.name}: {path.name or '/'} can be changed by loaders: expected "
                    "an owner who is no loader, and no write bit for group and others"
                )


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
