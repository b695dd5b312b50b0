"""Bounty: the public form, and triage as far as it needs no triage key.

Content is sealed to triage's key, which no server holds: it is opened where the key is
(`safehold bounty open`), never here.
"""

from dataclasses import dataclass

import msgspec

from safehold.console.shell.access import Done, PageVisit
from safehold.console.shell.web import NotFoundError
from safehold.console.sources import ConsoleSources
from safehold.detect.bounty.book import BountyBook, BountyEntry
from safehold.detect.bounty.interface import NEXT, BountyProgramme, BountyState
from safehold.detect.bounty.programme import programme_digest
from safehold.detect.bounty.sealing import seal
from safehold.errors import DataError, UsageError

_DIGITS = 9
"""No book counts further."""


@dataclass(frozen=True, slots=True)
class BountyDesk:
    """The book and the terms."""

    book: BountyBook
    programme: BountyProgramme


class Terms(msgspec.Struct, frozen=True):
    """What the public page shows."""

    programme: BountyProgramme
    digest: str


class BountyList(msgspec.Struct, frozen=True):
    """All submissions, newest first."""

    rows: tuple[BountyEntry, ...]
    waiting: int
    overdue: int
    said: str


class Happening(msgspec.Struct, frozen=True):
    """Who did what with a submission."""

    at: float
    by: str
    what: str
    detail: str


class BountyPage(msgspec.Struct, frozen=True, kw_only=True):
    """One submission: its states, its promises, its replays; never its content."""

    entry: BountyEntry
    history: tuple[Happening, ...]
    replays: tuple[dict[str, str], ...]
    may_reject: bool
    may_duplicate: bool


class Reject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the submitter is told."""

    why: str


class Duplicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which submission was first."""

    of: int


class PublicSubmission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public form: either a sealed text, or a report that is sealed before it is kept."""

    sealed: str = ""
    title: str = ""
    handle: str = ""
    prompt: str = ""
    notes: str = ""


def desk_of(sources: ConsoleSources) -> BountyDesk | None:
    """Return the bounty's book and terms, where the operator named them."""
    found = sources.more.get("bounty")
    return found if isinstance(found, BountyDesk) else None


def _desk(visit: PageVisit[ConsoleSources]) -> BountyDesk:
    desk = desk_of(visit.sources)
    if desk is None:
        raise NotFoundError("no bounty programme is named (options --programme and --book)")
    return desk


def bounty(visit: PageVisit[ConsoleSources]) -> BountyList:
    """Return the submissions."""
    desk = desk_of(visit.sources)
    if desk is None:
        return BountyList((), 0, 0, "no bounty programme is named (options --programme and --book)")
    rows = tuple(reversed(desk.book.entries()))
    new = {BountyState.NEW, BountyState.TRIAGE, BountyState.REPRODUCED}
    waiting = sum(one.state in new for one in rows)
    overdue = sum(due.overdue and due.kept_at is None for one in rows for due in one.due)
    return BountyList(rows, waiting, overdue, "")


def submission(visit: PageVisit[ConsoleSources]) -> BountyPage:
    """Return one submission."""
    desk, number = _desk(visit), _number(visit)
    try:
        entry = desk.book.entry(number)
    except UsageError as error:
        raise NotFoundError(str(error)) from error
    after = NEXT.get(entry.state, frozenset())
    return BountyPage(
        entry=entry,
        history=tuple(
            Happening(
                float(str(one["at"])),
                _who(visit, str(one["by"])),
                str(one["what"]),
                str(one["detail"]),
            )
            for one in desk.book.history(number)
        ),
        replays=tuple(
            {key: str(value) for key, value in one.summary().items()}
            for one in desk.book.reports(number)
        ),
        may_reject=BountyState.REJECTED in after,
        may_duplicate=BountyState.DUPLICATE in after,
    )


def _who(visit: PageVisit[ConsoleSources], person_id: str) -> str:
    person = visit.sources.desk.state.roster.person(person_id)
    return person_id if person is None else person.name


def reject(visit: PageVisit[ConsoleSources], posted: Reject) -> Done:
    """Reject a submission, and say why."""
    number = _number(visit)
    if not posted.why.strip():
        raise UsageError("say why: the submitter is told")
    _desk(visit).book.reject(number, visit.person.id, why=posted.why.strip())
    return Done(f"Submission {number} is rejected.", f"/bounty/{number}")


def duplicate(visit: PageVisit[ConsoleSources], posted: Duplicate) -> Done:
    """Mark a submission as a duplicate."""
    number = _number(visit)
    _desk(visit).book.duplicate(number, visit.person.id, of=posted.of)
    return Done(f"Submission {number} duplicates {posted.of}.", f"/bounty/{number}")


def terms(sources: ConsoleSources) -> Terms:
    """Return the public page's facts.

    Raises:
        NotFoundError: there is no programme.
    """
    desk = desk_of(sources)
    if desk is None:
        raise NotFoundError("there is no bounty programme here")
    return Terms(desk.programme, programme_digest(desk.programme))


def receive(sources: ConsoleSources, posted: PublicSubmission) -> int:
    """Keep a submission and return its number; a plain report is sealed first, in memory.

    Raises:
        DataError: it is neither a sealed text nor a whole report.
    """
    desk = desk_of(sources)
    if desk is None:
        raise NotFoundError("there is no bounty programme here")
    if posted.sealed.strip():
        return desk.book.receive(posted.sealed.strip().encode("utf-8", "surrogatepass"))
    missing = [name for name in ("title", "handle", "prompt") if not getattr(posted, name).strip()]
    if missing:
        raise DataError(f"expected a sealed text, or all of the report; {missing[0]} is empty")
    report = {
        "title": posted.title.strip(),
        "handle": posted.handle.strip(),
        "turns": [{"role": "user", "text": posted.prompt}],
        "notes": posted.notes,
    }
    sealed = seal(
        msgspec.json.encode(report),
        to=desk.programme.triage_key,
        programme=programme_digest(desk.programme),
    )
    return desk.book.receive(sealed)


def _number(visit: PageVisit[ConsoleSources]) -> int:
    text = visit.params["number"]
    if not text.isdecimal() or len(text) > _DIGITS:
        raise NotFoundError("there is no submission of that number")
    return int(text)
