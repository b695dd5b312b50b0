"""What comes from outside and goes there: intelligence, the endpoint's refusals, the report."""

from collections import Counter
from pathlib import Path

import msgspec

from safehold.console.shell.access import PageVisit
from safehold.console.sources import ConsoleSources
from safehold.detect.intel.interface import InboundState
from safehold.detect.intel.store import IntelStore
from safehold.errors import DataError, SafeholdError
from safehold.govern.report.interface import ClaimState, Report
from safehold.secure.endpoint.records import Denial

_TAIL_BYTES = 2 * 1024 * 1024
_SHOWN = 200
_TEXT_CHARS = 4_000


class ToldTechnique(msgspec.Struct, frozen=True):
    """A technique that we share: its family and disguises, how bad, how often seen."""

    family: str
    chain: tuple[str, ...]
    atlas: tuple[str, ...]
    band: str
    seen: int
    fixes: int


class ArrivedObject(msgspec.Struct, frozen=True):
    """An object of a feed; its text is its sender's."""

    number: int
    feed: str
    kind: str
    tlp: str
    state: str
    received_at: float
    expires_at: float
    text: str


class Intel(msgspec.Struct, frozen=True, kw_only=True):
    """What we tell and what we were told."""

    said: str
    told: tuple[ToldTechnique, ...]
    rows: tuple[ArrivedObject, ...]
    counts: dict[str, dict[str, int]]
    waiting: int


class EndpointScreen(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoint guard refused, newest first, and what it refused most."""

    said: str
    rows: tuple[Denial, ...]
    refused: int
    by_reason: tuple[tuple[str, int], ...]
    by_program: tuple[tuple[str, int], ...]


class ReportPage(msgspec.Struct, frozen=True, kw_only=True):
    """A report that was built, claim by claim."""

    said: str
    report: Report | None
    counts: dict[str, int]


def intel(visit: PageVisit[ConsoleSources]) -> Intel:
    """Return the intelligence."""
    store = visit.sources.more.get("intel")
    if not isinstance(store, IntelStore):
        said = "no store of intelligence is named (option --intel)"
        return Intel(said=said, told=(), rows=(), counts={}, waiting=0)
    arrived = store.quarantined()
    return Intel(
        said="",
        told=tuple(
            ToldTechnique(
                family=one.family,
                chain=one.chain,
                atlas=one.atlas,
                band=one.band.value,
                seen=sum(week.count for week in one.seen),
                fixes=len(one.fixes),
            )
            for one in store.techniques()
        ),
        rows=tuple(
            ArrivedObject(
                number=one.number,
                feed=one.feed,
                kind=one.kind,
                tlp=one.tlp.value,
                state=one.state.value,
                received_at=one.received_at,
                expires_at=one.expires_at,
                text=one.value[:_TEXT_CHARS].decode("utf-8", "replace"),
            )
            for one in reversed(arrived[-_SHOWN:])
        ),
        counts=store.counts(),
        waiting=sum(one.state is InboundState.QUARANTINED for one in arrived),
    )


def endpoint(visit: PageVisit[ConsoleSources]) -> EndpointScreen:
    """Return the newest refusals."""
    path, said = visit.sources.endpoint, "no record is named (option --endpoint)"
    rows: list[Denial] = []
    if path is not None:
        try:
            rows, said = _tail(path), ""
        except SafeholdError as error:
            said = str(error)
    reasons: Counter[str] = Counter()
    programs: Counter[str] = Counter()
    for one in rows:
        reasons[one.reason] += one.count
        programs[one.path] += one.count
    return EndpointScreen(
        said=said,
        rows=tuple(reversed(rows[-_SHOWN:])),
        refused=sum(reasons.values()),
        by_reason=tuple(reasons.most_common(8)),
        by_program=tuple(programs.most_common(8)),
    )


def report(visit: PageVisit[ConsoleSources]) -> ReportPage:
    """Return the report that was built last."""
    path = visit.sources.report
    none = {state.value: 0 for state in ClaimState}
    if path is None:
        return ReportPage(said="no report is named (option --report)", report=None, counts=none)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "another form"
        said = f"{path.name}: no report ({why})"
        return ReportPage(said=said, report=None, counts=none)
    states = Counter(one.state.value for one in found.claims)
    return ReportPage(said="", report=found, counts={**none, **states})


def _tail(path: Path) -> list[Denial]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError as error:
        raise DataError(f"{path.name}: can't be read ({error.strerror})") from error
    try:
        whole = lines[1 if size > _TAIL_BYTES else 0 : -1]
        return [msgspec.json.decode(one, type=Denial) for one in whole]
    except msgspec.DecodeError as error:
        raise DataError(f"{path.name}: a line is no record of the endpoint guard") from error
