"""The map of flows: who owns what leaves, what it is for, how much, and what changed in a week.

It is made from the register, the watch's timeline and, when something observes the host
(`learn --keep`), what was seen on the wire.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from safehold.secure.egress.bounds.budget import prove
from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow, Register
from safehold.secure.egress.interface import BudgetError, Window
from safehold.secure.egress.units import human_bytes
from safehold.secure.egress.watch.observe_flows import SeenFlow, compare
from safehold.secure.egress.watch.timeline_rows import TimelineRow

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
_UNFINISHED = frozenset({"FILL IN", "TODO", "?", "-", "unknown"})


class MappedFlow(msgspec.Struct, frozen=True):
    """One row of the map; bytes a day over the last week and the week before it."""

    id: str
    owner: str
    purpose: str
    data_class: str
    direction: str
    destinations: int
    expires: str
    bytes_a_day: float
    week_before: float | None
    of_budget: float
    notes: tuple[str, ...] = ()


class FlowMap(msgspec.Struct, frozen=True):
    """All declared flows, those that no row declares, and what needs somebody's attention."""

    days: float
    flows: tuple[MappedFlow, ...]
    undeclared: tuple[SeenFlow, ...]
    undeclared_a_day: float

    @property
    def attention(self) -> tuple[str, ...]:
        """Rows with a note, and one line for what no row declares."""
        said = [f"{flow.id}: {note}" for flow in self.flows for note in flow.notes]
        if self.undeclared or self.undeclared_a_day > 0:
            said.append(f"undeclared: {human_bytes(self.undeclared_a_day)} a day have no owner")
        return tuple(said)


def flow_map(
    register: Register,
    rows: Sequence[TimelineRow],
    seen: Sequence[SeenFlow],
    today: dt.date,
) -> FlowMap:
    """Make the map; a row without bytes in the last week is unused."""
    end = rows[-1].time if rows else 0.0
    span = min(WEEK_S, end - rows[0].time) if rows else 0.0
    days = span / DAY_S
    found = compare(register, seen, today)
    return FlowMap(
        days=days,
        flows=tuple(_mapped(flow, rows, end, today) for flow in register.flows),
        undeclared=found.undeclared,
        undeclared_a_day=_undeclared(rows, end - span) / days if days else 0.0,
    )


def _mapped(flow: Flow, rows: Sequence[TimelineRow], end: float, today: dt.date) -> MappedFlow:
    now = _a_day(flow.id, rows, end - WEEK_S, end)
    before = _a_day(flow.id, rows, end - 2 * WEEK_S, end - WEEK_S)
    size = now or 0.0
    notes = []
    if flow.owner.strip() in _UNFINISHED or flow.purpose.strip() in _UNFINISHED:
        notes.append("unowned: nobody filled in owner or purpose")
    if flow.expired(today):
        notes.append(f"expired on {flow.expires}: it is dropped")
    elif rows and size == 0:
        notes.append("unused for a week: take the row out")
    return MappedFlow(
        id=flow.id,
        owner=flow.owner,
        purpose=flow.purpose,
        data_class=flow.data_class.value,
        direction=flow.direction.value,
        destinations=len(flow.destination),
        expires=str(flow.expires),
        bytes_a_day=size,
        week_before=before,
        of_budget=size / flow.budget[Window.DAY],
        notes=tuple(notes),
    )


def _a_day(name: str, rows: Sequence[TimelineRow], begin: float, end: float) -> float | None:
    """Bytes a day between two times; None when the timeline does not reach back so far."""
    inside = [row for row in rows if begin <= row.time <= end and name in row.passed]
    if len(inside) <= 1:
        return None
    span = inside[-1].time - inside[0].time
    return (inside[-1].passed[name] - inside[0].passed[name]) / span * DAY_S if span else None


def _undeclared(rows: Sequence[TimelineRow], begin: float) -> float:
    """New undeclared bytes since a time; a counter that was made anew began at 0."""
    total, last = 0.0, None
    for row in rows:
        if row.time >= begin:
            if last is not None:
                total += row.undeclared - last if row.undeclared >= last else row.undeclared
            last = row.undeclared
    return total


class StealMonth(msgspec.Struct, frozen=True):
    """Days that it takes to steal the weights under the budgets of one month."""

    month: str
    honest_days: float
    owned_days: float


def steal_months(
    rows: Sequence[TimelineRow], flows: Sequence[Flow], plan: EgressPlan
) -> tuple[StealMonth, ...]:
    """Time to steal month by month, from the budgets that the timeline says were in force.

    A month whose budgets break the bound has 0 days with honest senders.
    """
    budgets: dict[str, Mapping[str, Mapping[str, int]]] = {}
    for row in rows:
        if row.budgets:
            budgets[dt.datetime.fromtimestamp(row.time, dt.UTC).strftime("%Y-%m")] = row.budgets
    return tuple(steal_month(name, _with(flows, held), plan) for name, held in budgets.items())


def steal_month(name: str, flows: Sequence[Flow], plan: EgressPlan) -> StealMonth:
    """Time to steal with these rows."""
    try:
        proof = prove(tuple(flows), plan)
    except BudgetError:
        return StealMonth(name, 0.0, 0.0)
    return StealMonth(name, proof.honest_steal_days, proof.owned_steal_days)


def _with(flows: Sequence[Flow], held: Mapping[str, Mapping[str, int]]) -> tuple[Flow, ...]:
    return tuple(
        msgspec.structs.replace(flow, budget={w: held[flow.id][w.value] for w in Window})
        for flow in flows
        if flow.id in held
    )


def map_text(found: FlowMap) -> str:
    """Say it for a person."""
    lines = [
        f"{'flow':<20}{'owner':<20}{'class':<14}{'a day':>10}{'week before':>13}{'of budget':>11}"
    ]
    for flow in found.flows:
        before = "-" if flow.week_before is None else human_bytes(flow.week_before)
        lines.append(
            f"{flow.id:<20}{flow.owner[:18]:<20}{flow.data_class:<14}"
            f"{human_bytes(flow.bytes_a_day):>10}{before:>13}{flow.of_budget:>11.1%}"
        )
        lines.append(f"  {flow.purpose}; until {flow.expires}")
    for item in found.undeclared[:20]:
        flow5 = item.flow
        where = f"{flow5.protocol} {flow5.destination} {flow5.port} {flow5.user or flow5.uid}"
        lines.append(f"{'UNDECLARED':<54}{human_bytes(item.sent):>10}   {where}")
    lines += [f"look at {note}" for note in found.attention]
    return "\n".join(lines)


def steal_text(months: Sequence[StealMonth]) -> str:
    """Draw time to steal month by month, as bars of days."""
    most = max((one.honest_days for one in months), default=0.0) or 1.0
    lines = ["time to steal the weights, in days, with honest senders (and when all are owned):"]
    for one in months:
        bar = "#" * max(1, round(40 * one.honest_days / most)) if one.honest_days else ""
        lines.append(f"  {one.month:<10}{one.honest_days:>9.1f} ({one.owned_days:.2g})  {bar}")
    return "\n".join(lines)
