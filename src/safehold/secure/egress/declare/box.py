"""The register as a forwarding box can hold a host to it: by addresses and ports alone.

A box sees packets, not processes. Each row becomes one for packets that come in by the inside
device; rows that differ only in who sends on the host pay from one account, with the sum of their
budgets. So a box never lets more pass than the register allows in all, whatever the host says of
its processes.
"""

from collections.abc import Mapping, Sequence

import msgspec

from safehold.secure.egress.declare.plan import Box
from safehold.secure.egress.declare.register import Flow, Source, meetings
from safehold.secure.egress.interface import Window


class Boxed(msgspec.Struct, frozen=True):
    """A register on a box: accounts that pay, rows to match with their account, and who is where.

    `account` says for each row's id which account it pays from.
    """

    flows: tuple[Flow, ...]
    rows: tuple[tuple[str, Flow], ...]
    account: Mapping[str, str]


def boxed(live: Sequence[Flow], box: Box) -> Boxed:
    """Return what a box enforces of these live rows."""
    rows = tuple(_seen(row, box) for row in live)
    head = {row.id: row.id for row in rows}

    def first(name: str) -> str:
        while head[name] != name:
            head[name] = head[head[name]]
            name = head[name]
        return name

    order = {row.id: number for number, row in enumerate(rows)}
    for one, two in meetings(rows):
        early, late = sorted((first(one.id), first(two.id)), key=order.__getitem__)
        head[late] = early
    account = {row.id: first(row.id) for row in rows}
    members: dict[str, list[Flow]] = {}
    for row in rows:
        members.setdefault(account[row.id], []).append(row)
    return Boxed(
        flows=tuple(_together(group) for group in members.values()),
        rows=tuple((account[row.id], row) for row in rows),
        account=account,
    )


def _seen(row: Flow, box: Box) -> Flow:
    source = Source(interface=box.inside, address=row.source.address or box.addresses)
    return msgspec.structs.replace(row, source=source)


def _together(group: Sequence[Flow]) -> Flow:
    """One account for rows that a box can't tell apart, named as the first."""
    peaks = [row.peak_bit_s for row in group]
    return msgspec.structs.replace(
        group[0],
        budget={window: sum(row.budget[window] for row in group) for window in Window},
        reconciled=all(row.reconciled for row in group),
        peak_bit_s=sum(peaks) if all(peaks) else 0,
        expires=min(row.expires for row in group),
    )
