"""Explore: search the ledger, see one decision, and open its content with a reason."""

import hashlib

import msgspec

from safehold.console.index import ExchangeLine, Hour, Wanted
from safehold.console.screens.conversation import SaidText, conversation
from safehold.console.shell.access import ConsoleRole, PageVisit
from safehold.console.shell.web import NotFoundError
from safehold.console.sources import ConsoleSources
from safehold.errors import TrustError
from safehold.guard.ledger.interface import EventRow, FinalRow, PromptRow, Row
from safehold.trust.log.log_entries import Record

_PAGE = 50
_MOST_DIGITS = 18
_TOP = 8
_TOP_OF = 200
_WEEK_S = 7 * 86_400
_OUTCOMES = ("complied", "refused_by_model", "blocked_by_guard", "unscorable", "error")


class TopValue(msgspec.Struct, frozen=True):
    """How often one value occurs among the newest matches."""

    value: str
    count: int


class Explored(msgspec.Struct, frozen=True, kw_only=True):
    """The newest matches, what is common among them, and the last week by hour."""

    wanted: Wanted
    rows: tuple[ExchangeLine, ...]
    older: int | None
    """Ask with `before` of this number for the next page."""
    top_of: int
    top: dict[str, tuple[TopValue, ...]]
    hours: tuple[Hour, ...]
    outcomes: tuple[str, ...]
    surfaces: tuple[str, ...]


class DecisionLine(msgspec.Struct, frozen=True):
    """One ledger row of a decision: its number, time, kind, and facts in words."""

    seq: int
    at: float
    kind: str
    facts: dict[str, str]


class DecisionScreen(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of a decision; its content only after it was opened with a reason."""

    decision_id: str
    rows: tuple[DecisionLine, ...]
    blocked: bool
    may_open: bool
    content: tuple[SaidText, ...] | None = None
    reason: str = ""


class OpenContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why somebody looks at a decision's content."""

    reason: str


def explore(visit: PageVisit[ConsoleSources]) -> Explored:
    """Return the exchanges that match the query."""
    query = visit.query
    before = query.get("before", "")
    csv = query.get("format") == "csv"
    wanted = Wanted(
        outcome=query.get("outcome", ""),
        surface=query.get("surface", ""),
        account=query.get("account", ""),
        clause=query.get("clause", ""),
        before=int(before) if before.isdecimal() and len(before) <= _MOST_DIGITS else 0,
        limit=_TOP_OF,
    )
    awaited = _awaited(visit)
    found = [one for one in visit.sources.index.lines(wanted) if one.decision_id not in awaited]
    rows = found if csv else found[:_PAGE]
    hours = tuple(visit.sources.index.hours(visit.now - _WEEK_S))
    return Explored(
        wanted=wanted,
        rows=tuple(rows),
        older=rows[-1].seq if len(found) > len(rows) and rows else None,
        top_of=len(found),
        top={name: _top(found, name) for name in ("account", "clause", "model", "outcome")},
        hours=hours,
        outcomes=_OUTCOMES,
        surfaces=tuple(sorted({one.surface for one in hours} | {wanted.surface} - {""})),
    )


def decision(visit: PageVisit[ConsoleSources]) -> DecisionScreen:
    """Return the rows about one decision, without content.

    Raises:
        NotFoundError: there is no such decision.
        TrustError: this person may still be asked for a verdict on it, and would see the score.
    """
    wanted = visit.params["decision_id"]
    if wanted in _awaited(visit):
        raise TrustError("your verdict on this decision may be asked for: give it first, blind")
    entries = visit.sources.reader.decision(wanted)
    if not entries:
        raise NotFoundError("the ledger has no decision of that id; it may have been pruned")
    lines = [
        DecisionLine(one.seq, one.row.at, one.row.__struct_config__.tag, _facts(one.row))  # type: ignore[arg-type]
        for one in entries
    ]
    blocked = any(
        isinstance(one.row, PromptRow | FinalRow) and one.row.verdict.value == "block"
        for one in entries
    )
    opens = {"lead", "responder", "auditor"} & {role.value for role in visit.roles}
    return DecisionScreen(
        decision_id=wanted, rows=tuple(lines), blocked=blocked, may_open=bool(opens)
    )


def _awaited(visit: PageVisit[ConsoleSources]) -> frozenset[str]:
    """Return what a person who judges must not see yet; others see everything."""
    if not visit.roles & {ConsoleRole.REVIEWER, ConsoleRole.LEAD}:
        return frozenset()
    return visit.sources.cases.awaited(visit.person.id)


def open_decision(visit: PageVisit[ConsoleSources], posted: OpenContent) -> DecisionScreen:
    """Return a decision with its content, once a leaf about the look is in the log.

    Raises:
        TrustError: no reason is given, or the log took no leaf.
    """
    shown = decision(visit)
    if not posted.reason.strip():
        raise TrustError("a look needs a reason: say in a few words why you look")
    desk = visit.sources.desk
    digest = hashlib.sha256(shown.decision_id.encode()).hexdigest()
    note = hashlib.sha256(posted.reason.encode("utf-8", "surrogatepass")).hexdigest()
    desk.record(
        Record(
            time=desk.now(),
            kind="review-open",
            facts={"person": visit.person.id, "where": "explore"},
            digests={"decision": digest, "note": note},
        )
    )
    rows = [entry.row for entry in visit.sources.reader.decision(shown.decision_id)]
    prompt = next((row for row in rows if isinstance(row, PromptRow)), None)
    final = next((row for row in rows if isinstance(row, FinalRow)), None)
    said = conversation(
        None if prompt is None else prompt.exchange, () if final is None else final.delivered
    )
    return msgspec.structs.replace(shown, content=said, reason=posted.reason)


def _top(found: list[ExchangeLine], name: str) -> tuple[TopValue, ...]:
    counts: dict[str, int] = {}
    for one in found:
        value = getattr(one, name)
        if value:
            counts[value] = counts.get(value, 0) + 1
    best = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_TOP]
    return tuple(TopValue(value, count) for value, count in best)


_CONTENT = frozenset({"exchange", "delivered", "text", "decision_id", "at", "detail", "latency"})


def _facts(row: Row) -> dict[str, str]:
    """Return a row's members in words; never content."""
    values = {name: getattr(row, name) for name in row.__struct_fields__ if name not in _CONTENT}
    if isinstance(row, EventRow):
        values |= dict(row.detail)
    if isinstance(row, FinalRow):
        values |= msgspec.structs.asdict(row.latency)
    return {name: _word(value) for name, value in values.items() if value not in (None, "", False)}


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, msgspec.Struct):
        return ", ".join(f"{name} {one}" for name, one in msgspec.structs.asdict(value).items())
    return str(getattr(value, "value", value))
