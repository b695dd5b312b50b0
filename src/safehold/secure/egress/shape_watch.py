"""What the watch feeds to the shape detectors, and the file of limits they are held to.

Contacts and received bytes come from the host's own TCP sockets (sock_diag), names from a
resolver's query log (JSON lines with `time` and `name`). Each input may be absent.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from safehold.secure.egress.attribution import SocketUse
from safehold.secure.egress.interface import Direction, StateError
from safehold.secure.egress.register import Flow
from safehold.secure.egress.shape import beacon_score, name_stats, producer_consumer_ratio

WINDOW_S = 3_600.0
_MOST = 20_000


class Contact(msgspec.Struct, frozen=True, array_like=True):
    """One connection of a flow: when it was first seen, and its bytes both ways so far."""

    at: float
    sent: int = 0
    received: int = 0


class Question(msgspec.Struct, frozen=True):
    """One line of a resolver's query log."""

    time: float
    name: str


class ShapeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last hour: contacts by flow and connection, and how far the query log was read."""

    contacts: dict[str, dict[str, Contact]] = {}
    questions: tuple[tuple[float, str], ...] = ()
    offset: int = 0


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

    Raises:
        StateError: The log can't be read, or a line is no question.
    """
    try:
        with path.open("rb") as file:
            offset = state.offset if path.stat().st_size >= state.offset else 0
            file.seek(offset)
            data = file.read(16 * 2**20)
    except OSError as error:
        raise StateError(f"{path.name}: can't be read ({error.strerror})") from error
    data = data[: data.rfind(b"\n") + 1]
    try:
        new = [msgspec.json.decode(line, type=Question) for line in data.splitlines() if line]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StateError(f"{path.name}: expected lines with `time` and `name`") from error
    kept = [*state.questions, *((item.time, item.name) for item in new)]
    recent = tuple((at, name) for at, name in kept if at > now - WINDOW_S)[-_MOST:]
    return msgspec.structs.replace(state, questions=recent, offset=offset + len(data))


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
