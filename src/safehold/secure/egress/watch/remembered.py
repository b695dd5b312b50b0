"""The watch's memory held against the audit log: a file that says less is not believed.

`watch.json` can be edited by whoever is root; the log is chained, and, with a transparency log,
witnessed elsewhere. Each time that the unexplained bytes of a flow rose by a two-hundredth of the
line, the log learns the odometers, what had passed and how far each sender's rows were read. At a
start the file may say more than the log, never less.
"""

from collections.abc import Iterable, Mapping

import msgspec

from safehold.secure.egress.explain.accounting import Residual
from safehold.secure.egress.explain.ledger import ChainPosition

KIND = "egress.watch"
STEP = 200
"""One part of the line that an odometer may rise before the log learns of it."""


class Noted(msgspec.Struct, frozen=True):
    """What the audit log knows of the watch: bytes by flow, and positions in senders' rows."""

    residual: Mapping[str, int] = {}
    passed: Mapping[str, int] = {}
    positions: Mapping[str, ChainPosition] = {}

    def body(self) -> dict[str, object]:
        """The event's body."""
        built: dict[str, object] = msgspec.to_builtins(self)
        return built


def last_noted(events: Iterable[tuple[str, Mapping[str, object]]]) -> Noted:
    """Fold the events of an audit log, oldest first; a review clears the odometers."""
    noted = Noted()
    for kind, body in events:
        if kind == KIND:
            noted = msgspec.convert(dict(body), Noted)
        elif kind == "egress.review":
            noted = msgspec.structs.replace(noted, residual={})
    return noted


def worth_noting(noted: Noted, residuals: Mapping[str, Residual], line: int) -> bool:
    """Whether an odometer rose so far that the log should know."""
    least = max(1, line // STEP)
    return any(r.odometer - noted.residual.get(flow, 0) >= least for flow, r in residuals.items())


def believed(
    noted: Noted,
    residuals: Mapping[str, Residual],
    positions: Mapping[str, ChainPosition],
) -> tuple[dict[str, Residual], dict[str, ChainPosition], tuple[str, ...]]:
    """Return odometers and positions that are at least the log's, and what had been edited."""
    said: list[str] = []
    kept, places = dict(residuals), dict(positions)
    for flow, size in noted.residual.items():
        if kept.get(flow, Residual()).odometer < size:
            said.append(f"watch.json says less of {flow} is unexplained than the audit log")
            kept[flow] = msgspec.structs.replace(kept.get(flow, Residual()), odometer=float(size))
    for sender, place in noted.positions.items():
        if places.get(sender, ChainPosition()).seq < place.seq:
            said.append(f"watch.json would count rows of {sender} twice")
            places[sender] = place
    return kept, places, tuple(said)
