"""Programs that nobody allowed: made here byte by byte, so that no compiler is needed.

Each one writes RAN, and nothing else. x86-64.
"""

import platform
import struct

from safehold.errors import DependencyError

_PAGE = 0x1000
_WRITE_RAN = (
    b"\xb8\x01\x00\x00\x00"  # mov eax, 1 (write)
    b"\xbf\x01\x00\x00\x00"  # mov edi, 1
    b"\x48\x8d\x35%s"  # lea rsi, [rip + text]
    b"\xba\x04\x00\x00\x00"  # mov edx, 4
    b"\x0f\x05"  # syscall
)
_EXIT = b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05"  # exit(0)
_RETURN = b"\xc3"
CODE = b"\xb8\x2a\x00\x00\x00\xc3" + b"\x90" * (_PAGE - 6)
"""A page of code that returns 42."""


def require_machine() -> None:
    """Refuse another processor.

    Raises:
        DependencyError: it is not x86-64.
    """
    if platform.machine() != "x86_64":
        raise DependencyError(f"the attacks need an x86-64 machine, this is {platform.machine()}")


def _ran(end: bytes) -> bytes:
    # From behind the lea (17 bytes in) to the text behind all of the code.
    length = len(_WRITE_RAN) - 2 + 4 + len(end)
    return (_WRITE_RAN % struct.pack("<i", length - 17)) + end + b"RAN\n"


def _header(kind: int, entry: int, segments: int) -> bytes:
    identity = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    return identity + struct.pack(
        "<HHIQQQIHHHHHH", kind, 62, 1, entry, 64, 0, 0, 64, 56, segments, 64, 0, 0
    )


def _segment(kind: int, flags: int, offset: int, address: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, _PAGE)


def static_program() -> bytes:
    """Return a static program."""
    base, start = 0x400000, 64 + 56
    code = _ran(_EXIT)
    return _header(2, base + start, 1) + _segment(1, 5, 0, base, start + len(code)) + code


def library() -> bytes:
    """Return a shared library whose initializer writes RAN."""
    start = 64 + 3 * 56
    code = _ran(_RETURN)
    symbols = start + len(code)
    symbols += -symbols % 8
    strings = symbols + 24
    table = strings + 8
    hashes = struct.pack("<IIII", 1, 1, 0, 0)
    first = (code + b"\0" * (symbols - start - len(code)) + b"\0" * 24 + b"\0" * 8 + hashes).ljust(
        _PAGE - start, b"\0"
    )
    # INIT, HASH, STRTAB, SYMTAB, STRSZ, SYMENT, end
    tags = ((12, start), (4, table), (5, strings), (6, symbols), (10, 1), (11, 24), (0, 0))
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    head = (
        _header(3, 0, 3)
        + _segment(1, 5, 0, 0, _PAGE)
        + _segment(1, 6, _PAGE, _PAGE, len(dynamic))
        + _segment(2, 6, _PAGE, _PAGE, len(dynamic))
    )
    return head + first + dynamic
