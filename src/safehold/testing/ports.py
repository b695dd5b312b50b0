"""A port of loopback that one server is to have, and that nobody else is given meanwhile."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """Give a free port, and hold it: it is bound, so the kernel gives it to nobody.

    A server that is told the port may listen there all the same, as it sets SO_REUSEADDR like
    every server. Until it does, a connection is refused.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
