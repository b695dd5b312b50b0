"""A server that answers every connection with the same bytes: no gateway, whatever they are."""

import socket
import threading
from types import TracebackType
from typing import Self


class Answering:
    """Serves on a free loopback port while used as a context manager; `heard` is what came."""

    def __init__(self, answer: bytes) -> None:
        """Take the bytes that each connection gets before it is closed."""
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="answering", daemon=True)
        self.heard: list[bytes] = []

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    self.heard.append(connection.recv(65_536))
                    connection.sendall(self._answer)
                except OSError:
                    continue

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
