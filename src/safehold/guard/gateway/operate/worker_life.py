"""The life of one worker process: signals, a lifeline to its supervisor, reloads, the watchdog."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from typing import Any, Protocol

from safehold.errors import SafeholdError
from safehold.guard.gateway.operate import systemd
from safehold.guard.gateway.policy import Settings

_log = logging.getLogger("safehold.gateway")
_BEAT_S = 1.0
LAST_RESORT_S = 20.0
"""How long a worker may take to close what it had open, after its streams have ended."""

_OURS = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
}
_DEATHS = {
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGXCPU,
    signal.SIGKILL,
    signal.SIGSTOP,
}


_UNKNOWN = signal.valid_signals() - _OURS - _DEATHS


def ignore_unknown_signals() -> None:
    """Let no signal but those with a meaning stop the gateway; children get them as usual."""
    for number in _UNKNOWN:
        try:
            signal.signal(number, _nothing)
        except (OSError, ValueError):
            continue  # the C library keeps two for itself
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _UNKNOWN)


@contextlib.contextmanager
def unknown_signals_wait() -> Iterator[None]:
    """Start a process in which such a signal waits until `ignore_unknown_signals` was called."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNKNOWN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing(*_: object) -> None:
    """Take note of nothing."""


class StartError(SafeholdError):
    """Correct what the message names: the gateway could not start, or a worker of it."""

    def __init__(self, message: str, exit_status: int) -> None:
        """Take why, and the exit status of the error behind it, which another process had."""
        super().__init__(message)
        self.exit_status = exit_status


class Reloadable(Protocol):
    """A gateway that takes new settings."""

    async def reload(self, declared: Settings) -> tuple[str, ...]:
        """Take new settings and return which differ."""
        ...


class WorkerLife:
    """Ties a worker to who started it: a supervisor by a pipe, or systemd itself."""

    def __init__(
        self,
        pipe: Connection | None = None,
        reread: Callable[[], Settings] | None = None,
        announce: Callable[[], None] | None = None,
    ) -> None:
        """Take the pipe to a supervisor; or, without one, how to read the settings and be told."""
        self._announce = announce
        self._pipe = pipe
        self._reread = reread
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gateway: Reloadable | None = None
        self.failure: StartError | None = None

    def started(self, gateway: Reloadable) -> None:
        """Say that requests are taken, and listen from now on."""
        self._gateway = gateway
        loop = self._loop = asyncio.get_running_loop()
        if self._pipe is not None:
            loop.add_signal_handler(signal.SIGHUP, _nothing)  # the supervisor brings the settings
            threading.Thread(target=self._listen, name="lifeline", daemon=True).start()
            self._say("ready")
            self._do(self._beats())
            return
        loop.add_signal_handler(signal.SIGHUP, lambda: self._do(self._reload_from_file()))
        if self._announce is not None:
            self._announce()
        systemd.notify("READY=1")
        if (every := systemd.watchdog_s()) is not None:
            self._do(self._watchdog(every))

    def failed(self, error: SafeholdError) -> None:
        """Keep why this worker could not start, and say it."""
        self.failure = StartError(str(error), error.exit_status)
        self._say("failed", (str(error), error.exit_status))

    def stopping(self) -> None:
        """Say that no more requests are taken; whatever hangs from here on is ended."""
        if self._pipe is None:
            systemd.notify("STOPPING=1")
        timer = threading.Timer(LAST_RESORT_S, os._exit, (0,))
        timer.daemon = True
        timer.start()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say(self, word: str, detail: str | tuple[str, int] = "") -> None:
        if self._pipe is None:
            return
        try:
            self._pipe.send((word, detail))
        except OSError:
            return  # the supervisor is gone: the lifeline says so too

    def _listen(self) -> None:
        """Take settings from the supervisor; when it is gone, drain and end."""
        pipe, loop = self._pipe, self._loop
        if pipe is None or loop is None:
            return
        while True:
            try:
                declared = pipe.recv()
            except (EOFError, OSError):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            loop.call_soon_threadsafe(self._take, declared)

    def _take(self, declared: Settings) -> None:
        self._do(self._reload(declared))

    async def _beats(self) -> None:
        while True:
            self._say("beat")
            await asyncio.sleep(_BEAT_S)

    async def _watchdog(self, every: float) -> None:
        while True:
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(every)

    async def _reload_from_file(self) -> None:
        systemd.reloading()
        try:
            if self._reread is None:
                return
            declared = await asyncio.to_thread(self._reread)
        except SafeholdError as error:
            tell_refusal(str(error))
        else:
            await self._reload(declared)
        finally:
            systemd.notify("READY=1")

    async def _reload(self, declared: Settings) -> None:
        if self._gateway is None:
            return
        try:
            names = await self._gateway.reload(declared)
        except SafeholdError as error:
            tell_refusal(str(error))
            self._say("refused", str(error))
        else:
            _log.info("reloaded", extra={"fields": {"changed": list(names)}})
            self._say("reloaded")


def tell_refusal(why: str) -> None:
    """Log that a reload was refused; what held before holds on."""
    _log.error("reload refused", extra={"fields": {"error": why}})
