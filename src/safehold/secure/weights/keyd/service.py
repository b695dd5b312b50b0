"""The socket around the releaser: a thread for each connection, one lock around all decisions."""

import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import assert_never

from safehold.errors import SafeholdError, TrustError
from safehold.secure.weights.keyd.binding import new_bind, seal_answer
from safehold.secure.weights.keyd.interface import (
    BEAT_S,
    Alive,
    Answer,
    Ask,
    BindProof,
    GrantRevoked,
    KeydError,
    KeyRefusal,
    Load,
    Rewrap,
    Shred,
    WatchRequest,
    receive,
    send,
)
from safehold.secure.weights.keyd.peer import Peer, peer_of
from safehold.secure.weights.keyd.release import Releaser

MAX_CONNECTIONS = 64
_FIRST_WORD_S = 10.0
_ACCEPT_S = 0.2


class KeyService:
    """Listens on a Unix socket until told to stop."""

    def __init__(self, path: Path, releaser: Releaser, code: Sequence[Path], mode: int) -> None:
        """Bind the socket.

        Args:
            path: Where; a stale socket of a dead service is replaced, a live one is not.
            releaser: The rule.
            code: The folders that are part of every loader's workload.
            mode: The socket file's permission bits.

        Raises:
            KeydError: another service listens there, or the path can't be used.
        """
        self._path = path
        self._releaser = releaser
        self._code = tuple(code)
        self._decide = threading.Lock()
        self._stop = threading.Event()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._threads: list[threading.Thread] = []
        self._listener = _bind(path, mode)

    def serve(self) -> None:
        """Accept and answer until `stop`; then let every lease go and remove the socket."""
        self._listener.settimeout(_ACCEPT_S)
        try:
            while not self._stop.is_set():
                with suppress(TimeoutError):
                    self._accept()
        finally:
            self._stop.set()
            self._listener.close()
            self._path.unlink(missing_ok=True)
            for thread in self._threads:
                thread.join(_FIRST_WORD_S)

    def stop(self) -> None:
        """Make `serve` return. Loaders that hear nothing more wipe what they have."""
        self._stop.set()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if not self._slots.acquire(blocking=False):
            connection.close()
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=self._one, args=(connection,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                connection.settimeout(_FIRST_WORD_S)
                self._converse(connection)
        finally:
            self._slots.release()

    def _converse(self, connection: socket.socket) -> None:
        """Answer one ask; if it was a lease, keep speaking until either side ends it."""
        try:
            # Whatever is sent from here on carries its sender's process id.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ask: Ask | None = receive(connection, Ask)
            if ask is None:
                return
            with peer_of(connection, self._code) as (peer, check):
                # 1. The measured process itself answers, with a key that only it has.
                bind = new_bind()
                send(connection, bind)
                bound: BindProof | None = receive(connection, BindProof, sender=peer.pid)
                if bound is None or bound.nonce != bind.nonce:
                    raise KeydError("expected the nonce back from the measured process")
                # 2. It is still what was measured: nothing is spent otherwise.
                check()
                with self._decide:
                    answer, seal_id = self._answer(ask, peer)
                # 3. And still when the answer leaves, sealed to that key.
                check()
                sealed = seal_answer(answer, bound)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        except SafeholdError as error:
            send(connection, KeyRefusal(reason=str(error), trust=isinstance(error, TrustError)))
            return
        send(connection, sealed)
        if isinstance(ask, Load | WatchRequest):
            self._lease(connection, ask.grant, seal_id)

    def _answer(self, ask: Ask, peer: Peer) -> tuple[Answer, str]:
        match ask:
            case Load():
                return self._releaser.load(ask, peer)
            case WatchRequest():
                return self._releaser.watch(ask, peer), ""
            case Rewrap():
                return self._releaser.rewrap(ask, peer), ""
            case Shred():
                return self._releaser.shred(ask, peer), ""
            case _:
                assert_never(ask)

    def _lease(self, connection: socket.socket, grant: str, seal_id: str) -> None:
        connection.settimeout(BEAT_S)
        while not self._stop.is_set():
            with self._decide:
                reason = self._releaser.ended(grant, seal_id)
            if reason is not None:
                send(connection, GrantRevoked(reason=reason))
                return
            send(connection, Alive())
            # The loader says nothing more; its silence is right, its end is the lease's.
            with suppress(TimeoutError):
                if not connection.recv(1):
                    return


def _bind(path: Path, mode: int) -> socket.socket:
    if path.is_socket() and _answers(path):
        raise KeydError(f"{path.name}: another key service listens there")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise KeydError(f"can't listen on {path.name}: {error.strerror or error}") from error
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0
