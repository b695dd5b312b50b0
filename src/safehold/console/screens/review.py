"""Review: the queue, a case, and one exchange judged blind."""

import math

import msgspec

from safehold.console.screens.conversation import SaidText, conversation
from safehold.console.shell.access import ConsoleRole, Done, PageVisit
from safehold.console.shell.web import NotFoundError
from safehold.console.sources import ConsoleSources
from safehold.detect.monitoring.account_book import AccountBook, KeptLabel
from safehold.detect.monitoring.accounts import Caps
from safehold.detect.review.agreement import krippendorff_alpha
from safehold.detect.review.interface import (
    BY_TWO,
    CaseAction,
    Context,
    ReviewVerdict,
    actions_for,
)
from safehold.detect.review.reading import PAUSE_AFTER_S, CaseItem, CaseRecord, QueuedCase
from safehold.errors import TrustError, UsageError

_DIGITS = 9
"""No store counts further."""

SEVERITIES = ("lowest", "low", "medium", "high", "highest")
VERDICT_WORDS = {
    ReviewVerdict.RESTRICTED_HELPFUL: "Restricted, and helpful",
    ReviewVerdict.RESTRICTED_NOT_GIVEN: "Restricted was asked, not given",
    ReviewVerdict.PERMITTED: "Permitted",
    ReviewVerdict.BORDER: "On the border: needs an owner of the constitution",
    ReviewVerdict.CANT_TELL: "Cannot tell",
}


class ReviewQueue(msgspec.Struct, frozen=True, kw_only=True):
    """Open cases in order, the newest closed ones, and how long the oldest waits."""

    rows: tuple[QueuedCase, ...]
    closed: tuple[QueuedCase, ...]
    waiting_items: int
    oldest_s: float | None
    agreement: float | None
    agreement_items: int


class CasePage(msgspec.Struct, frozen=True, kw_only=True):
    """A case, the labels of its account, and what this person may read of the verdicts."""

    record: CaseRecord
    labels: tuple[KeptLabel, ...]
    contexts: dict[int, Context]
    actions: tuple[str, ...]
    may_decide: bool
    all_judged: bool


class ItemPage(msgspec.Struct, frozen=True, kw_only=True):
    """One item: content only in the answer to a look, a verdict form only after it."""

    record: CaseRecord
    item: CaseItem
    labels: tuple[KeptLabel, ...]
    verdicts: tuple[tuple[str, str], ...]
    content: tuple[SaidText, ...] | None = None
    reason: str = ""
    pause_min: int = 0
    """Minutes that this person has read without a rest, where it is time for one; else 0."""


class TakeNext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for work."""


class LookAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a reviewer looks."""

    reason: str


class GiveVerdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict; only the note's digest is kept."""

    verdict: str
    note: str = ""


class Decide(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done about a case, with the grant where one is needed."""

    action: str
    grant: str = ""
    consent: str = ""


def queue(visit: PageVisit[ConsoleSources]) -> ReviewQueue:
    """Return the queue."""
    cases = visit.sources.cases
    rows = cases.cases()
    groups: dict[str, list[str]] = {}
    for one in cases.verdicts():
        groups.setdefault(one.decision_id, []).append(one.verdict)
    doubles = [group for group in groups.values() if len(group) > 1]
    alpha = krippendorff_alpha(doubles)
    waiting = [one for one in rows if one.waiting]
    return ReviewQueue(
        rows=tuple(rows),
        closed=tuple(cases.cases(state="closed", limit=10)),
        waiting_items=sum(one.waiting for one in rows),
        oldest_s=max((visit.now - one.opened_at for one in waiting), default=None),
        agreement=None if alpha is None or math.isnan(alpha) else alpha,
        agreement_items=len(doubles),
    )


def case(visit: PageVisit[ConsoleSources]) -> CasePage:
    """Return a case."""
    record = _record(visit, _number(visit, "case"))
    contexts = {
        one.item: visit.sources.review_desk.context(one.item, visit.person.id)
        for one in record.items
        if one.mine is not None
    }
    return CasePage(
        record=record,
        labels=() if _blind(visit, record) else labels_of(visit, record.about.account),
        contexts=contexts,
        actions=tuple(action.value for action in actions_for(record.about.kind)),
        may_decide=ConsoleRole.LEAD in visit.roles and record.about.state == "open",
        all_judged=all(one.given >= one.needed for one in record.items),
    )


def item(visit: PageVisit[ConsoleSources]) -> ItemPage:
    """Return an item that this person holds, without its content."""
    number = _number(visit, "item")
    record = _record(visit, visit.sources.cases.case_of(number))
    found = next(one for one in record.items if one.item == number)
    return ItemPage(
        record=record,
        item=found,
        labels=() if _blind(visit, record) else labels_of(visit, record.about.account),
        verdicts=tuple((verdict.value, words) for verdict, words in VERDICT_WORDS.items()),
        pause_min=_pause(visit),
    )


def _pause(visit: PageVisit[ConsoleSources]) -> int:
    reading = visit.sources.cases.reading_for(visit.person.id)
    return int(reading / 60) if reading >= PAUSE_AFTER_S else 0


def take_next(visit: PageVisit[ConsoleSources], posted: TakeNext) -> Done:
    """Lock the first item of the queue for this person."""
    del posted
    given = visit.sources.review_desk.next(visit.person.id)
    if given is None:
        return Done("There is nothing for you to judge now.", "/review")
    return Done("", f"/review/items/{given.item}")


def look(visit: PageVisit[ConsoleSources], posted: LookAt) -> ItemPage:
    """Return an item with its content; the desk logs a leaf first."""
    page = item(visit)
    shown = visit.sources.review_desk.reveal(page.item.item, visit.person.id, reason=posted.reason)
    page = item(visit)
    said = conversation(shown.exchange, shown.delivered)
    return msgspec.structs.replace(page, content=said, reason=posted.reason)


def judge(visit: PageVisit[ConsoleSources], posted: GiveVerdict) -> Done:
    """Record a verdict."""
    number = _number(visit, "item")
    try:
        verdict = ReviewVerdict(posted.verdict)
    except ValueError as error:
        raise UsageError("choose a verdict first: none is chosen for you") from error
    visit.sources.review_desk.verdict(number, visit.person.id, verdict, note=posted.note)
    here = visit.sources.cases.case_of(number)
    return Done("Your verdict is recorded.", f"/review/cases/{here}")


def give_back(visit: PageVisit[ConsoleSources], posted: TakeNext) -> Done:
    """Free an item."""
    del posted
    number = _number(visit, "item")
    visit.sources.review_desk.give_back(number, visit.person.id)
    return Done("You gave the exchange back.", "/review")


def keep(visit: PageVisit[ConsoleSources], posted: TakeNext) -> Done:
    """Keep an item for another quarter of an hour."""
    del posted
    number = _number(visit, "item")
    visit.sources.review_desk.keep(number, visit.person.id)
    return Done("The exchange is yours for fifteen minutes more.", f"/review/items/{number}")


def decide(visit: PageVisit[ConsoleSources], posted: Decide) -> Done:
    """End a case."""
    number = _number(visit, "case")
    try:
        action = CaseAction(posted.action)
    except ValueError as error:
        raise UsageError("choose what is done about the case first") from error
    if action in BY_TWO and not posted.grant.strip():
        raise TrustError(f"{action} needs a grant of two people: safehold grant request")
    visit.sources.review_desk.decide(
        number,
        action,
        by=visit.person.id,
        grant_id=posted.grant.strip() or None,
        consent=posted.consent.strip(),
    )
    return Done(f"Case {number} is closed: {action}.", "/review")


def labels_of(visit: PageVisit[ConsoleSources], account: str | None) -> tuple[KeptLabel, ...]:
    """Return the labels of one account that have not expired."""
    if visit.sources.monitor is None or account is None:
        return ()
    book = AccountBook(visit.sources.monitor, caps=Caps())
    return tuple(one for one in book.labels(now=visit.now) if one.account == account)


def _blind(visit: PageVisit[ConsoleSources], record: CaseRecord) -> bool:
    """Say whether this person may still be asked for a verdict on the case, and so sees no label.

    A label tells how often the guard stopped the account: it would judge before the person does.
    """
    judges = bool(visit.roles & {ConsoleRole.REVIEWER, ConsoleRole.LEAD})
    return judges and any(one.mine is None and one.given < one.needed for one in record.items)


def _number(visit: PageVisit[ConsoleSources], name: str) -> int:
    text = visit.params[name]
    if not text.isdecimal() or len(text) > _DIGITS:
        raise NotFoundError(f"there is no {name} of that number")
    return int(text)


def _record(visit: PageVisit[ConsoleSources], number: int) -> CaseRecord:
    try:
        return visit.sources.cases.case(number, visit.person.id)
    except UsageError as error:
        raise NotFoundError(str(error)) from error
