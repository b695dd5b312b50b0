"""What the watch feeds to the shape detectors, and the file of limits they are held to.

Contacts and received bytes come from the host's own TCP sockets (sock_diag), names from a
resolver's query log (JSON lines with `time` and `name`). Each input may be absent.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.detectors.shape import beacon_score, name_stats, producer_consumer_ratio
from safehold.secure.egress.interface import Direction, StateError
from safehold.secure.egress.kernel.attribution import SocketUse

WINDOW_S = 3_600.0
_MOST = 20_000
_READ_BYTES = 16 * 2**20
_AHEAD_S = 60.0
"""How far a resolver's clock may be ahead of ours: a line of next year would never leave."""


class Contact(msgspec.Struct, frozen=True, array_like=True):
    """One connection of a flow: when it was first seen, and its bytes both ways so far."""

    at: float
    sent: int = 0
    received: int = 0


class ResolverQuestion(msgspec.Struct, frozen=True):
    """One line of a resolver's query log."""

    time: float
    name: str


class ShapeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last hour: contacts by flow and connection, and how far the query log was read.

    `skipped` counts lines of the log that were no questions, and `trouble_at` is when such a line
    or a log that can't be read was last seen.
    """

    contacts: dict[str, dict[str, Contact]] = {}
    questions: tuple[tuple[float, str], ...] = ()
    offset: int = 0
    skipped: int = 0
    trouble_at: float | None = None


def observe(
    state: ShapeState, flows: Sequence[Flow], sockets: Sequence[SocketUse], now: float
) -> ShapeState:
    """Return the state after a look at the sockets; they belong to flows by port and direction."""
    contacts = {
        name: {key: c for key, c in seen.items() if c.at > now - WINDOW_S}
        for name, seen in state.contacts.items()
    }
    for item in sockets:
        for flow in flows:
            port = item.local_port if flow.direction is Direction.SERVE else item.port
            if port not in flow.ports or len(contacts.get(flow.id, ())) >= _MOST:
                continue
            key = f"{item.local_port} {item.destination} {item.port} {item.owner.inode}"
            seen = contacts.setdefault(flow.id, {})
            first = seen.get(key, Contact(now)).at
            seen[key] = Contact(first, item.sent, item.received)
    return msgspec.structs.replace(state, contacts=contacts)


def follow_names(state: ShapeState, path: Path, now: float) -> ShapeState:
    """Return the state after the query log's new lines; a log that became shorter begins anew.

    Nothing in the log ends the watch: a line that is no question of the last hour is counted and
    skipped, and a log that can't be read now is tried again with the next look.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            offset = file.seek(state.offset if size >= state.offset else 0)
            data = file.read(_READ_BYTES)
    except OSError:
        return msgspec.structs.replace(_recent(state, now), trouble_at=now)
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) == _READ_BYTES:
        # One line that never ends must not keep the rest from being read.
        return msgspec.structs.replace(
            _recent(state, now),
            offset=offset + len(data),
            skipped=state.skipped + 1,
            trouble_at=now,
        )
    new, skipped = [], 0
    for line in data[:whole].splitlines():
        try:
            item = msgspec.json.decode(line, type=ResolverQuestion)
        except (msgspec.DecodeError, msgspec.ValidationError):
            skipped += bool(line.strip())
            continue
        if item.time > now + _AHEAD_S:
            skipped += 1
        else:
            new.append((item.time, item.name))
    return _recent(
        msgspec.structs.replace(
            state,
            questions=(*state.questions, *new),
            offset=offset + whole,
            skipped=state.skipped + skipped,
            trouble_at=now if skipped else state.trouble_at,
        ),
        now,
    )


def _recent(state: ShapeState, now: float) -> ShapeState:
    kept = tuple((at, name) for at, name in state.questions if at > now - WINDOW_S)
    return msgspec.structs.replace(state, questions=kept[-_MOST:])


def log_trouble(state: ShapeState, now: float) -> dict[str, str]:
    """Say for an hour that the query log had lines that were skipped, or could not be read."""
    if state.trouble_at is None or now - state.trouble_at > WINDOW_S:
        return {}
    return {"dns:log": f"the query log can't be read, or not all of it; {state.skipped} skipped"}


def scores(state: ShapeState) -> dict[str, float]:
    """Every score of the last hour: `pcr:<flow>`, `beacon:<flow>` and the worst `dns:<domain>`."""
    found: dict[str, float] = {}
    for flow, seen in state.contacts.items():
        each = sorted(seen.values(), key=lambda contact: contact.at)
        sent, received = sum(c.sent for c in each), sum(c.received for c in each)
        found[f"pcr:{flow}"] = producer_consumer_ratio(sent, received)
        found[f"beacon:{flow}"] = beacon_score([c.at for c in each], [c.sent for c in each])
    names = name_stats(name for _, name in state.questions)
    for item in sorted(names.values(), key=lambda item: -item.score)[:3]:
        found[f"dns:{item.domain}"] = item.score
    return found


def shape_alarms(found: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, str]:
    """The scores over their limits; `dns` is the limit of every domain."""
    over = {}
    for name, value in found.items():
        limit = limits.get(name, limits.get(name.partition(":")[0]))
        if limit is not None and value > limit:
            over[name] = f"{name} {value:.2f} > {limit:.2f}"
    return over


def load_limits(path: Path) -> dict[str, float]:
    """Read limits by score name (`pcr:replies`, `beacon:metrics`) or kind (`pcr`, `dns`).

    Raises:
        StateError: The file is not a JSON object of numbers.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StateError(f"{path.name}: expected a JSON object of limits by score") from error
