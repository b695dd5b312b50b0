"""Standing records out of the transparency log: what persons really asked for and approved.

A record is the detail of a grant request for an operation `standards.*`. It names the document of
standards that it is under, by digest, and counts under no other. Plans, evaluations
and dissent count from the moment their signed request is in the log. Everything that decides counts
when its grant is used, with the persons who carried it; what the request claims of index, time or
approvers is not read.
"""

from collections.abc import Collection, Iterable

import msgspec

from safehold.trust.grants.details import StandingAct
from safehold.trust.grants.events import Requested, Used
from safehold.trust.grants.interface import GrantRequest
from safehold.trust.grants.state import TrustState
from safehold.trust.log.log_entries import Leaf, Record
from safehold.trust.standing.interface import (
    Activation,
    Adjustment,
    Deactivation,
    Determination,
    Dissent,
    EvaluationPlan,
    EvaluationRun,
    StandingRecord,
)

REPORTED: dict[str, type[StandingRecord]] = {
    "standards.plan": EvaluationPlan,
    "standards.evaluation": EvaluationRun,
    "standards.dissent": Dissent,
}
"""What one person reports, by operation."""
DECIDED: dict[str, type[StandingRecord]] = {
    "standards.determine": Determination,
    "standards.activate": Activation,
    "standards.adjust": Adjustment,
    "standards.deactivate": Deactivation,
}
"""What several persons decide, by operation."""


class StandingHistory(msgspec.Struct, frozen=True):
    """The records of a log, and for each request that holds none, why."""

    records: tuple[StandingRecord, ...]
    voids: tuple[str, ...]


def follow(
    leaves: Iterable[tuple[int, Leaf]], state: TrustState, documents: Collection[str]
) -> StandingHistory:
    """Take the leaves of a log, in order, into a fresh state, and return what they decide.

    Args:
        leaves: Index and leaf of every entry.
        state: A state before the first leaf.
        documents: Digests of the documents whose acts count: the one that holds, and the one that
            it supersedes.
    """
    records: list[StandingRecord] = []
    voids: list[str] = []
    done: set[str] = set()
    for index, leaf in leaves:
        if isinstance(leaf, Record):
            state.observe(leaf.time)
            continue
        if not state.apply(index, leaf):
            continue
        match leaf:
            case Requested(signed=signed):
                asked, table = signed.request, REPORTED
                persons: tuple[str, ...] = (asked.requester,)
            case Used(request=digest) if digest not in done:
                case_ = state.cases[digest]
                asked, table, persons = case_.signed.request, DECIDED, case_.carried_by
                done.add(digest)
            case _:
                continue
        if asked.operation not in table:
            continue
        made = _record(asked, table[asked.operation], index, leaf.time, persons, documents)
        if isinstance(made, str):
            voids.append(f"leaf {index}: {made}")
        else:
            records.append(made)
    return StandingHistory(tuple(records), tuple(voids))


def _record(
    asked: GrantRequest,
    kind: type[StandingRecord],
    index: int,
    time: int,
    persons: tuple[str, ...],
    documents: Collection[str],
) -> StandingRecord | str:
    """Return the record of a request, or why it holds none."""
    details = asked.details
    if not isinstance(details, StandingAct):
        return f"{asked.operation}: expected a standing act"
    if details.document not in documents:
        return f"{asked.operation}: it is under another document, {details.document[:16]}"
    try:
        given = msgspec.json.decode(details.record, type=dict[str, object])
        given |= {"index": index, "time": time, "type": kind.__struct_config__.tag}
        if kind is Dissent:
            given["person"] = persons[0]
        elif asked.operation in DECIDED:
            given["approvers"] = persons
        return msgspec.convert(given, kind)
    except msgspec.DecodeError as error:
        return f"{asked.operation}: {error}"


def record_fault(operation: str, details: StandingAct) -> str:
    """Return why an act would hold no record, before anybody signs it; empty when it would."""
    asked = {**REPORTED, **DECIDED}[operation]
    try:
        given = msgspec.json.decode(details.record, type=dict[str, object])
        filled = {"index": 0, "time": 0, "person": "p", "approvers": ()}
        known = {field.name for field in msgspec.structs.fields(asked)}
        given |= {name: value for name, value in filled.items() if name in known}
        msgspec.convert(given | {"type": asked.__struct_config__.tag}, asked)
    except msgspec.DecodeError as error:
        return f"{operation}: {error}"
    return ""
