"""The loop of the read meter.

What it stops: any process, root's included, that reads a sealed file through this mount beyond the
budget. Held (`run_held`), a killed worker means waiting: the next one goes on with the same tally,
and what the dead one had not answered is refused. What it does not stop: reads of the raw block
device, whoever kills holder and worker at once (the kernel then allows everything), and whatever a
process does with bytes that it was allowed to read. Encryption is the lock; this is the alarm.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from safehold.secure.fanotify.group import Group
from safehold.secure.fanotify.hold import Beat, Holder
from safehold.secure.weights.header import read_header
from safehold.secure.weights.interface import SEALED_SUFFIX
from safehold.secure.weights.meter.budget import Active, Read, Tally, judge
from safehold.secure.weights.meter.cell import TallyCell
from safehold.secure.weights.meter.fanotify import FanotifyGroup, MeterError

_POLL_S = 0.2

OnRefusal = Callable[[Read, Tally], None]


class ReadMeter:
    """Answers the gate's questions until stopped.

    Args:
        gate: The kernel's questions.
        budget: Bytes that may be read in all; 0: none.
        on_refusal: Called with every refused read.
        exempt: Process ids whose reads are allowed and not charged (the meter's own checks).
    """

    def __init__(
        self,
        gate: FanotifyGroup,
        budget: int,
        *,
        on_refusal: OnRefusal | None = None,
        exempt: frozenset[int] = frozenset(),
    ) -> None:
        self._gate = gate
        self._cell = TallyCell(budget)
        self._stop = threading.Event()
        self._on_refusal = on_refusal
        self._exempt = exempt

    @property
    def active(self) -> Active:
        """Which kind of event meters."""
        return self._gate.active

    @property
    def tally(self) -> Tally:
        """What was metered so far."""
        return self._cell.tally

    def run_held(
        self,
        note: Callable[[str], None] = lambda _: None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer from a worker process until SIGTERM or SIGINT; this process keeps the group.

        Args:
            note: Told in one line when a worker ended and the next one took over.
            ready: Called when signals are heard: who is told may send one at once.
        """

        def work(group: Group, beat: Beat) -> None:
            del group
            self.run(beat)

        holder = Holder(self._gate.group, work, note=note)
        holder.take_signals()
        ready()
        holder.run()

    def run(self, beat: Beat | None = None) -> None:
        """Answer until `stop`. Every question is answered, also when something breaks."""
        while not self._stop.is_set():
            if beat is not None:
                beat.now()
                if beat.orphaned():
                    return
            for event in self._gate.events(_POLL_S):
                allow = False
                try:
                    allow = self._judge(event.read)
                finally:
                    detailed = self._gate.active is Active.PRE_ACCESS
                    event.answer(allow=allow, detailed=detailed)
                if not allow and self._on_refusal is not None:
                    self._on_refusal(event.read, self.tally)

    def _judge(self, read: Read) -> bool:
        if read.pid in self._exempt:
            return True
        allow, tally = judge(self._cell.tally, read)
        self._cell.store(tally)
        return allow

    def end_grant(self, reason: str) -> None:
        """Refuse every read from now on."""
        self._cell.close(reason)

    def stop(self) -> None:
        """Make `run` return. The gate's end then allows everything: say so where it is used."""
        self._stop.set()


def sealed_files(folder: Path) -> list[Path]:
    """Return the sealed files of a folder.

    Raises:
        MeterError: there is none.
        SealedFormatError: the folder is no sealed model.
    """
    read_header(folder)
    found = sorted(folder.rglob(f"*{SEALED_SUFFIX}"))
    if not found:
        raise MeterError(f"{folder.name}: expected sealed files, got none")
    return found
