"""Real Redis servers: one alone, on TCP and a Unix socket, or a pair with a sentinel."""

import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from safehold.testing.ports import held_port


class RealRedis:
    """One server without persistence; `stop` and `start` play a restart that forgets."""

    def __init__(self, folder: Path, *options: str, sentinel: bool = False) -> None:
        self._held = ExitStack()
        self.port = 0
        self.folder = folder
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """Its Unix socket."""
        return f"unix://{self.folder}/{self.port}.sock?db=0"

    def start(self) -> None:
        """Start, and wait until it listens."""
        program = shutil.which("redis-server")
        assert program, "redis-server is missing: run scripts/system-packages"
        command = [program]
        if self._sentinel:
            file = self.folder / f"{self.port}.conf"
            file.write_text("\n".join(self._options))
            command += [str(file), "--sentinel"]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        if not self._sentinel:
            command += ["--save", "", "--unixsocket", f"{self.folder}/{self.port}.sock"]
            command += self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError("redis-server did not start")

    def stop(self) -> None:
        """End it at once; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    def __enter__(self) -> Self:
        self.port = self._held.enter_context(held_port())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._held.close()
