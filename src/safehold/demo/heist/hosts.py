"""What runs inside the namespaces: a listener that notes who comes, and the thief's connections.

    python -m safehold.demo.heist.hosts listen PORT NOTES REAL
    python -m safehold.demo.heist.hosts connect ADDRESS PORT TEXT

A listener answers `ok` when the text is REAL (or REAL is `-`), and notes every visit with its time.
"""

import json
import socket
import sys
import time
from pathlib import Path

_TIMEOUT_S = 1.5


def listen(port: int, notes: Path, real: str) -> None:
    """Accept for ever."""
    with socket.create_server(("0.0.0.0", port)) as server:  # noqa: S104 - inside a namespace of its own
        notes.touch()
        while True:
            peer, address = server.accept()
            with peer:
                peer.settimeout(_TIMEOUT_S)
                try:
                    said = peer.recv(200).decode("utf-8", "replace")
                    peer.sendall(b"ok" if real in {"-", said} else b"no")
                except OSError:
                    said = ""
            with notes.open("a") as file:
                file.write(json.dumps({"time": time.time(), "from": address[0], "said": said}))
                file.write("\n")


def connect(address: str, port: int, text: str) -> bool:
    """Return whether the other side answered `ok`."""
    try:
        with socket.create_connection((address, port), timeout=_TIMEOUT_S) as to:
            to.sendall(text.encode())
            return to.recv(10) == b"ok"
    except OSError:
        return False


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    sys.exit(0 if connect(sys.argv[2], int(sys.argv[3]), sys.argv[4]) else 1)
