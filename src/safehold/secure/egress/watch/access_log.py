"""An access log: one line for each connection that ended, with what it sent, for people to read.

The kernel's table of connections keeps an ended one for a while (TCP two minutes, UDP half a
minute), so looks ten seconds apart see them all. Its byte counts must be on
(`net.netfilter.nf_conntrack_acct`, which this turns on).
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from safehold.secure.egress.declare.register import Register
from safehold.secure.egress.interface import Direction, StateError, Tuple5
from safehold.secure.egress.kernel.attribution import Connection, connections, enable_accounting
from safehold.trust.log.files import append_whole

_Key = tuple[str, str, int, str, int]


class AccessLog:
    """Writes the log; `look` is called at each look of the watch."""

    def __init__(self, path: Path, register: Register, netns: str | None = None) -> None:
        self._path = path
        self._register = register
        self._netns = netns
        self._open: dict[_Key, Connection] = {}
        enable_accounting(netns)

    def look(self, now: float) -> None:
        """Write what ended since the last look.

        Raises:
            StateError: The file can't be appended.
        """
        self.note(connections(self._netns), now)

    def note(self, table: Sequence[Connection], now: float) -> None:
        """Compare the table of now with the one before."""
        held = {_key(one): one for one in table if not _at_home(one)}
        ended = [
            one
            for key, one in self._open.items()
            # One that was opened again counts from 0.
            if key not in held or held[key].original_bytes < one.original_bytes
        ]
        self._open = held
        if not ended:
            return
        at = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            append_whole(self._path, "".join(self._line(at, one) for one in ended).encode())
        except OSError as error:
            raise StateError(f"{self._path.name}: can't be appended ({error.strerror})") from error

    def _line(self, at: str, one: Connection) -> str:
        serving = self._names(one, Direction.SERVE)
        if serving:
            sent, got, ours, theirs = (
                one.reply_bytes,
                one.original_bytes,
                (one.destination, one.dport),
                (one.source, one.sport),
            )
        else:
            sent, got, ours, theirs = (
                one.original_bytes,
                one.reply_bytes,
                (one.source, one.sport),
                (one.destination, one.dport),
            )
        flow = serving or self._names(one, Direction.OUT) or "-"
        return (
            f"{at} {flow} {one.protocol} {ours[0]}:{ours[1]} > {theirs[0]}:{theirs[1]} "
            f"sent {sent} received {got}\n"
        )

    def _names(self, one: Connection, way: Direction) -> str:
        """Rows that the connection could belong to; the table does not know who holds it."""
        far = one.destination if way is Direction.OUT else one.source
        return "|".join(
            flow.id
            for flow in self._register.flows
            if flow.direction is way
            and flow.covers(
                Tuple5(
                    protocol=one.protocol,
                    destination=far,
                    port=one.dport,
                    direction=way,
                    uid=flow.source.uid,
                    user=flow.source.user,
                    interface=flow.source.interface or flow.source.netns,
                    source=one.source if way is Direction.OUT else one.destination,
                    cgroup=flow.source.cgroup,
                )
            )
        )


def _key(one: Connection) -> _Key:
    return one.protocol, one.source, one.sport, one.destination, one.dport


def _at_home(one: Connection) -> bool:
    return one.destination.startswith("127.") or one.destination == "::1"
