"""What runs, who runs it, and what is said about it."""

from enum import StrEnum

import msgspec

from safehold.errors import EndpointError


class EndpointPolicyError(EndpointError):
    """Correct the row of the software policy that the message names."""

    exit_status = 2


class InventoryError(EndpointError):
    """Make the inventory again, or find out who changed it."""


class CodeKind(StrEnum):
    """In which form code comes."""

    ELF = "elf"
    """A program that is executed."""
    LIBRARY = "library"
    """ELF that is opened: a shared library, or a program given to the loader."""
    SCRIPT = "script"
    """A text that is executed, or that an interpreter opens as code."""
    MODULE = "module"
    """A relocatable ELF: a kernel module."""
    INLINE = "inline"
    """Code that an interpreter takes from its arguments, a pipe or a terminal: no file."""


FILES = (CodeKind.ELF, CodeKind.LIBRARY, CodeKind.SCRIPT, CodeKind.MODULE)


class ExecSubject(msgspec.Struct, frozen=True):
    """Who runs it: user id, the program that asks (an absolute path), its cgroup's path.

    For an exec, and for inline code, that is the program that executes, not what it becomes.
    """

    uid: int
    exe: str
    unit: str = ""


class Target(msgspec.Struct, frozen=True):
    """What is to run. For `INLINE`, path and digest are the interpreter's.

    `owned`: root alone can change the file and every folder above it. `package` and `signers`
    come from verified inventories, by digest.
    """

    kind: CodeKind
    path: str
    sha256: str = ""
    owned: bool = False
    package: str = ""
    signers: frozenset[str] = frozenset()


class Ask(msgspec.Struct, frozen=True):
    """One question: may this subject run this?"""

    subject: ExecSubject
    target: Target


class Allowed(msgspec.Struct, frozen=True):
    """It may run; `row` allows it."""

    row: str


class ExecRefused(msgspec.Struct, frozen=True):
    """It may not; `row` denies it, or no row allows it and `row` is empty."""

    row: str
    reason: str


Verdict = Allowed | ExecRefused


class EndpointRecordError(EndpointError):
    """Look at the file of refusals: it can't be read or written."""


class GuardState(msgspec.Struct):
    """What a worker counts since it started."""

    asked: int = 0
    refused: int = 0
    hashed: int = 0
    round: float = 0.0
    marks: int = 0
    unmarked: tuple[str, ...] = ()
    lost: int = 0
