"""Decoy services: ports that nobody has business at. Each visit is a leaf and a case.

The service greets as an administration service of old does, takes what is said, and opens nothing.
What is said is kept as a digest only: it may hold a true password.
"""

import contextlib
import hashlib
import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from safehold.secure.endpoint.decoys import DecoyError
from safehold.trust.log.log_entries import Record

GREETING = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"
_MOST_BYTES = 1024
_QUIET_S = 60
_MOST_TOLD = 10_000
_REPLY_S = 0.5
_BACKLOG = 128


class DecoyService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port that a decoy listens at, by its name."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Visit(msgspec.Struct, frozen=True):
    """Who came to a decoy service, when (POSIX seconds), and the digest of what was said."""

    service: str
    port: int
    peer: str
    time: int
    said_sha256: str


def visit_leaf(visit: Visit, host: str) -> Record:
    """Return the leaf of one visit: an incident."""
    return Record(
        time=visit.time,
        kind="incident",
        facts={
            "event": "decoy-touched",
            "host": host,
            "lure": "service",
            "service": visit.service,
            "peer": visit.peer,
        },
        digests={"case": hashlib.sha256(msgspec.json.encode(visit)).hexdigest()},
    )


class DecoyListener:
    """Listens at every port; one peer that comes again is told once a minute for each service.

    A scan that only connects is a visit too. The greeting is sent, one answer of the peer is taken
    within half a second, and the visit is told.

    Args:
        services: Where to listen; an empty list is an error.
        on_visit: Told of each visit.
        clock: POSIX seconds.
        address: Where to listen: every address of the host by itself.

    Raises:
        DecoyError: there is nothing to listen at, or a port can't be taken.
    """

    def __init__(
        self,
        services: Sequence[DecoyService],
        on_visit: Callable[[Visit], None],
        clock: Callable[[], int],
        address: str = "::",
    ) -> None:
        if not services:
            raise DecoyError("expected at least one decoy service, got none")
        self._on_visit = on_visit
        self._clock = clock
        self._told: dict[tuple[str, str], int] = {}
        self._selector = selectors.DefaultSelector()
        for one in services:
            try:
                server = _server(address, one.port)
            except OSError as error:
                self.close()
                raise DecoyError(
                    f"decoy service {one.name}: can't listen at {one.port} ({error.strerror})"
                ) from error
            self._selector.register(server, selectors.EVENT_READ, one)

    def answer(self, timeout_s: float) -> int:
        """Answer who waits; return how many came."""
        came = 0
        for key, _ in self._selector.select(timeout_s):
            with contextlib.suppress(OSError):  # the peer is gone already
                peer, address = key.fileobj.accept()  # type: ignore[union-attr]
                came += 1
                self._visited(key.data, peer, str(address[0]))
        return came

    def close(self) -> None:
        """Listen no more."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _visited(self, service: DecoyService, peer: socket.socket, address: str) -> None:
        said = b""
        with peer, contextlib.suppress(OSError):
            peer.settimeout(_REPLY_S)
            peer.sendall(GREETING)
            said = peer.recv(_MOST_BYTES)
        self._tell(service, address.removeprefix("::ffff:"), said)

    def _tell(self, service: DecoyService, address: str, said: bytes) -> None:
        now, key = self._clock(), (service.name, address)
        if now - self._told.get(key, -_QUIET_S) < _QUIET_S:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[key] = now
        digest = hashlib.sha256(said).hexdigest()
        self._on_visit(Visit(service.name, service.port, address, now, digest))


def _server(address: str, port: int) -> socket.socket:
    both = address == "::" and socket.has_dualstack_ipv6()
    where = "0.0.0.0" if address == "::" and not both else address  # noqa: S104 - a decoy is for every way in
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    server = socket.create_server(
        (where, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
    )
    server.setblocking(False)
    return server
