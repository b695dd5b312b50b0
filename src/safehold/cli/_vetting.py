"""Applications on disk, what an exemption let through, and what an applicant is told."""

import tomllib
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from safehold.cli._reads import read_bytes, read_text
from safehold.errors import UsageError
from safehold.toml_text import parse_toml

if TYPE_CHECKING:
    from safehold.trust.exemptions import Application, ExemptionTerms, Renewal, Vetting, VettingTier
    from safehold.trust.exemptions.vetting import ApplicationStanding
    from safehold.trust.grants.grant_service import Desk
    from safehold.trust.grants.interface import GrantRequest
    from safehold.trust.grants.state import TrustState

_ACTIONS = {"deliver": "audit", "review": "hold", "fallback": "fallback"}


def write_application(path: Path, out: Path) -> "Application":
    """Read an application of TOML, compute its evidence's digests, salt it, and write it.

    Raises:
        UsageError: a member is missing or wrong, or a file can't be read or written.
    """
    from safehold.canonical import canonical
    from safehold.trust.exemptions import Application, salted
    from safehold.trust.log.files import write_new

    try:
        members: dict[str, Any] = parse_toml(read_text(path))
        members["evidence"] = [
            {"kind": one["kind"], "sha256": _digest(path.parent / one["file"])}
            for one in members.get("evidence", ())
        ]
        members["conflicts"] = members.pop("conflict", [])
        made = salted(msgspec.convert(members, Application))
    except KeyError as error:
        raise UsageError(f"the application's evidence: expected {error.args[0]}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"the application {path.name}: {error}") from error
    try:
        # For its reviewers only: never over a file that others may read.
        write_new(out, canonical(made))
    except OSError as error:
        raise UsageError(f"can't write {out}: {error.strerror}; expected a new file") from error
    return made


def _digest(path: Path) -> str:
    return sha256(read_bytes(path, most=None)).hexdigest()


def read_application(path: Path) -> "Application":
    """Return the application that `write_application` wrote.

    Raises:
        UsageError: it is another file, or has no salt.
    """
    from safehold.canonical import parse_canonical
    from safehold.trust.exemptions import Application

    given = parse_canonical(read_bytes(path), Application, what="an application")
    if not given.salt:
        raise UsageError(f"{path.name} has no salt: make it with `safehold exemption apply`")
    return given


def vetting_of(given: "Application", tier: "VettingTier", checks: tuple[str, ...]) -> "Vetting":
    """Return what the log keeps of an application."""
    from safehold.trust.exemptions import Vetting

    return Vetting(
        application_sha256=given.sha256,
        tier=tier,
        evidence=given.evidence,
        checks=checks,
        conflicts=tuple(one.person for one in given.conflicts),
    )


def use_counted(url: str, grant: str, since: int, until: int) -> "Renewal":
    """Count what a grant did, from the ledger's rows: by clause and action, and nothing else.

    Raises:
        LedgerError: the ledger can't be read.
    """
    from sqlalchemy import select

    from safehold.guard.ledger.codec import to_entry
    from safehold.guard.ledger.interface import EventKind, EventRow
    from safehold.guard.ledger.reader import LedgerReader, pages
    from safehold.guard.ledger.schema import EVENTS
    from safehold.trust.exemptions import Renewal, UseCount

    counts: Counter[tuple[str, str]] = Counter()
    with LedgerReader.open(url).snapshot() as connection:
        query = select(EVENTS).where(EVENTS.c.kind == EventKind.EXEMPTION.value)
        for page in pages(connection, query, EVENTS.c.seq):
            for columns in page:
                row = to_entry(EventRow, columns).row
                if isinstance(row, EventRow) and row.detail.get("grant") == grant:
                    did = str(row.detail.get("action") or row.detail.get("overrun"))
                    counts[str(row.detail.get("clause")), _ACTIONS.get(did, did)] += 1
    use = tuple(UseCount(*what, exchanges=n) for what, n in sorted(counts.items()))
    return Renewal(of=grant, since=since, until=until, use=use)


def standing_of(state: "TrustState", digest: str, now: int) -> "ApplicationStanding":
    """Return how an exemption stands for its applicant."""
    from safehold.trust.exemptions.vetting import ApplicationStanding

    case = state.case(digest)
    given = next((one for one in state.exemptions() if one.grant == digest), None)
    if given is None:
        return ApplicationStanding.DENIED if case.closed else ApplicationStanding.WAITING
    if given.ended:
        return ApplicationStanding.WITHDRAWN
    return ApplicationStanding.GRANTED if now < given.expires else ApplicationStanding.EXPIRED


def answer(
    request: "GrantRequest", terms: "ExemptionTerms", standing: "ApplicationStanding"
) -> tuple[str, str]:
    """Return subject and text for the applicant."""
    from safehold.trust.exemptions.vetting import ApplicationStanding
    from safehold.trust.grants.approval_text import utc
    from safehold.trust.grants.interface import short

    clauses = ", ".join(one.clause for one in terms.relaxations)
    what = f"{terms.use_case} ({clauses}), {short(request.sha256)}"
    text = {
        ApplicationStanding.GRANTED: f"granted until {utc(request.expires)}: {terms.seats} seats, "
        f"{terms.rate_per_hour} exchanges an hour; declare x-safehold-use-case: {terms.use_case}",
        ApplicationStanding.DENIED: "not granted; ask the vetting desk for the reason",
        ApplicationStanding.WITHDRAWN: "withdrawn; ask the vetting desk for the reason",
        ApplicationStanding.EXPIRED: f"ended on {utc(request.expires)}; apply again to renew it",
        ApplicationStanding.WAITING: "not decided yet",
    }[standing]
    return f"Your exemption: {standing.value}", f"{what}: {text}"


def told(desk: "Desk", digest: str, standing: "ApplicationStanding") -> None:
    """Note in the log that the applicant knows; neither whom nor where."""
    detail = f"told: {standing.value}"
    if (digest, detail) not in desk.state.alarms:
        desk.alarm(digest, "exemption-told", detail)
