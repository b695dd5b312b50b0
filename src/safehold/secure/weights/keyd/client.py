"""The loader's side: ask for keys, hold the lease, hear of its end within five seconds."""

import base64
import binascii
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from safehold.errors import TrustError
from safehold.secure.weights.interface import LeaseError
from safehold.secure.weights.keyd.binding import Binding
from safehold.secure.weights.keyd.interface import (
    SILENCE_S,
    Alive,
    Answer,
    Ask,
    Bind,
    GrantRevoked,
    KeydError,
    KeyRefusal,
    Receipt,
    SealedAnswer,
    receive,
    send,
)
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.log_entries import Leaf, read_leaf
from safehold.trust.log.proof import verify_proof_text

_ANSWER_S = 60.0


class GrantRefusedError(TrustError):
    """Obtain the grant that the message names; the key service released nothing."""


def ask_once(path: Path, ask: Ask, kind: type[msgspec.Struct]) -> Any:  # noqa: ANN401 - the kind asked for
    """Ask the key service and return its answer, of the expected kind.

    Raises:
        GrantRefusedError: no grant that holds.
        KeydError: refused for another reason, or out of reach.
    """
    with _connect(path) as connection:
        return _exchange(connection, ask, kind)


class Lease:
    """A grant in use: the connection over which its end is heard.

    `ended` is set when the grant ends, when the key service falls silent, and when `close` was
    called; callbacks run on the lease's own thread, for the first two only.
    """

    def __init__(self, path: Path, ask: Ask, kind: type[msgspec.Struct]) -> None:
        """Ask; on a refusal there is no lease.

        Raises:
            GrantRefusedError: no grant that holds.
            KeydError: refused for another reason, or out of reach.
        """
        self._connection = _connect(path)
        self._callbacks: list[Callable[[str], None]] = []
        self._closed = False
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self.reason = ""
        try:
            self.answer: Any = _exchange(self._connection, ask, kind)
        except (TrustError, KeydError):
            self._connection.close()
            raise
        self._connection.settimeout(SILENCE_S)
        self._thread = threading.Thread(target=self._listen, name="safehold-lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def on_end(self, callback: Callable[[str], None]) -> None:
        """Call with the reason when the grant ends; at once if it has ended already."""
        with self._lock:
            self._callbacks.append(callback)
            late = self.ended.is_set() and not self._closed
        if late:
            callback(self.reason)

    def check(self) -> None:
        """Refuse to go on after the end.

        Raises:
            LeaseError: the grant ended.
        """
        if self.ended.is_set():
            raise LeaseError(self.reason or "the lease was closed")

    def close(self) -> None:
        """Give the lease back."""
        self._closed = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join(SILENCE_S)
        self._connection.close()

    def _listen(self) -> None:
        reason = self._hear()
        with self._lock:
            self.reason = "" if self._closed else reason
            self.ended.set()
            callbacks = [] if self._closed else list(self._callbacks)
        for callback in callbacks:
            callback(reason)

    def _hear(self) -> str:
        """Return why the lease ended. Silence is an end: fail closed."""
        while True:
            try:
                message = receive(self._connection, Answer)
            except TimeoutError:
                return f"the key service was silent for {SILENCE_S:g} s"
            except (OSError, KeydError):
                return "the connection to the key service broke"
            match message:
                case Alive():
                    continue
                case GrantRevoked():
                    return f"the grant ended: {message.reason}"
                case _:
                    return "the key service ended the lease"


def check_receipt(receipt: Receipt, keys: LogKeys) -> Leaf:
    """Return the log's leaf about a release, verified with the log's public keys alone.

    Raises:
        LogTamperError: the proof is false, or no known emitter signed the leaf.
        KeydError: malformed.
    """
    try:
        entry = base64.b64decode(receipt.entry, validate=True)
    except (ValueError, binascii.Error) as error:
        raise KeydError("expected a receipt in base64") from error
    verify_proof_text(receipt.proof, entry, keys.log_key())
    return read_leaf(open_envelope(entry, keys.emitter_keys())[0])


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_ANSWER_S)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise KeydError(
            f"no key service at {path}: {error.strerror or error}; weights open only through it"
        ) from error
    return connection


def _exchange(connection: socket.socket, ask: Ask, kind: type[msgspec.Struct]) -> Any:  # noqa: ANN401 - the kind asked for
    try:
        send(connection, ask)
        first = receive(connection, Bind | KeyRefusal)
        if isinstance(first, Bind):
            binding = Binding(first)
            send(connection, binding.bound)
            second = receive(connection, SealedAnswer | KeyRefusal)
            answer = binding.open(second) if isinstance(second, SealedAnswer) else second
        else:
            answer = first
    except OSError as error:
        raise KeydError("the key service did not answer") from error
    if isinstance(answer, KeyRefusal):
        raise GrantRefusedError(answer.reason) if answer.trust else KeydError(answer.reason)
    if not isinstance(answer, kind):
        raise KeydError("expected another answer of the key service")
    return answer
