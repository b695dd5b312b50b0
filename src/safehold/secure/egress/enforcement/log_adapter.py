"""Egress on the transparency log: grants that loosen, records of what was done, revocations."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from safehold.errors import TrustError
from safehold.secure.egress.interface import AuditLog, Authorization
from safehold.trust.grants.events import DecisionNote
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.interface import RefusedError
from safehold.trust.log.log_entries import Record
from safehold.trust.log.memory import hold_against

KIND = "egress"
_RECORDS = {
    "egress.apply": "note",
    "egress.raise": "budget-change",
    "egress.reset": "budget-change",
    "egress.review": "budget-change",
    "egress.release": "unblock",
}
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_LINE = 380


def workload(operation: str, resource: str) -> str:
    """The digest that a request for an egress operation must name as its workload."""
    return hashlib.sha256(f"{operation} {resource}".encode()).hexdigest()


class DeskAuthorizer:
    """Uses a two-party grant of exactly this operation, resource and host; the use is logged.

    The request's resource is of kind `egress`, named like the flow (`*` for everything, the plan's
    digest for a raise), and its workload is `workload(operation, resource)`. The log must be the
    one that this host pinned, with all that was seen of it: who may name a log may have made it.
    """

    def __init__(self, desk: Desk, host: str, memory: Path) -> None:
        """Take the log's desk, this host's name, and its memory of the log."""
        self._desk = desk
        self._host = host
        self._memory = memory

    def _hold(self) -> None:
        store = self._desk.store
        hold_against(self._memory, store.keys, store.source)

    def require(self, operation: str, resource: str) -> Authorization:
        """Spend one use of a live grant, or raise TrustError that says what to request."""
        self._hold()
        digest = workload(operation, resource)
        reasons = []
        for sha256, case in self._desk.state.cases.live():
            asked = case.signed.request
            if (
                case.closed
                or asked.operation != operation
                or (asked.resource.kind, asked.resource.name) != (KIND, resource)
                or asked.host != self._host
                or asked.workload_sha256 != digest
            ):
                continue
            try:
                self._desk.use(sha256, host=self._host, workload_sha256=digest)
            except RefusedError as error:
                reasons.append(str(error))
                continue
            self._hold()  # A log set back to before this use would give it again.
            return Authorization(grant_id=sha256)
        why = f" ({reasons[-1]})" if reasons else ""
        raise TrustError(
            f"{operation} needs a two-party grant on {KIND}/{resource} for host {self._host} "
            f"with workload {digest}{why}"
        )


class DeskAudit:
    """Records every egress event in the transparency log, with the host that it happened on.

    `trust/log/closures.py` reads the closures among them: responders open a case from each.
    """

    def __init__(self, desk: Desk, host: str = "") -> None:
        self._desk = desk
        self._host = host

    def append(self, kind: str, body: Mapping[str, object]) -> int:
        """Append one record and return its index."""
        facts = {"event": kind.replace(".", "-")}
        facts |= {key: _line(value) for key, value in body.items()}
        if self._host:
            facts["host"] = _line(self._host)
        return self._desk.record(
            Record(
                time=self._desk.now(),
                kind=_RECORDS.get(kind, "incident"),
                facts=facts,
                digests={},
            )
        )

    def events(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield nothing: facts in the transparency log are cut to one line for people."""
        return iter(())


def _line(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _UNPRINTABLE.sub("?", text)[:_LINE] or "-"


class BothLogs:
    """The local chain first, then the transparency log."""

    def __init__(self, logs: Sequence[AuditLog]) -> None:
        if not logs:
            raise TrustError("expected at least one audit log")
        self._logs = tuple(logs)

    def append(self, kind: str, body: Mapping[str, object]) -> int:
        """Append to each; return the last index."""
        return [log.append(kind, body) for log in self._logs][-1]

    def events(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield the events of the first, which is the local chain."""
        return self._logs[0].events()


class DeskWeightGrants:
    """Ends every open grant on weights, as the service that watched."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def revoke_all(self, reason: str) -> int:
        """End every open request or grant whose operation touches weights."""
        count = 0
        for sha256, case in self._desk.state.cases.live():
            if case.closed or not case.signed.request.operation.startswith("weights."):
                continue
            self._desk.end(
                DecisionNote(request=sha256, text=_line(f"egress alarm: {reason}")), None
            )
            count += 1
        return count
