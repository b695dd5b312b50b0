"""A port that is held is one server's, and nobody else's."""

import contextlib
import socket
import struct

import pytest

from safehold.testing.ports import held_port

IP_LOCAL_PORT_RANGE = 51  # Linux 6.3, not named by Python yet


def test_a_held_port_is_given_to_nobody() -> None:
    """Who may be given this one port alone is given none, to listen or to connect from."""
    with held_port() as port, socket.create_server(("127.0.0.1", 0)) as other:
        alone = struct.pack("=I", port << 16 | port)
        for listens in (True, False):
            with socket.socket() as one, contextlib.ExitStack() as refused:
                with contextlib.suppress(OSError):  # an older kernel may give any other
                    one.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, alone)
                    refused.enter_context(pytest.raises(OSError, match=r"in use|assign"))
                if listens:
                    one.bind(("127.0.0.1", 0))
                else:
                    one.connect(other.getsockname())
                assert one.getsockname()[1] != port


def test_a_held_port_refuses_until_its_server_listens() -> None:
    """Nobody answers before; the server that is told the port does."""
    with held_port() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):
            socket.create_connection(("127.0.0.1", port)).close()
