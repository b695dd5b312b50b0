"""What the transparency log says of people, grants and records, replayed and verified."""

from pathlib import Path

import msgspec

from safehold.errors import SafeholdError
from safehold.govern.controls.interface import HostError
from safehold.trust.grants.cases import Case
from safehold.trust.grants.details import Facts as NamedFacts
from safehold.trust.grants.events import Alarm, RefusedUse, Used
from safehold.trust.grants.state import TrustState
from safehold.trust.log.checkpoint import open_checkpoint, verify_cosignatures
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.keys import read_keys
from safehold.trust.log.log_entries import Record, read_leaf


class CaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what became of it; persons by id, times in POSIX seconds."""

    operation: str
    requester: str
    request: str = ""
    carried_by: tuple[str, ...] = ()
    details: dict[str, str] = {}
    purpose: str = ""
    ticket: str = ""
    parts: tuple[str, ...] = ("*",)
    byte_budget: int = 0
    not_before: int = 0
    expires: int = 0
    workload_sha256: str = ""
    requested_at: int = 0
    used_at: int | None = None
    releases: int = 0
    broken_at: int | None = None
    reviewers: tuple[str, ...] = ()
    reviews_until: int = 0
    closed: bool = False


class RecordFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A record of some part: its kind, its facts and its digests."""

    time: int
    kind: str
    facts: dict[str, str] = {}
    digests: dict[str, str] = {}


class Occurrence(msgspec.Struct, frozen=True):
    """A use, a refused use or an alarm: when, about which request or subject, and why."""

    time: int
    about: str
    why: str = ""


class PersonFacts(msgspec.Struct, frozen=True):
    """An enrolled identity: its teams with their parents, and the kinds of its keys."""

    id: str
    name: str
    kind: str
    teams: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class RuleFacts(msgspec.Struct, frozen=True):
    """A rule of the grants' policy: how many persons approve, how long, by which keys."""

    operation: str
    persons: int
    max_duration_s: int
    keys: tuple[str, ...]
    break_glass: bool = False


class LogReading(msgspec.Struct, frozen=True, kw_only=True):
    """A whole log, verified; `witnesses` are the times of their newest cosignatures."""

    size: int
    last_time: int
    first_time: int
    witnessed_size: int
    witnesses: dict[str, int]
    voids: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    records: tuple[RecordFacts, ...]
    uses: tuple[Occurrence, ...]
    refusals: tuple[Occurrence, ...]
    alarms: tuple[Occurrence, ...]
    persons: tuple[PersonFacts, ...]
    rules: tuple[RuleFacts, ...]
    policy_version: int = 1

    def of_kind(self, kind: str) -> tuple[RecordFacts, ...]:
        """Return the records of a kind, oldest first."""
        return tuple(one for one in self.records if one.kind == kind)

    def used(self, prefix: str) -> tuple[CaseFacts, ...]:
        """Return the cases of an operation (or a family `x.`) whose grant was used."""
        return tuple(
            one
            for one in self.cases
            if one.operation.startswith(prefix) and one.used_at is not None
        )


def read_log(folder: Path, keys_file: Path) -> LogReading:
    """Replay a log.

    Raises:
        HostError: it can't be read, or contradicts its own signed head.
    """
    try:
        return _read(folder, keys_file)
    except SafeholdError as error:
        raise HostError(f"the log: {error}") from error


def read_state(folder: Path, keys_file: Path) -> TrustState:
    """Replay a log, and return who is enrolled, what the policy is, and every case.

    Raises:
        HostError: it can't be read, or contradicts its own signed head.
    """
    try:
        keys = read_keys(keys_file)
        state = TrustState(keys.origin, keys.founding)
        for index, entry in Follower(DirectorySource(folder), keys).news():
            leaf = read_leaf(open_envelope(entry, keys.emitter_keys())[0])
            if isinstance(leaf, Record):
                state.observe(leaf.time)
            else:
                state.apply(index, leaf)
    except SafeholdError as error:
        raise HostError(f"the log: {error}") from error
    return state


def _read(folder: Path, keys_file: Path) -> LogReading:
    keys = read_keys(keys_file)
    source = DirectorySource(folder)
    follower = Follower(source, keys)
    emitters = keys.emitter_keys()
    state = TrustState(keys.origin, keys.founding)
    records: list[RecordFacts] = []
    seen: dict[str, list[Occurrence]] = {"use": [], "refusal": [], "alarm": []}
    times: list[int] = []
    for index, entry in follower.news():
        leaf = read_leaf(open_envelope(entry, emitters)[0])
        times.append(leaf.time)
        if isinstance(leaf, Record):
            state.observe(leaf.time)
            records.append(
                RecordFacts(time=leaf.time, kind=leaf.kind, facts=leaf.facts, digests=leaf.digests)
            )
            continue
        if not state.apply(index, leaf):
            continue
        match leaf:
            case Used():
                seen["use"].append(Occurrence(leaf.time, leaf.request))
            case RefusedUse():
                seen["refusal"].append(Occurrence(leaf.time, leaf.request, leaf.reason))
            case Alarm():
                seen["alarm"].append(Occurrence(leaf.time, leaf.subject, leaf.kind))
            case _:
                pass
    witnesses: dict[str, int] = {}
    witnessed = 0
    data = source.read("witnessed")
    if data is not None and keys.witnesses:
        head, note = open_checkpoint(data, keys.log_key(), origin=keys.origin)
        witnessed = head.size
        witnesses = {
            one.witness: one.time for one in verify_cosignatures(note, keys.witness_keys())
        }
    policy = state.policy if state.founding_sha256 else None
    return LogReading(
        size=follower.size,
        last_time=max(times, default=0),
        first_time=min(times, default=0),
        witnessed_size=witnessed,
        witnesses=witnesses,
        voids=tuple(f"leaf {void.index}: {void.reason}" for void in state.voids),
        cases=tuple(_case(digest, one) for digest, one in state.cases.items()),
        records=tuple(records),
        uses=tuple(seen["use"]),
        refusals=tuple(seen["refusal"]),
        alarms=tuple(seen["alarm"]),
        persons=tuple(
            PersonFacts(
                one.id,
                one.name,
                one.kind.value,
                tuple(sorted(state.roster.teams_of(one))),
                one.roles,
                tuple(key.kind.value for key in one.keys),
            )
            for one in state.roster.persons
        ),
        rules=tuple(
            RuleFacts(
                rule.operation,
                sum(quorum.count for quorum in rule.thresholds),
                rule.max_duration_s,
                tuple(kind.value for kind in rule.keys),
                rule.break_glass is not None,
            )
            for rule in (policy.rules if policy else ())
        ),
        policy_version=policy.version if policy else 0,
    )


def _case(digest: str, case: Case) -> CaseFacts:
    asked = case.signed.request
    details = asked.details.values if isinstance(asked.details, NamedFacts) else {}
    return CaseFacts(
        operation=asked.operation,
        requester=asked.requester,
        request=digest,
        carried_by=case.carried_by,
        details=dict(details),
        purpose=asked.purpose,
        ticket=asked.ticket,
        parts=asked.resource.parts,
        byte_budget=asked.byte_budget,
        not_before=asked.not_before,
        expires=asked.expires,
        workload_sha256=asked.workload_sha256,
        requested_at=case.requested_at,
        used_at=case.used_at,
        releases=case.releases,
        broken_at=case.broken_at,
        reviewers=tuple(case.reviewers),
        reviews_until=case.reviews_until,
        closed=case.closed,
    )
