"""Facts of what runs: programs, their rights, and the marks that they hold."""

from contextlib import suppress

import msgspec

from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.interface import AbsentError, HostError

_MAX_PROCESSES = 5000


class Process(msgspec.Struct, frozen=True):
    """A running program; capabilities as a bit mask."""

    pid: int
    uid: int
    exe: str
    command: str
    seccomp: int = 0
    no_new_privs: bool = False
    capabilities: int = 0
    fanotify_marks: int = 0
    namespaces: str = ""


class Processes(msgspec.Struct, frozen=True):
    """Everything that runs; kernel threads are left out."""

    running: tuple[Process, ...]

    def named(self, words: str) -> tuple[Process, ...]:
        """Return the processes whose command line holds these words."""
        return tuple(one for one in self.running if words in one.command)


def processes(host: ControlledHost) -> Processes:
    """Walk /proc; a process that ends meanwhile is none, and neither is who looks."""
    found = []
    numbers = [one for one in host.names("/proc") if one.isdigit() and int(one) != host.pid]
    for name in numbers[:_MAX_PROCESSES]:
        with suppress(AbsentError):
            command = (
                host.read(f"/proc/{name}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace")
            )
            if command.strip():
                found.append(_process(host, int(name), command.strip()))
    if not found:
        raise HostError("/proc shows no process")
    return Processes(tuple(found))


def _process(host: ControlledHost, pid: int, command: str) -> Process:
    lines = host.read(f"/proc/{pid}/status").decode("utf-8", "replace").splitlines()
    said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return Process(
        pid=pid,
        uid=int(said["Uid"].split()[0]),
        exe=_exe(host, pid),
        command=command,
        seccomp=int(said.get("Seccomp", "0")),
        no_new_privs=said.get("NoNewPrivs", "0").strip() == "1",
        capabilities=int(said.get("CapEff", "0"), 16),
        fanotify_marks=_marks(host, pid) if "safehold" in command else 0,
    )


def _exe(host: ControlledHost, pid: int) -> str:
    """Return the program's file; empty where another's process does not show it."""
    try:
        return host.link(f"/proc/{pid}/exe")
    except AbsentError:
        raise
    except HostError:
        return ""


def _marks(host: ControlledHost, pid: int) -> int:
    marks = 0
    for name in host.names(f"/proc/{pid}/fdinfo"):
        with suppress(AbsentError):
            marks += host.read(f"/proc/{pid}/fdinfo/{name}").count(b"fanotify ino:")
            marks += host.read(f"/proc/{pid}/fdinfo/{name}").count(b"fanotify sdev:")
            marks += host.read(f"/proc/{pid}/fdinfo/{name}").count(b"fanotify mnt_id:")
    return marks
