"""Several workers on one socket: started, watched, replaced, reloaded and ended together.

Each worker hangs on a pipe: it ends when its supervisor dies, however that happens. A worker that
dies is replaced, ever later if it dies again and again; one whose event loop does not turn for a
minute is killed and replaced.
"""

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from safehold.errors import SafeholdError
from safehold.guard.gateway.operate import systemd
from safehold.guard.gateway.operate.worker_life import (
    LAST_RESORT_S,
    StartError,
    ignore_unknown_signals,
    tell_refusal,
    unknown_signals_wait,
)
from safehold.guard.gateway.policy import Settings

_log = logging.getLogger("safehold.gateway")
HANG_S = 60.0
"""How long the event loop of a worker may stand still."""
_TICK_S = 0.5
_MAX_BACKOFF_S = 10.0
_STEADY_S = 30.0

Spawn = Callable[[], tuple[BaseProcess, Connection]]


class _Worker:
    """One worker process, and what it last said."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe
        self.born = self.heard = time.monotonic()
        self.ready = False
        self.failure: StartError | None = None
        self.deaf = False

    def signal(self, number: int) -> None:
        if self.process.pid is not None and self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def listen(self) -> None:
        """Take what it said."""
        try:
            while self.pipe.poll():
                word, detail = self.pipe.recv()
                self.heard = time.monotonic()
                self.ready = self.ready or word == "ready"
                if word == "failed":
                    self.failure = StartError(*detail)
        except (EOFError, OSError):
            self.deaf = True

    def bury(self) -> None:
        self.process.join()
        self.pipe.close()


class Supervisor:
    """Runs workers until it is told to stop."""

    def __init__(
        self,
        spawn: Spawn,
        *,
        count: int,
        drain_s: float,
        reread: Callable[[], Settings] | None = None,
        check: Callable[[Settings], object] = lambda _: None,
        announce: Callable[[], None] | None = None,
    ) -> None:
        """Take how to start a worker, how many, how long streams may go on, and the settings.

        `check` refuses settings that a running gateway can't take; `announce` is called once, when
        all workers take requests.
        """
        self._announce = announce
        self._spawn = spawn
        self._count = count
        self._drain_s = drain_s
        self._reread = reread
        self._check = check
        self._workers: list[_Worker] = []
        self._told_ready = False
        self._latest: Settings | None = None
        self._deaths = 0
        self._not_before = 0.0

    def run(self) -> bool:
        """Serve until SIGTERM or SIGINT; return whether all workers ever took requests.

        Raises:
            StartError: A worker could not start, and said why.
        """
        ignore_unknown_signals()
        with _heard_signals() as heard:
            try:
                self._workers = [self._born() for _ in range(self._count)]
                while True:
                    self._wait(heard)
                    numbers = _drained(heard)
                    if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                        return self._told_ready
                    if signal.SIGHUP in numbers and self._told_ready:
                        self._reload()
                    if not self._look():
                        return False
                    systemd.notify("WATCHDOG=1")
            finally:
                self._end()

    def _born(self) -> _Worker:
        with unknown_signals_wait():
            return _Worker(*self._spawn())

    def _wait(self, heard: socket.socket) -> None:
        alive: list[Any] = [worker.process.sentinel for worker in self._workers]
        pipes = [worker.pipe for worker in self._workers if not worker.deaf]
        wait([heard, *alive, *pipes], timeout=_TICK_S)

    def _look(self) -> bool:
        """Hear all workers and replace dead ones; False if one died before all were ready."""
        now = time.monotonic()
        for worker in list(self._workers):
            worker.listen()
            if worker.ready and now - worker.heard > HANG_S:
                _log.error("worker hangs", extra={"fields": {"pid": worker.process.pid}})
                worker.signal(signal.SIGKILL)
                worker.process.join(1)
            if worker.process.is_alive():
                continue
            self._workers.remove(worker)
            worker.bury()
            fields = {"pid": worker.process.pid, "status": worker.process.exitcode}
            why = str(worker.failure or "")
            _log.error("worker ended", extra={"fields": fields | {"error": why}})
            if not self._told_ready:
                if worker.failure is not None:
                    raise worker.failure
                return False
            self._deaths = 1 if now - worker.born > _STEADY_S else self._deaths + 1
            self._not_before = now + min(_MAX_BACKOFF_S, 0.25 * 2 ** (self._deaths - 2))
        if len(self._workers) < self._count and now >= self._not_before:
            fresh = self._born()
            self._workers.append(fresh)
            if self._latest is not None:  # it began with the settings of the start
                fresh.pipe.send(self._latest)
        if not self._told_ready and all(worker.ready for worker in self._workers):
            self._told_ready = True
            if self._announce is not None:
                self._announce()
            systemd.notify("READY=1")
        return True

    def _reload(self) -> None:
        """Read the settings again and hand the very same ones to every worker."""
        systemd.reloading()
        try:
            if self._reread is None:
                return
            declared = self._reread()
            self._check(declared)
        except SafeholdError as error:
            tell_refusal(str(error))
        else:
            self._latest = declared
            for worker in self._workers:
                with contextlib.suppress(OSError):
                    worker.pipe.send(declared)
        finally:
            systemd.notify("READY=1")

    def _end(self) -> None:
        """Drain all workers; what has not ended in time is killed."""
        systemd.notify("STOPPING=1")
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        until = time.monotonic() + self._drain_s + LAST_RESORT_S + 5.0
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.signal(signal.SIGKILL)
            worker.bury()


@contextlib.contextmanager
def _heard_signals() -> Iterator[socket.socket]:
    """Give a socket that can be read as soon as a signal came, one byte for each."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _drained(heard: socket.socket) -> set[int]:
    try:
        return set(heard.recv(4096))
    except BlockingIOError:
        return set()
