"""The second process that keeps the group: a dead daemon means waiting, not running.

The holder forks a worker and does nothing but wait for its end; then it forks the next. A fork
opens no file, so the restart never waits for an answer that nobody could give. A worker whose
holder was killed becomes the holder. Only who kills both at once opens the gate.
"""

import mmap
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from safehold.secure.fanotify.group import Group, prepare_reader

_BEAT = struct.Struct("<d")
_RELIEF = struct.Struct("<B")
_TICK_S = 0.1
_AGAIN_S = 0.02
_LONG_TICK_S = 5 * _TICK_S
"""A round of the holder that took longer stood still itself, and so did the worker perhaps."""
_PRIORITY = -14
BROKEN, ORPHANED, RELIEVED, DONE = 70, 71, 72, 0


class Beat:
    """A moment in memory that holder and worker share: when the worker last went round."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._holder = os.getpid()
        self.now()

    def now(self) -> None:
        """Say that the worker is alive."""
        _BEAT.pack_into(self._shared, 0, time.monotonic())

    def age_s(self) -> float:
        """Return how long ago that was."""
        return time.monotonic() - self.last_s()

    def last_s(self) -> float:
        """Return when that was."""
        return float(_BEAT.unpack_from(self._shared, 0)[0])

    def own(self) -> None:
        """Be the holder of this beat."""
        self._holder = os.getpid()
        self.now()

    def orphaned(self) -> bool:
        """Tell the worker whether it must end: its holder is gone, or relieves it."""
        return os.getppid() != self._holder or self.relieved()

    def relieve(self, *, now: bool) -> None:
        """Have the worker end after what it has taken is answered; or take that back."""
        _RELIEF.pack_into(self._shared, _BEAT.size, now)

    def relieved(self) -> bool:
        """Tell whether the holder wants the next worker to answer."""
        return bool(_RELIEF.unpack_from(self._shared, _BEAT.size)[0])


class Silence:
    """How long a worker has been silent, by the rounds of a holder that was awake.

    Args:
        beat: The worker's last beat (seconds of the monotonic clock).
        now: The time of the first round.
    """

    def __init__(self, beat: float, now: float) -> None:
        self._beat, self._now, self._silent = beat, now, 0.0

    def told(self, beat: float, now: float) -> float:
        """Take one round's beat and time; return the seconds of silence.

        A round counts for half a second at most: who was not run for longer (a machine that was
        suspended, or had no processor) can't tell whether the worker was run.
        """
        passed = min(now - self._now, _LONG_TICK_S)
        self._silent = 0.0 if beat != self._beat else self._silent + passed
        self._beat, self._now = beat, now
        return self._silent


Work = Callable[[Group, Beat], None]
"""Answers until told to stop or orphaned; calls `Beat.now` at least every second."""


class Holder:
    """Keeps the group and a worker on it.

    Args:
        group: What to keep.
        work: What the worker does; everything it needs is imported and opened before `run`.
        stuck_s: A worker that has not gone round for so long is killed. Counted is the time in
            which the holder itself was awake: a machine that stood still has no stuck worker.
        note: Told of each worker's end in one line.
        renew: Asked at SIGHUP for other work; None keeps what is. The worker at work answers
            meanwhile, also what `renew` opens, and ends when it has answered what it took.
    """

    def __init__(
        self,
        group: Group,
        work: Work,
        *,
        stuck_s: float = 10.0,
        note: Callable[[str], None] = lambda _: None,
        renew: Callable[[], Work | None] = lambda: None,
    ) -> None:
        self._renew = renew
        self._asked = False
        self._group = group
        self._work = work
        self._stuck_s = stuck_s
        self._note = note
        self._beat = Beat()
        self._stop = False
        self._worker = 0

    def run(self) -> None:
        """Hold until SIGTERM or SIGINT, or until a worker ends by itself.

        Must be called by a process of one thread. Afterwards the group is closed, and with its
        last descriptor the kernel allows everything again.
        """
        self._hold()
        while not self._stop:
            began = time.monotonic()
            self._worker = self._fork()
            status = self._wait(self._worker)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == DONE:
                break
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == RELIEVED:
                continue
            if not self._stop:
                self._note(f"worker ended with status {status}; the next one answers")
                if time.monotonic() - began < _AGAIN_S:
                    time.sleep(_AGAIN_S)
        self._group.close()

    def _hold(self) -> None:
        self._beat.own()
        with suppress(PermissionError):
            # Everybody who is asked about waits for the worker, and it for a holder that forks.
            os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        self.take_signals()

    def take_signals(self) -> None:
        """Hear SIGTERM, SIGINT and SIGHUP from now on; what came before `run` is done there.

        Call it before anybody is told that the holder is ready: a signal would end it else.
        """
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def _exchange(self) -> None:
        """Take other work, if there is any, and let the worker end."""
        self._asked = False
        work = self._renew()
        if work is not None:
            self._work = work
            self._beat.relieve(now=True)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop = True

    def _fork(self) -> int:
        self._beat.relieve(now=False)
        self._beat.now()
        pid = os.fork()
        if pid:
            return pid
        # A traceback would open our own source files, which nobody could answer: so none.
        status = BROKEN
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            prepare_reader()
            # An import would open a file, and the worker would wait for itself: so none can.
            sys.meta_path.clear()
            ended = self._group.deny_unanswered()
            if ended:
                self._note(f"{ended} questions of a dead worker were refused")
            self._work(self._group, self._beat)
            if not self._beat.orphaned():
                status = DONE
            elif self._beat.relieved():
                status = RELIEVED
            else:
                self._note("the holder was killed; the worker holds now")
                self.run()
                status = ORPHANED
        finally:
            broken = sys.exc_info()[0]
            if broken is not None:
                self._note(f"worker broke: {broken.__name__}")
            os._exit(status)

    def _wait(self, worker: int) -> int:
        pidfd = os.pidfd_open(worker)
        silence = Silence(self._beat.last_s(), time.monotonic())
        try:
            while True:
                done, status = os.waitpid(worker, os.WNOHANG)
                if done:
                    return status
                if self._asked and not self._stop:
                    self._exchange()
                silent_s = silence.told(self._beat.last_s(), time.monotonic())
                if silent_s > self._stuck_s and not self._stop:
                    self._note(f"the worker was silent for {silent_s:.0f} s and is killed")
                if self._stop or silent_s > self._stuck_s:
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                select.select([pidfd], [], [], _TICK_S)
        finally:
            os.close(pidfd)
