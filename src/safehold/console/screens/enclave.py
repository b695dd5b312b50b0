"""The enclave: exemptions, weights and grants, egress against budgets, controls, standards."""

import functools
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from safehold.console.shell.access import PageVisit
from safehold.console.sources import ConsoleSources
from safehold.errors import DataError, SafeholdError
from safehold.govern.controls.engine import read_again
from safehold.govern.controls.interface import Control, ControlResult, ControlRun
from safehold.govern.controls.library import ControlCatalogue, stock_catalogue
from safehold.govern.standards.library import load_standards, stock_names
from safehold.secure.egress.watch.timeline_files import last_rows
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.trust.grants.cases import Case
from safehold.trust.grants.events import Released
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.log_entries import Leaf, read_leaf
from safehold.trust.people.interface import Roster
from safehold.trust.standing.interface import StandardsDocument

_TAIL_BYTES = 2 * 1024 * 1024
_ROW_BYTES = 256 * 1024
_POINTS, _STRETCHES = 240, 24
_LEAVES = 4_000
_STANDING_ROWS = 400
_GRANTS = 400


class ExemptionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One exemption with its end."""

    grant: str
    subject: str
    relaxes: tuple[str, ...]
    surfaces: tuple[str, ...]
    use_case: str
    seats: int
    rate_per_hour: int
    not_before: float
    expires: float
    state: str


class ExemptionsScreen(msgspec.Struct, frozen=True):
    """All exemptions, those in force first."""

    rows: tuple[ExemptionLine, ...]


class WeightGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A request about weights: what, where, how much, how it stands."""

    sha256: str
    operation: str
    model: str
    host: str
    byte_budget: int
    uses: int
    uses_allowed: int
    releases: int
    leases: int
    """Keys that are out under this grant while it holds."""
    expires: float
    state: str


class KeyRelease(msgspec.Struct, frozen=True):
    """A data key that was handed out: its leaf, when, where, to which process, until when."""

    leaf: int
    at: float
    host: str
    request: str
    recipient: str
    ends: float
    live: bool
    """The grant under it still holds: the process keeps the key, and renews its lease."""


class Weights(msgspec.Struct, frozen=True):
    """Grants about weights and the keys that were released under them."""

    rows: tuple[WeightGrant, ...]
    released: tuple[KeyRelease, ...]


class FlowLine(msgspec.Struct, frozen=True):
    """One flow's bytes, and what is left of each of its budgets."""

    flow: str
    passed: int
    budgets: dict[str, tuple[int, int]]
    residual: float


class EgressPoint(msgspec.Struct, frozen=True):
    """What left on each flow since the point before, and what is unexplained by then."""

    time: float
    left: dict[str, int]
    residual: float


class EgressAction(msgspec.Struct, frozen=True):
    """What the watch did."""

    at: float
    level: str
    flow: str
    why: str


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """The newest part of the timeline."""

    said: str
    at: float | None
    rows: tuple[TimelineRow, ...]
    points: tuple[EgressPoint, ...]
    flows: tuple[FlowLine, ...]
    actions: tuple[EgressAction, ...]
    residual: float
    line: int
    undeclared: int


class ControlRow(msgspec.Struct, frozen=True):
    """A control and what the last run found, as it counts now."""

    control: Control
    result: ControlResult | None


class Controls(msgspec.Struct, frozen=True, kw_only=True):
    """The catalogue by family with the newest run's results."""

    said: str
    host: str
    at: float | None
    families: tuple[tuple[str, tuple[ControlRow, ...]], ...]
    satisfied: int
    total: int


class StandingLine(msgspec.Struct, frozen=True):
    """One record of the log about thresholds or standards."""

    leaf: int
    at: float
    kind: str
    facts: dict[str, str]


class Standards(msgspec.Struct, frozen=True):
    """The stock documents, and what the log decided by them."""

    documents: tuple[StandardsDocument, ...]
    rows: tuple[StandingLine, ...]
    voids: tuple[str, ...]


def exemptions(visit: PageVisit[ConsoleSources]) -> ExemptionsScreen:
    """Return the exemptions."""
    rows = [
        ExemptionLine(
            grant=one.grant,
            subject=f"{one.terms.subject.kind.value} {one.terms.subject.id}",
            relaxes=tuple(f"{each.clause}: {each.action.value}" for each in one.terms.relaxations),
            surfaces=one.terms.surfaces,
            use_case=one.terms.use_case,
            seats=one.terms.seats,
            rate_per_hour=one.terms.rate_per_hour,
            not_before=one.not_before,
            expires=one.expires,
            state=_exempt(ended=one.ended, start=one.not_before, end=one.expires, now=visit.now),
        )
        for one in visit.sources.desk.state.exemptions()
    ]
    return ExemptionsScreen(
        tuple(sorted(rows, key=lambda one: (one.state != "in force", one.expires)))
    )


def _exempt(*, ended: bool, start: float, end: float, now: float) -> str:
    if ended:
        return "ended"
    if now >= end:
        return "expired"
    return "in force" if now >= start else "not yet"


def weights(visit: PageVisit[ConsoleSources]) -> Weights:
    """Return the grants about weights, and the keys that are out under them."""
    state = visit.sources.desk.state
    released = [
        _key_release(index, leaf, state.cases.get(leaf.request), visit.now)
        for index, leaf in leaves(visit, most=_LEAVES)
        if isinstance(leaf, Released)
    ]
    leases = Counter(one.request for one in released if one.live)
    rows = []
    for digest in islice(reversed(list(state.cases)), _GRANTS):
        case = state.cases[digest]
        asked = case.signed.request
        if not asked.operation.startswith("weights."):
            continue
        used = "used up" if case.uses >= asked.uses else "waits" if not case.uses else "in use"
        rows.append(
            WeightGrant(
                sha256=digest,
                operation=asked.operation,
                model=f"{asked.resource.name} {asked.resource.version}",
                host=asked.host,
                byte_budget=asked.byte_budget,
                uses=case.uses,
                uses_allowed=asked.uses,
                releases=case.releases,
                leases=leases[digest],
                expires=asked.expires,
                state="over" if _over(case, visit.now) else used,
            )
        )
    return Weights(tuple(rows), tuple(reversed(released)))


def _over(case: Case, now: float) -> bool:
    return case.closed or case.signed.request.expires <= now


def _key_release(index: int, leaf: Released, case: Case | None, now: float) -> KeyRelease:
    ends = float(case.signed.request.expires) if case is not None else float(leaf.time)
    live = case is not None and not _over(case, now)
    return KeyRelease(index, leaf.time, leaf.host, leaf.request, leaf.recipient, ends, live)


def leaves(visit: PageVisit[ConsoleSources], *, most: int) -> Iterator[tuple[int, Leaf]]:
    """Yield the newest leaves of the log, in order."""
    store = visit.sources.desk.store
    keys = store.keys.emitter_keys()
    start = max(0, store.checkpoint().size - most)
    for index, entry in store.entries(start):
        yield index, read_leaf(open_envelope(entry, keys)[0])


def egress(visit: PageVisit[ConsoleSources]) -> Egress:
    """Return the newest part of the timeline."""
    path = visit.sources.timeline
    said = "no timeline is named (option --timeline)"
    rows: tuple[TimelineRow, ...] = ()
    if path is not None:
        try:
            rows, said = tail(path), ""
        except SafeholdError as error:
            said = str(error)
    if not rows:
        return Egress(said=said or "the timeline is empty", at=None, rows=(), points=(),
                      flows=(), actions=(), residual=0.0, line=0, undeclared=0)  # fmt: skip
    last = rows[-1]
    names = [name for name in last.passed if name != "total"]
    flows = tuple(
        FlowLine(
            name,
            last.passed[name],
            {
                window: (last.remaining.get(name, {}).get(window, 0), size)
                for window, size in last.budgets.get(name, {}).items()
            },
            last.residual.get(name, 0.0),
        )
        for name in names
    )
    actions = [EgressAction(row.time, *action) for row in rows for action in row.actions]
    step = max(1, len(rows) // _POINTS)
    return Egress(
        said="",
        at=last.time,
        rows=rows[::step],
        points=_points(rows),
        flows=flows,
        actions=tuple(reversed(actions[-50:])),
        residual=sum(last.residual.values()),
        line=last.line,
        undeclared=last.undeclared,
    )


def _points(rows: tuple[TimelineRow, ...]) -> tuple[EgressPoint, ...]:
    """Return what left in each of equal stretches of time, at most two dozen."""
    start, span = rows[0].time, max(1.0, rows[-1].time - rows[0].time)
    # The last row of each stretch; a stretch without one has no point.
    ends = {min(_STRETCHES - 1, int((row.time - start) / span * _STRETCHES)): row for row in rows}
    found, before = [], rows[0]
    for row in list(ends.values()):
        if row is not rows[0]:
            left = {
                name: max(0, size - before.passed.get(name, 0)) for name, size in row.passed.items()
            }
            found.append(EgressPoint(row.time, left, sum(row.residual.values())))
        before = row
    return tuple(found)


def newest_row(path: Path) -> TimelineRow | None:
    """Return the last row of a timeline, or None while there is none; reads little of it.

    Raises:
        DataError: as `tail`.
    """
    rows = tail(path, most_bytes=_ROW_BYTES)
    return rows[-1] if rows else None


def tail(path: Path, *, most_bytes: int = _TAIL_BYTES) -> tuple[TimelineRow, ...]:
    """Return the rows in about the last bytes of a timeline; one that is being written is none.

    Raises:
        DataError: it can't be read, or no line is a row.
    """
    rows = last_rows(path, at_least_bytes=most_bytes)
    if not rows and path.stat().st_size:
        raise DataError(f"{path.name}: a line is no timeline row")
    return tuple(rows)


@functools.lru_cache(maxsize=1)
def _catalogue() -> ControlCatalogue:
    return stock_catalogue()


def controls(visit: PageVisit[ConsoleSources]) -> Controls:
    """Return the catalogue with the results of the named run, as they count now."""
    catalogue, path = _catalogue(), visit.sources.controls
    found: dict[str, ControlResult] = {}
    said, host, at = "no run is named (option --controls)", "", None
    if path is not None:
        try:
            run = msgspec.json.decode(path.read_bytes(), type=ControlRun)
            found = {one.control: one for one in read_again(run, catalogue, int(visit.now))}
            said, host, at = "", run.host, float(run.at)
        except (OSError, msgspec.DecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "another form"
            said = f"{path.name}: no run of controls ({why})"
        except SafeholdError as error:
            said = str(error)
    families = tuple(
        (one.title, tuple(ControlRow(each, found.get(each.id)) for each in one.control))
        for one in catalogue.families
    )
    return Controls(
        said=said,
        host=host,
        at=at,
        families=families,
        satisfied=sum(one.satisfied for one in found.values()),
        total=len(catalogue.controls),
    )


@functools.lru_cache(maxsize=1)
def _documents() -> tuple[StandardsDocument, ...]:
    return tuple(load_standards(name) for name in stock_names())


def in_words(value: object, roster: Roster) -> str:
    """Return a fact as people read it: persons by name, lists in a row, yes and no."""
    if isinstance(value, tuple | list):
        return ", ".join(in_words(one, roster) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    person = roster.person(value) if isinstance(value, str) else None
    return str(value) if person is None else person.name


def standards(visit: PageVisit[ConsoleSources]) -> Standards:
    """Return the documents and the log's records about them."""
    documents = _documents()
    history = visit.sources.standing.history(visit.sources.desk.store, documents)
    rows = []
    for one in history.records[-_STANDING_ROWS:]:
        facts = msgspec.structs.asdict(one)
        words = {
            key: in_words(value, visit.sources.desk.state.roster)
            for key, value in facts.items()
            if key not in {"index", "time"} and value not in ("", ())
        }
        kind = str(one.__struct_config__.tag)
        rows.append(StandingLine(one.index, float(one.time), kind, words))
    return Standards(documents, tuple(reversed(rows)), history.voids)
