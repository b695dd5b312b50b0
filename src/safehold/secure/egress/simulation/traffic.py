"""Synthetic senders and a receiver for drills and kernel tests, run inside network namespaces.

`python -m safehold.secure.egress.simulation.traffic receive` counts what truly arrives;
`send` tries to get synthetic bytes (zeros) out over one channel. Nothing here reads any file.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

_STEP = 1_200
_SO_MARK = 36
_SO_RCVBUFFORCE = 33
_BUFFER = 1 << 26
"""Room for all that a test sends: a receiver that gets no processor time loses nothing."""
_QUIET_S = 0.1
_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - inside a namespace


def receive(ports: list[int]) -> None:
    """Count payload bytes by channel; answer each line on stdin with the counts as JSON."""
    counts: Counter[str] = Counter()
    listeners = _listeners(ports)
    streams: dict[socket.socket, str] = {}
    _say("ready")
    while True:
        asked = sys.stdin in _gather(listeners, streams, counts)
        if asked:
            if not sys.stdin.readline():
                return
            # What was sent before the question is counted, whoever ran first.
            while _gather(listeners, streams, counts, _QUIET_S):
                pass
            _say(json.dumps(counts))


def _gather(
    listeners: dict[socket.socket, str],
    streams: dict[socket.socket, str],
    counts: Counter[str],
    patience_s: float | None = None,
) -> list[socket.socket | TextIO]:
    """Wait for something to come (or to be asked, without `patience_s`) and count it."""
    inputs: list[socket.socket | TextIO] = [*listeners, *streams]
    if patience_s is None:
        inputs.append(sys.stdin)
    ready = select.select(inputs, [], [], patience_s)[0]
    for source in ready:
        if not isinstance(source, socket.socket):
            continue
        if source in streams:
            _drain(source, streams, counts)
        else:
            _take(source, listeners[source], streams, counts)
    return ready


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _listeners(ports: list[int]) -> dict[socket.socket, str]:
    listeners: dict[socket.socket, str] = {}
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        for port in ports:
            for kind, name in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
                listeners[_listen(family, kind, port)] = f"{name}{version}:{port}"
        number = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
        listeners[socket.socket(family, socket.SOCK_RAW, number)] = f"icmp{version}"
    return listeners


def _take(
    source: socket.socket, name: str, streams: dict[socket.socket, str], counts: Counter[str]
) -> None:
    if source.type == socket.SOCK_STREAM:
        streams[source.accept()[0]] = name
    elif size := _datagram(source):
        counts[name] += size


def _drain(source: socket.socket, streams: dict[socket.socket, str], counts: Counter[str]) -> None:
    try:
        data = source.recv(1 << 20)
    except ConnectionError:
        data = b""
    if data:
        counts[streams[source]] += len(data)
    else:
        del streams[source]
        source.close()


def _datagram(source: socket.socket) -> int:
    data = source.recv(1 << 16)
    if source.type != socket.SOCK_RAW:
        return len(data)
    # An echo request: type 8 behind an IPv4 header, type 128 without an IPv6 one.
    if source.family == socket.AF_INET:
        return max(0, len(data) - 28) if data[20] == 8 else 0
    return max(0, len(data) - 8) if data[0] == 128 else 0


def _listen(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == socket.SOCK_DGRAM:
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((_ANY[family], port))
    if kind == socket.SOCK_STREAM:
        listener.listen(64)
    return listener


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def send_tcp(address: str, port: int, count: int, seconds: float) -> None:
    """Send over TCP until all is handed over or the time is up."""
    end = time.monotonic() + seconds
    with socket.socket(_family(address), socket.SOCK_STREAM) as out:
        out.settimeout(seconds)
        out.connect((address, port))
        left = count
        while left > 0 and time.monotonic() < end:
            out.settimeout(max(0.01, end - time.monotonic()))
            left -= out.send(bytes(min(left, 1 << 16)))
        # `close` waits until the other side has it all, or the time is up.
        rest = max(1, round(end - time.monotonic()))
        out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, rest))


def send_udp(address: str, port: int, count: int, seconds: float) -> None:
    """Send datagrams, keeping on when the filter answers with an error."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as out:
        _repeat(lambda data: out.sendto(data, (address, port)), count, seconds)


def send_icmp(address: str, _port: int, count: int, seconds: float) -> None:
    """Hide bytes in echo requests."""
    six = ":" in address
    number = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    with socket.socket(_family(address), socket.SOCK_RAW, number) as out:

        def echo(data: bytes) -> int:
            head = struct.pack(">BBHHH", 128 if six else 8, 0, 0, 1, 1)
            total = sum(struct.unpack(f">{len(head) // 2}H", head))
            head = struct.pack(">BBHHH", 128 if six else 8, 0, ~total & 0xFFFF, 1, 1)
            return out.sendto(head + data, (address, 0))

        _repeat(echo, count, seconds)


def send_dns(address: str, port: int, count: int, seconds: float) -> None:
    """Hide bytes in the names of DNS questions."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as out:

        def ask(data: bytes) -> int:
            labels = b"".join(b"\x3f" + b"a" * 63 for _ in range(3)) + b"\x04test\x00"
            out.sendto(
                struct.pack(">6H", 1, 256, 1, 0, 0, 0) + labels + b"\0\1\0\1", (address, port)
            )
            return len(data)

        _repeat(ask, count, seconds)


def send_raw(address: str, port: int, count: int, seconds: float) -> None:
    """Hand complete UDP frames to the device, past the IP stack's own filter hooks."""
    interface, mac = _neighbour(address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as out:
        out.bind((interface, 0x0800))
        out.setsockopt(socket.SOL_SOCKET, _SO_MARK, 1)
        source = out.getsockname()[4]

        def frame(data: bytes) -> int:
            udp = struct.pack(">HHHH", 4444, port, 8 + len(data), 0) + data
            own = socket.inet_aton(_own(address))
            head = struct.pack(
                ">BBHHHBBH4s4s",
                69,
                0,
                20 + len(udp),
                1,
                0,
                64,
                17,
                0,
                own,
                socket.inet_aton(address),
            )
            total = sum(struct.unpack(">10H", head))
            check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
            head = head[:10] + struct.pack(">H", check) + head[12:]
            return out.send(mac + source + b"\x08\x00" + head + udp)

        _repeat(frame, count, seconds)


def _own(address: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def _neighbour(address: str) -> tuple[str, bytes]:
    """The device and hardware address that lead to a neighbour, from the kernel's ARP table."""
    knock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with knock, contextlib.suppress(OSError):
        knock.sendto(b"", (address, 9))
    end = time.monotonic() + 2
    while time.monotonic() < end:
        with Path("/proc/net/arp").open(encoding="ascii") as table:
            for line in table:
                cells = line.split()
                if cells[0] == address and cells[2] != "0x0":
                    return cells[5], bytes.fromhex(cells[3].replace(":", ""))
        time.sleep(0.05)
    # Nobody answered (ARP may be filtered too): broadcast the frame.
    device = next(name for _, name in socket.if_nameindex() if name != "lo")
    return device, b"\xff" * 6


def _repeat(push: Callable[[bytes], int], count: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    left = count
    while left > 0 and time.monotonic() < end:
        size = min(left, _STEP)
        try:
            push(bytes(size))
        except PermissionError:
            pass  # the filter's answer to this one; the next may pass
        except OSError:  # no room, or no way yet
            time.sleep(0.001)
        left -= size


SENDERS: Mapping[str, Callable[[str, int, int, float], None]] = {
    "tcp": send_tcp,
    "udp": send_udp,
    "icmp": send_icmp,
    "dns": send_dns,
    "raw": send_raw,
}


def main(arguments: list[str]) -> int:
    """`receive PORT...` or `send CHANNEL ADDRESS PORT BYTES SECONDS [UID]`."""
    if arguments[0] == "receive":
        receive([int(port) for port in arguments[1:]])
        return 0
    _, channel, address, port, count, seconds, *uid = arguments
    if uid:
        os.setuid(int(uid[0]))
    try:
        SENDERS[channel](address, int(port), int(count), float(seconds))
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
