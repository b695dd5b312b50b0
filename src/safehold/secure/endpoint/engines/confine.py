"""The floor of one process and its children, without PID 1: Landlock, seccomp, W^X.

Irrevocable, inherited, needs no daemon; it stays closed when a daemon dies.
"""

import ctypes
import os
import struct
from collections.abc import Sequence

from safehold.errors import EndpointError

_libc = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE = 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_MDWE = 38, 22, 65
_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_AUDIT_ARCH = {"x86_64": 0xC000003E}
_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

# x86-64 numbers. What they do has no place beside weights: nameless memory that runs, a second
# way to open files, mounts.
REFUSED: dict[str, int] = {
    "memfd_create": 319,
    "io_uring_setup": 425,
    "mount": 165,
    "move_mount": 429,
    "open_tree": 428,
    "fsopen": 430,
    "fsmount": 432,
    "pivot_root": 155,
    "userfaultfd": 323,
    "bpf": 321,
    "finit_module": 313,
    "init_module": 175,
    "kexec_load": 246,
    "ptrace": 101,
    "process_vm_writev": 311,
}
_CLONE, _UNSHARE, _CLONE3, _SETNS = 56, 272, 435, 308
_X32 = 0x40000000


class ConfineError(EndpointError):
    """Look at the kernel: it has no such floor, so the command was not started."""


def landlock(executable: Sequence[str]) -> None:
    """Let this process and its children execute below these folders only, for ever.

    Raises:
        ConfineError: the kernel has no Landlock, or none of the folders is there.
    """
    attributes = ctypes.create_string_buffer(struct.pack("<QQQ", _EXECUTE, 0, 0))
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, 8, 0)
    if ruleset < 0:
        raise ConfineError(f"Landlock: {os.strerror(ctypes.get_errno())}")
    added = 0
    for path in executable:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rule = ctypes.create_string_buffer(struct.pack("<Qi", _EXECUTE, handle))
        added += _libc.syscall(_ADD_RULE, ruleset, 1, rule, 0) == 0
        os.close(handle)
    no_new_privileges()
    done = _libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    if not added or done != 0:
        raise ConfineError("Landlock: expected at least one folder that may be executed")


def no_new_privileges() -> None:
    """Take the effect from set-uid programs."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise ConfineError(f"no_new_privs: {os.strerror(ctypes.get_errno())}")


def deny_write_execute() -> None:
    """Refuse memory that is, or becomes, executable after it was writable (Linux 6.3).

    Raises:
        ConfineError: the kernel is older.
    """
    if _libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0) != 0:
        raise ConfineError(f"memory-deny-write-execute: {os.strerror(ctypes.get_errno())}")


def filter_program() -> bytes:
    """Return the seccomp program: another architecture or x32 is refused as a whole."""
    rows: list[tuple[int, int, int, int]] = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, _AUDIT_ARCH["x86_64"]),
        (_RET, 0, 0, _ERRNO | _EPERM),
        (_LD, 0, 0, 0),
        (0x35, 0, 1, _X32),  # jump if greater or equal
        (_RET, 0, 0, _ERRNO | _EPERM),
    ]
    for number in (*REFUSED.values(), _SETNS):
        rows += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ERRNO | _EPERM)]
    # clone3 hides its flags in memory: glibc falls back to clone.
    rows += [(_JEQ, 0, 1, _CLONE3), (_RET, 0, 0, _ERRNO | _ENOSYS)]
    for number in (_CLONE, _UNSHARE):
        rows += [
            (_JEQ, 0, 4, number),
            (_LD, 0, 0, 16),
            (_JSET, 0, 1, _NEW_NAMESPACES),
            (_RET, 0, 0, _ERRNO | _EPERM),
            (_RET, 0, 0, _ALLOW),
        ]
    rows.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


def seccomp() -> None:
    """Refuse the calls of `REFUSED` and new namespaces, for ever.

    Raises:
        ConfineError: the kernel has no filters, or this is not x86-64.
    """
    if os.uname().machine not in _AUDIT_ARCH:
        raise ConfineError(f"expected x86-64, this is {os.uname().machine}")
    program = filter_program()
    rows = ctypes.create_string_buffer(program)
    head = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(rows))
    no_new_privileges()
    buffer = ctypes.create_string_buffer(head)
    _libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    done = _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(buffer), 0, 0)
    if done != 0:
        raise ConfineError(f"seccomp: {os.strerror(ctypes.get_errno())}")


def confine(executable: Sequence[str]) -> None:
    """Put the whole floor under this process.

    Raises:
        ConfineError: a part of it is missing here.
    """
    landlock(executable)
    deny_write_execute()
    seccomp()
