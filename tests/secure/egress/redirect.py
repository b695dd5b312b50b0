"""Root's redirects by eBPF: `redirect.py WAY DEVICE TARGET`, run inside the enclave's namespace.

The program sends every packet that it meets on to the device TARGET, and is made by hand of four
instructions. WAY is `tcx` (attached without a filter) or `filter` (a filter of traffic control).
"""

import ctypes
import os
import platform
import socket
import struct
import sys

from pyroute2 import IPRoute

way, device, target = sys.argv[1:]
LIBC = ctypes.CDLL(None, use_errno=True)
NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, PROG_ATTACH = 5, 8
SCHED_CLS, TCX_INGRESS = 3, 46
REDIRECT = 23


def bpf(command: int, attributes: bytes) -> int:
    """Ask the kernel."""
    held = ctypes.create_string_buffer(attributes.ljust(144, b"\0"))
    answer = int(LIBC.syscall(NUMBER, command, held, 144))
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def load() -> int:
    """Load the program; return its descriptor."""
    index = socket.if_nametoindex(target)
    code = b"".join(
        struct.pack("BBhi", *one)
        for one in (
            (0xB7, 0x01, 0, index),  # r1 = TARGET
            (0xB7, 0x02, 0, 0),  # r2 = 0: by its egress
            (0x85, 0x00, 0, REDIRECT),
            (0x95, 0x00, 0, 0),
        )
    )
    words = ctypes.create_string_buffer(code)
    license_ = ctypes.create_string_buffer(b"GPL")
    head = struct.pack("IIQQ", SCHED_CLS, 4, ctypes.addressof(words), ctypes.addressof(license_))
    return bpf(PROG_LOAD, head)


def attach(program: int) -> None:
    """Attach it to what comes in by DEVICE."""
    index = socket.if_nametoindex(device)
    if way == "tcx":
        bpf(PROG_ATTACH, struct.pack("IIII", index, program, TCX_INGRESS, 0))
        return
    with IPRoute() as links:
        links.tc("add", "clsact", index)
        links.tc(
            "add-filter",
            "bpf",
            index,
            ":1",
            fd=program,
            name="on",
            parent="ffff:fff2",
            classid=1,
            direct_action=True,
        )


attach(load())
