"""The enforcement state on disk: odometers, blocks and the last approved budgets.

Written through a temporary file, fsync and rename, so that a crash leaves the old or the new
state, never half of one.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from safehold.secure.egress.bounds.judge import Bench
from safehold.secure.egress.bounds.odometer import FlowOdometer
from safehold.secure.egress.interface import StateError

_FILE = "enforcement.json"
_MAX_BYTES = 256 * 2**20


class Clock(Protocol):
    """The machine's own time since boot, and which boot it is."""

    def uptime_s(self) -> float:
        """Seconds since boot, sleep included; nobody can set it."""
        ...

    def boot_id(self) -> str:
        """A name that changes with every boot."""
        ...

    def wall_s(self) -> float:
        """The wall clock: for people to read, never for budgets."""
        ...


class BootClock:
    """The kernel's CLOCK_BOOTTIME and boot id."""

    def uptime_s(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """The kernel's random id of this boot."""
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()

    def wall_s(self) -> float:
        """The wall clock."""
        return time.time()


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that enforcement must remember.

    `at` is the egress clock, `uptime_s` the machine's at the same moment. `approved` holds the
    budgets last applied, by account and window, and `documents` all that may not be loosened
    without a grant; `cut` names the devices that were taken down, `bench` is what the judge of the
    devices remembers, `compiled` the digest of the rules last put in force, `controls` what traffic
    control then did on each device, `macs` the hardware addresses of the ways out, `repeated` what
    TCP sent again of each reconciled flow. `mark` and
    `posture` have no use any more; states of old have them.
    """

    boot_id: str
    uptime_s: float
    at: float = 0.0
    version: int = 1
    wall_s: float = 0.0
    accounts: dict[str, FlowOdometer] = {}
    approved: dict[str, dict[str, int]] = {}
    posture: dict[str, int] = {}
    documents: dict[str, Any] = {}
    blocked: frozenset[str] = frozenset()
    throttled: frozenset[str] = frozenset()
    sealed: bool = False
    cut: tuple[str, ...] = ()
    bench: Bench = Bench()
    compiled: str = ""
    controls: dict[str, tuple[str, ...]] = {}
    macs: dict[str, str] = {}
    repeated: dict[str, int] = {}
    mark: int = 0


class StateFile:
    """The folder that holds the state; one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / _FILE

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, so that the daemon and a command never interleave."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.folder / "lock").open("a")
        except OSError as error:
            raise StateError(f"{self.folder.name}: can't be used ({error.strerror})") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self) -> State | None:
        """Return the state, or None when none was ever written.

        Raises:
            StateError: The file is there but can't be believed.
        """
        try:
            if self.path.stat().st_size > _MAX_BYTES:
                raise StateError(f"{_FILE}: expected at most {_MAX_BYTES} bytes")
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{_FILE}: can't be read ({error.strerror})") from error
        try:
            state = msgspec.json.decode(raw, type=State)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise StateError(
                f"{_FILE}: malformed; restore it from a backup (a fresh one would refund budget)"
            ) from error
        if state.version != 1 or state.at < 0:
            raise StateError(f"{_FILE}: expected version 1 and a clock at or above 0")
        return state

    def save(self, state: State) -> None:
        """Make the state durable."""
        write_durably(self.path, msgspec.json.encode(state, order="deterministic"))


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file so that a crash leaves the old or the new content; raises StateError."""
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(f"{path.name}: can't be written ({error.strerror})") from error
