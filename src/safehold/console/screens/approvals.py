"""Approvals: what is asked, in words, and who has said yes."""

from itertools import islice

import msgspec

from safehold.canonical import canonical
from safehold.console.shell.access import PageVisit
from safehold.console.shell.web import NotFoundError
from safehold.console.sources import ConsoleSources
from safehold.errors import TrustError
from safehold.trust.grants.approval_text import in_words
from safehold.trust.grants.cases import Case
from safehold.trust.grants.interface import Granted
from safehold.trust.grants.state import TrustState
from safehold.trust.people.interface import Passkey

_PAST = 20


class OpenRequest(msgspec.Struct, frozen=True):
    """One request in the list."""

    sha256: str
    operation: str
    requester: str
    purpose: str
    asked_at: float
    expires: float
    approvals: int
    status: str


class Approvals(msgspec.Struct, frozen=True):
    """Open requests, newest first, and what came of the latest others."""

    rows: tuple[OpenRequest, ...]
    past: tuple[OpenRequest, ...]


class ApprovalScreen(msgspec.Struct, frozen=True, kw_only=True):
    """One request: in words, in its signed bytes, and how it stands."""

    sha256: str
    operation: str
    words: tuple[tuple[str, str], ...]
    canonical: str
    approved_by: tuple[str, ...]
    status: str
    open: bool
    mine: bool
    """Whether this person asked: nobody approves their own request."""
    passkeys: tuple[str, ...]
    """This person's credentials: the browser offers no other's under their login."""


def approvals(visit: PageVisit[ConsoleSources]) -> Approvals:
    """Return the requests; what is settled long ago is not looked at."""
    with visit.sources.desk.store.exclusive():
        state = visit.sources.desk.state
        waiting = {
            digest: _line(state, digest, case, visit.now)
            for digest, case in reversed(state.cases.live())
            if _is_open(case, visit.now)
        }
        others = (digest for digest in reversed(list(state.cases)) if digest not in waiting)
        past = [
            _line(state, digest, state.cases[digest], visit.now) for digest in islice(others, _PAST)
        ]
    return Approvals(tuple(waiting.values()), tuple(past))


def open_requests(visit: PageVisit[ConsoleSources]) -> tuple[OpenRequest, ...]:
    """Return the requests that wait for somebody."""
    return approvals(visit).rows


def approval(visit: PageVisit[ConsoleSources]) -> ApprovalScreen:
    """Return one request.

    Raises:
        NotFoundError: there is none.
    """
    with visit.sources.desk.store.exclusive():
        state = visit.sources.desk.state
        try:
            case = state.case(visit.params["request"])
        except TrustError as error:
            raise NotFoundError(str(error)) from error
        asked = case.signed.request
        return ApprovalScreen(
            sha256=asked.sha256,
            operation=asked.operation,
            words=in_words(asked, state.roster),
            canonical=canonical(asked).decode(),
            approved_by=tuple(_name(state, one) for one in case.approvers),
            status=_status(state, asked.sha256, visit.now),
            open=_is_open(case, visit.now),
            mine=asked.requester == visit.person.id,
            passkeys=tuple(
                key.credential_id for key in visit.person.keys if isinstance(key, Passkey)
            ),
        )


def _is_open(case: Case, now: float) -> bool:
    spent = case.uses >= case.signed.request.uses
    return not case.closed and not spent and case.signed.request.expires > now


def _line(state: TrustState, digest: str, case: Case, now: float) -> OpenRequest:
    asked = case.signed.request
    return OpenRequest(
        sha256=digest,
        operation=asked.operation,
        requester=_name(state, asked.requester),
        purpose=asked.purpose,
        asked_at=case.requested_at,
        expires=asked.expires,
        approvals=len(case.approvers),
        status=_outcome(state, digest, case, now),
    )


def _outcome(state: TrustState, digest: str, case: Case, now: float) -> str:
    for word, holds in (
        ("denied", case.denied),
        ("revoked", case.revoked),
        ("given back", case.ended),
        ("used", case.uses >= case.signed.request.uses),
        ("expired", case.signed.request.expires <= now),
    ):
        if holds:
            return word
    return "granted" if isinstance(state.decide(digest, int(now)), Granted) else "waits"


def _status(state: TrustState, digest: str, now: float) -> str:
    case = state.case(digest)
    if case.uses >= case.signed.request.uses and not case.closed:
        return "used: it has taken effect"
    decision = state.decide(digest, int(now))
    if isinstance(decision, Granted):
        return f"granted, {decision.uses_left} use(s) left"
    return f"{decision.reason.value}: {decision.detail}"


def _name(state: TrustState, person_id: str) -> str:
    person = state.roster.person(person_id)
    return person_id if person is None else person.name
