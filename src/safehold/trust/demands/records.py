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
    reading = StandingReading(state, documents)
    reading.take(leaves)
    return reading.history()


class StandingReading:
    """What a log's leaves have decided so far; more are taken as they come."""

    def __init__(self, state: TrustState, documents: Collection[str]) -> None:
        """Take a state before the first leaf, and the digests of documents whose acts count."""
        self._state, self._documents = state, documents
        self._records: list[StandingRecord] = []
        self._voids: list[str] = []
        self._done: set[str] = set()

    def history(self) -> StandingHistory:
        """Return the records so far."""
        return StandingHistory(tuple(self._records), tuple(self._voids))

    def take(self, leaves: Iterable[tuple[int, Leaf]]) -> None:
        """Take the next leaves, in order."""
        for index, leaf in leaves:
            if isinstance(leaf, Record):
                self._state.observe(leaf.time)
            elif self._state.apply(index, leaf):
                self._take(index, leaf)

    def _take(self, index: int, leaf: Leaf) -> None:
        match leaf:
            case Requested(signed=signed):
                asked, table = signed.request, REPORTED
                persons: tuple[str, ...] = (asked.requester,)
            case Used(request=digest) if digest not in self._done:
                case_ = self._state.cases[digest]
                asked, table, persons = case_.signed.request, DECIDED, case_.carried_by
                self._done.add(digest)
            case _:
                return
        if asked.operation not in table:
            return
        kind = table[asked.operation]
        made = _record(asked, kind, index, leaf.time, persons, self._documents)
        if isinstance(made, str):
            self._voids.append(f"leaf {index}: {made}")
        else:
            self._records.append(made)


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
