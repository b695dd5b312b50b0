"""What the gateway's tests say on a raw socket."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

Start = Callable[..., Any]
"""The fixture that starts a stage."""
PATHS = ["/v1/chat/completions", "/v1/messages", "/v1/responses"]


def body_for(path: str, text: str, *, stream: bool = True) -> dict:
    """Return a request of the path's protocol."""
    if path == "/v1/responses":
        return {"model": "m", "input": text, "stream": stream}
    given = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
    return given | ({"max_tokens": 99} if path == "/v1/messages" else {})


def raw(port: int, data: bytes, *, wait_s: float = 60.0) -> bytes:
    """Send bytes and return everything that comes until the gateway closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read(sock)


def read(sock: socket.socket) -> bytes:
    """Return what comes until the end of the connection."""
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            got += part
    return bytes(got)


def post(
    port: int,
    path: str,
    body: bytes,
    extra: str = "",
    kind: str = "application/json",
    method: str = "POST",
) -> tuple[int, bytes, bytes]:
    """Post a body and return (status, headers, body)."""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n{extra}\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        with contextlib.suppress(ConnectionError):  # refused before all of it was read
            sock.sendall(head.encode() + body)
        got = read(sock)
    top, _, rest = got.partition(b"\r\n\r\n")
    status = int(top.split(b" ")[1]) if top else 0
    if b"transfer-encoding: chunked" in top.lower():
        rest = unchunked(rest)
    return status, top.lower(), rest


def unchunked(data: bytes) -> bytes:
    """Return the content of a chunked body, as far as it came."""
    out = bytearray()
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        out += data[:count]
        data = data[count + 2 :]
        if count == 0:
            break
    return bytes(out)


def ending(path: str, body: bytes) -> str:
    """Name how a stream ended: `done`, `error`, or `cut` if it has no valid end."""
    if path == "/v1/chat/completions":
        if not body.endswith(b"data: [DONE]\n\n"):
            return "cut"
        return "error" if b'data: {"error"' in body else "done"
    if path == "/v1/messages":
        if b"event: error" in body:
            return "error"
        return "done" if b"event: message_stop" in body else "cut"
    if b"event: response.failed" in body:
        return "error"
    return "done" if b"event: response.completed" in body else "cut"
