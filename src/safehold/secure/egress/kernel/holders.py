"""Who could send past the IP stack: holders of packet, raw and XDP sockets, and of capabilities.

Packet and raw sockets are listed by the kernel in /proc/net; an AF_XDP socket (and a ring of a
packet socket) shows as a socket that a process has mapped into its memory, which is the only way
to send by it.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from safehold.secure.egress.kernel.netns import inside

_BITS = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN", 39: "CAP_BPF"}
_INODE_COLUMN = {"packet": 8, "raw": 9, "raw6": 9}


class SocketHolder(msgspec.Struct, frozen=True):
    """A process that could send past the rules: the sockets it holds and the rights it has."""

    pid: int
    name: str
    program: str
    sockets: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()

    def words(self) -> str:
        """Say it in one line."""
        return f"{self.name} ({self.program or 'no program'}, process {self.pid})"


def holders(netns: str | None = None, proc: Path = Path("/proc")) -> tuple[SocketHolder, ...]:
    """List the holders in a network namespace, by process; kernel threads hold nothing.

    A process of another namespace counts when it holds a socket that was made in this one.
    """
    with inside(netns):
        number = Path("/proc/thread-self/ns/net").stat().st_ino
        listed = _listed(Path("/proc/thread-self/net"))
    found = []
    for folder in sorted(proc.iterdir(), key=lambda one: one.name):
        if folder.name.isdigit():
            try:
                holder = _holder(folder, listed, number)
            except OSError:
                # The process ended while we looked.
                continue
            if holder is not None:
                found.append(holder)
    return tuple(found)


def _listed(folder: Path) -> dict[int, str]:
    """Socket numbers of this namespace to their kind."""
    found: dict[int, str] = {}
    for kind, column in _INODE_COLUMN.items():
        path = folder / kind
        if path.exists():
            for line in path.read_text().splitlines()[1:]:
                found[int(line.split()[column])] = kind.rstrip("6")
    return found


def _holder(folder: Path, listed: dict[int, str], number: int) -> SocketHolder | None:
    here = (folder / "ns" / "net").stat().st_ino == number
    kinds = {listed[inode] for inode in _open(folder) if inode in listed}
    if here and any(inode not in listed for inode in _mapped(folder)):
        kinds.add("xdp")
    rights = _rights(folder) if here else ()
    if not kinds and not rights:
        return None
    try:
        program = str((folder / "exe").readlink())
    except OSError:
        return None
    name = (folder / "comm").read_text(errors="replace").strip()
    return SocketHolder(int(folder.name), name, program, tuple(sorted(kinds)), rights)


def _open(folder: Path) -> Iterator[int]:
    for link in (folder / "fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])


def _mapped(folder: Path) -> Iterator[int]:
    for line in (folder / "maps").read_text(errors="replace").splitlines():
        _, sign, rest = line.partition("socket:[")
        if sign:
            yield int(rest.partition("]")[0])


def _rights(folder: Path) -> tuple[str, ...]:
    for line in (folder / "status").read_text(errors="replace").splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return tuple(name for bit, name in _BITS.items() if held >> bit & 1)
    return ()
