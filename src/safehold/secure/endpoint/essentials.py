"""What a host can't do without: a policy that would stop it is refused, with the row named."""

import datetime as dt
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.secure.endpoint.facts import digest, is_owned
from safehold.secure.endpoint.interface import (
    Ask,
    CodeKind,
    EndpointPolicyError,
    ExecRefused,
    ExecSubject,
    Target,
)
from safehold.secure.endpoint.inventory.book import InventoryBook
from safehold.secure.endpoint.policy import EndpointPolicy, decide
from safehold.secure.endpoint.records import Denial
from safehold.secure.fanotify.interface import FanotifyError

# By part: the guard itself is added at run time, with the libraries and modules it has loaded.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "the shell": ("/bin/sh", "/bin/bash"),
    "the boot": (
        "/sbin/init",
        "/lib/systemd/systemd-udevd",
        "/lib/systemd/systemd-journald",
        "/bin/mount",
        "/sbin/agetty",
        "/bin/login",
        "/usr/sbin/sshd",
    ),
}
LIBRARIES = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")


class Essential(msgspec.Struct, frozen=True):
    """One thing that must run, and for what."""

    part: str
    kind: CodeKind
    path: str


def essentials() -> Iterator[Essential]:
    """Yield what this host needs, by real paths: what the kernel will ask about."""
    for path in LIBRARIES:
        yield from _present("the loader", CodeKind.ELF, path)
        yield from _present("the loader", CodeKind.LIBRARY, path)
    for part, paths in PROGRAMS.items():
        for path in paths:
            yield from _present(part, CodeKind.ELF, path)
    yield from _present("the guard", CodeKind.ELF, sys.executable)
    for path in sorted(_mapped()):
        yield from _present("the guard", CodeKind.LIBRARY, path)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            yield from _present("the guard", CodeKind.SCRIPT, file)


def _present(part: str, kind: CodeKind, path: str) -> Iterator[Essential]:
    real = os.path.realpath(path)
    if Path(real).is_file():
        yield Essential(part, kind, real)


def _mapped() -> set[str]:
    with Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
        rows = [line.split(maxsplit=5) for line in maps]
    program = os.path.realpath(sys.executable)
    return {
        row[5].rstrip("\n")
        for row in rows
        if len(row) == len(["address", "perms", "offset", "dev", "inode", "path"])
        and "x" in row[1]
        and row[5].startswith("/")
        and os.path.realpath(row[5].rstrip("\n")) != program
    }


TargetOf = Callable[[Essential], Target]


def target_of(essential: Essential, catalogue: InventoryBook) -> Target:
    """Return the target as the guard will see it.

    Raises:
        PolicyError: the file can't be read.
    """
    try:
        handle = os.open(essential.path, os.O_RDONLY)
        try:
            sha256 = digest(handle)
        finally:
            os.close(handle)
    except (OSError, FanotifyError) as error:
        raise EndpointPolicyError(f"{essential.part} needs {essential.path}: {error}") from error
    return Target(
        essential.kind,
        essential.path,
        sha256,
        is_owned(essential.path),
        catalogue.package(sha256),
        catalogue.vouching(sha256),
    )


def needed_records(policy: EndpointPolicy, catalogue: InventoryBook) -> list[Denial]:
    """Return this host's essentials as if they had been seen, so that rows are suggested for them.

    What ran before the guard's first mark was never asked about: the guard's own parts above all.

    Raises:
        PolicyError: a file can't be read.
    """
    program = os.path.realpath(sys.executable)
    found = []
    for one in essentials():
        target = target_of(one, catalogue)
        found.append(
            Denial(
                time=0, count=1, mode=policy.mode, kind=one.kind, path=one.path,
                sha256=target.sha256, package=target.package, owned=target.owned, uid=0,
                exe=program, row="", reason=f"{one.part} needs it",
            )
        )  # fmt: skip
    return found


def stopped(
    policy: EndpointPolicy, needed: Iterator[Essential], target: TargetOf, today: dt.date
) -> list[str]:
    """Return what the policy would stop, one line each with the row named; empty: nothing."""
    lines = []
    root = ExecSubject(0, os.path.realpath(sys.executable), "")
    for one in needed:
        verdict = decide(policy, Ask(root, target(one)), today)
        if isinstance(verdict, ExecRefused):
            row = f"row {verdict.row}" if verdict.row else "no row"
            lines.append(f"{one.part} needs {one.path} ({one.kind}): {row}: {verdict.reason}")
    return lines


def require_essentials(policy: EndpointPolicy, catalogue: InventoryBook, today: dt.date) -> None:
    """Refuse a policy that would stop the guard, the shell or the boot.

    Raises:
        PolicyError: it would; the first row is named, and how many more there are.
    """
    lines = stopped(policy, essentials(), lambda one: target_of(one, catalogue), today)
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise EndpointPolicyError(f"this policy would stop {lines[0]}{more}")
