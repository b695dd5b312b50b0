"""A thief with CAP_NET_RAW alone: the frames are hand-made and carry the letter W only.

`thief.py MODE DEVICE SOURCE DESTINATION COUNT SMAC DMAC`; run inside the enclave's namespace.
"""

import ctypes
import mmap
import os
import socket
import struct
import sys
import time

mode, device, source, destination, count, smac, dmac = sys.argv[1:]
LIBC = ctypes.CDLL(None, use_errno=True)
SOL_XDP, RING, CHUNK = 283, 64, 2048
LOAD_MARK = 0xFFFFF000 + 20


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def frame() -> bytes:
    """One UDP datagram of 1,000 bytes, whole."""
    text = b"W" * 1000
    udp = struct.pack("!HHHH", 40000, 9000, 8 + len(text), 0) + text
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    macs = bytes.fromhex((dmac + smac).replace(":", ""))
    return macs + b"\x08\x00" + head + udp


def packets(mark: int | None = None) -> None:
    """Send by AF_PACKET, marked or not."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    link.bind((device, 0x800))
    if mark is not None:
        link.setsockopt(socket.SOL_SOCKET, 36, struct.pack("I", mark))
    for _ in range(int(count)):
        try:
            link.send(frame())
        except OSError:
            time.sleep(0.0001)


def filtered(*instructions: tuple[int, int, int, int]) -> socket.socket:
    """A tap on the device that a classic filter chooses for."""
    raw = b"".join(struct.pack("HBBI", *one) for one in instructions)
    held = ctypes.create_string_buffer(raw)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    program = struct.pack("HL", len(instructions), ctypes.addressof(held))
    tap.setsockopt(socket.SOL_SOCKET, 26, program)
    tap.bind((device, 3))
    tap.setblocking(False)
    return tap


def read_mark() -> int:
    """Read the mark of a permitted packet, one bit for each tap; then it is what every one has."""
    load, keep, drop = (0x20, 0, 0, LOAD_MARK), (0x06, 0, 0, 64), (0x06, 0, 0, 0)
    taps = [filtered(load, (0x45, 0, 1, 1 << bit), keep, drop) for bit in range(32)]
    os.write(1, b"listening\n")
    sys.stdin.readline()
    mark = 0
    for bit, tap in enumerate(taps):
        try:
            tap.recv(64)
            mark |= 1 << bit
        except BlockingIOError:
            pass
    return mark


def xdp() -> None:
    """Send by an AF_XDP socket in copy mode."""
    link = socket.socket(44, socket.SOCK_RAW, 0)
    memory = mmap.mmap(-1, RING * CHUNK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    link.setsockopt(SOL_XDP, 4, struct.pack("QQIIII", address, RING * CHUNK, CHUNK, 0, 0, 0))
    for option in (5, 6, 3):
        link.setsockopt(SOL_XDP, option, struct.pack("i", RING))
    offsets = struct.unpack("16Q", link.getsockopt(SOL_XDP, 1, 128))
    LIBC.mmap.restype = ctypes.c_void_p
    LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]

    def ring(page: int, where: tuple[int, ...], size: int) -> tuple[object, object, int]:
        found = LIBC.mmap(None, where[2] + RING * size, 3, 0x8001, link.fileno(), page)
        return (
            ctypes.c_uint32.from_address(found + where[0]),
            ctypes.c_uint32.from_address(found + where[1]),
            found + where[2],
        )

    made, _, slots = ring(0x80000000, offsets[4:8], 16)
    done, taken, _ = ring(0x180000000, offsets[12:16], 8)
    name = struct.pack("HHIII", 44, 2, socket.if_nametoindex(device), 0, 0)
    if LIBC.bind(link.fileno(), ctypes.create_string_buffer(name), len(name)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    one = frame()
    memory[0 : len(one)] = one
    for _ in range(int(count)):
        slot = made.value
        ctypes.memmove(slots + (slot % RING) * 16, struct.pack("QII", 0, len(one), 0), 16)
        made.value = slot + 1
        for _ in range(1000):
            LIBC.sendto(link.fileno(), None, 0, 0x40, None, 0)
            if taken.value != done.value:
                break
        taken.value = done.value


if mode == "packet":
    packets()
elif mode == "mark":
    found = read_mark()
    os.write(1, f"{found}\n".encode())
    packets(found)
elif mode == "xdp":
    xdp()
