"""The guard's heartbeat over a Unix socket: who asks hears how long ago the guard went round.

Only a living worker answers, so silence is staleness. The key service asks before each lease.
"""

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path

import msgspec

from safehold.errors import EndpointError
from safehold.secure.endpoint.interface import GuardState
from safehold.secure.endpoint.policy import Mode

MAX_AGE_S = 5.0
_ANSWER_S = 1.0
_ACCEPT_S = 0.3
_MOST = 1 << 16


class StaleGuardError(EndpointError):
    """Start the endpoint guard, or look why it does not enforce the policy that is expected."""


class Pulse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the guard says of itself; `age_s` since it last went round, `marks` by the kernel.

    `lost` are events that the kernel dropped, and refusals that were not counted.
    """

    policy: str
    mode: Mode
    host: str
    age_s: float
    asked: int
    refused: int
    hashed: int
    marks: int
    unmarked: tuple[str, ...] = ()
    lost: int = 0


def listen(path: Path) -> socket.socket:
    """Return the listening socket, made by the holder: it outlives workers.

    Raises:
        EndpointError: the path can't be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o666)  # anybody may ask; nobody can answer but who holds it
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise EndpointError(f"can't listen on {path.name}: {error.strerror}") from error
    listener.settimeout(_ACCEPT_S)
    return listener


class Heart:
    """Answers in the worker, beside the guard."""

    def __init__(self, listener: socket.socket, policy: str, mode: Mode, host: str) -> None:
        self._listener = listener
        self._about = (policy, mode, host)

    def beat(self, state: GuardState, ended: threading.Event) -> None:
        """Answer who asks until the worker ends."""
        while not ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_ANSWER_S)
                connection.sendall(msgspec.json.encode(self._pulse(state)))

    def _pulse(self, state: GuardState) -> Pulse:
        age = time.monotonic() - state.round if state.round else float(MAX_AGE_S * 2)
        return Pulse(
            *self._about,
            age,
            state.asked,
            state.refused,
            state.hashed,
            state.marks,
            state.unmarked,
            state.lost,
        )


def read_pulse(path: Path) -> Pulse:
    """Return what the guard says.

    Raises:
        StaleGuardError: nobody answers, or who answers is not root.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        parts = bytearray()
        try:
            connection.connect(str(path))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            while (part := connection.recv(_MOST)) and len(parts) < _MOST:
                parts += part
        except OSError as error:
            reason = error.strerror or "no answer"
            raise StaleGuardError(f"the endpoint guard is silent: {reason}") from error
    _, uid, _ = struct.unpack("iii", credentials)
    if uid != 0:
        raise StaleGuardError(f"expected root at {path.name}, got user {uid}")
    try:
        return msgspec.json.decode(bytes(parts), type=Pulse)
    except msgspec.DecodeError as error:
        raise StaleGuardError("the endpoint guard gave no answer") from error


def guarding(path: Path, policy: str, max_age_s: float = MAX_AGE_S) -> Pulse:
    """Return the pulse of a guard that works now by exactly this policy, in any mode.

    1. It answers, as root. 2. It went round lately. 3. It has marks. 4. By the policy of this
    digest.

    Raises:
        StaleGuardError: one of them is not so.
    """
    pulse = read_pulse(path)
    if not 0 <= pulse.age_s <= max_age_s:
        raise StaleGuardError(f"the endpoint guard last went round {pulse.age_s:.0f} s ago")
    if pulse.marks < 1:
        raise StaleGuardError("the endpoint guard has no marks")
    if pulse.policy != policy:
        raise StaleGuardError(
            f"the endpoint guard enforces policy {pulse.policy[:16]}, expected {policy[:16]}"
        )
    return pulse


def require_guard(path: Path, policy: str, max_age_s: float = MAX_AGE_S) -> Pulse:
    """Return the pulse of a guard that enforces exactly this policy now.

    Raises:
        StaleGuardError: it does not work by this policy now (`guarding`), or only looks on.
    """
    pulse = guarding(path, policy, max_age_s)
    if pulse.mode is not Mode.ENFORCE:
        raise StaleGuardError(f"the endpoint guard is in mode {pulse.mode}, expected enforce")
    return pulse
