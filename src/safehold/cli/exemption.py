"""`safehold exemption`: vetted subjects get a gentler action on named clauses."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._notify import notify_option
from safehold.cli._places import out_file
from safehold.cli._reads import json_file, toml_file
from safehold.cli._trust import json_option, log_options, ssh_key_option
from safehold.cli._values import SENTENCE, WholeNumber
from safehold.errors import UsageError
from safehold.guard.gateway.interface import Surface

if TYPE_CHECKING:
    from safehold.trust.exemptions import ExemptionTerms
    from safehold.trust.grants.grant_service import Desk

_DAY_S = 86_400

_application_option = click.option(
    "--application",
    "application_file",
    type=json_file(),
    required=True,
    help="What `exemption apply` wrote; it stays off the log.",
)
_checked_option = click.option(
    "--checked",
    "checks",
    multiple=True,
    required=True,
    help="A check of the tier that you made; again for each (`exemption review` lists them).",
)
_constitution_option = click.option(
    "--constitution", required=True, help="Name or file: it says what may be relaxed."
)


@click.group()
def exemption() -> None:
    """Vetted exemptions: the action changes, scoring and logging never do.

    \b
    Examples:
      safehold exemption apply application.toml --out application.json
      safehold exemption review application.json --relax beer-production=audit \\
          --constitution homebrewing
      safehold exemption request --application application.json --checked identity ... \\
          --subject organisation=org-1 --relax beer-production=audit --surface openai.chat \\
          --use-case brewing-school --seats 20 --rate 500 --days 180 --ticket V-7 \\
          --constitution homebrewing --ssh-key ~/.ssh/id_ed25519
      safehold grant approve ID --ssh-key ~/.ssh/id_ed25519
      safehold exemption tell ID --application application.json --notify ./mail-applicant
      safehold exemption withdraw ID --reason "licence ended" --ssh-key ~/.ssh/id_ed25519
    """


@exemption.command("apply")
@click.argument("path", type=toml_file())
@click.option("--out", type=out_file(), required=True, help="The file to write.")
def apply_(path: Path, out: Path) -> None:
    """Turn an application (TOML) into the file that is reviewed; it holds personal data.

    Members: who, contact, institution, use_case, why; [[evidence]] with kind and file;
    [[conflict]] with person (an id of `safehold people list`) and stake.

    \b
    Example:
      safehold exemption apply application.toml --out application.json
    """
    from safehold.cli._vetting import write_application

    made = write_application(path, out)
    click.echo(f"wrote {out}, for its reviewers only; SHA-256 {made.sha256}")


@exemption.command("review")
@click.argument("application_file", type=json_file())
@click.option("--relax", "relaxations", multiple=True, help="CLAUSE=ACTION, as it would be asked.")
@click.option("--constitution", default=None, help="Name or file: it says the clauses' tier.")
@click.option("--grant", "grant_id", default=None, help="Compare with what a request says.")
@log_options
def review(
    *,
    application_file: Path,
    relaxations: tuple[str, ...],
    constitution: str | None,
    grant_id: str | None,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Show an application, and what its reviewer answers for; approvers compare it with --grant.

    \b
    Examples:
      safehold exemption review application.json --relax beer-production=audit \\
          --constitution homebrewing
      safehold exemption review application.json --grant 5f1c2a9e41d0
    """
    from safehold.cli._trust import open_desk
    from safehold.cli._vetting import read_application
    from safehold.constitution.library import load
    from safehold.trust.exemptions import CHECKLIST, check_application
    from safehold.trust.exemptions.vetting import APPROVERS, tier_of

    given = read_application(application_file)
    for label, text in (
        ("Who", given.who),
        ("Institution", given.institution),
        ("Use case", given.use_case),
        ("Why", given.why),
        *((f"Evidence: {one.kind}", one.sha256) for one in given.evidence),
        *((f"Stake: {one.person}", one.stake) for one in given.conflicts),
        ("Application (SHA-256)", given.sha256),
    ):
        click.echo(f"{label + ':':<24} {text}")
    if grant_id is not None:
        check_application(_terms_of(open_desk(log_dir, key_dir), grant_id), given)
        click.echo(f"ok: request {grant_id} is about this application")
        return
    tiers = {} if constitution is None else load(constitution).relaxable_tiers
    tier = tier_of(tiers, tuple(one.partition("=")[0] for one in relaxations))
    click.echo(f"tier {tier.value}: {APPROVERS[tier]} approve beside the reviewer; to check:")
    for item, text in CHECKLIST[tier].items():
        click.echo(f"  --checked {item:<12} {text}")


def _terms(members: dict[str, Any]) -> "ExemptionTerms":
    """Return checked terms.

    Raises:
        UsageError: names the member.
    """
    from safehold.trust.exemptions import ExemptionAction, ExemptionTerms, SubjectKind

    try:
        return msgspec.convert(members, ExemptionTerms)
    except msgspec.ValidationError as error:
        actions = ", ".join(
            action.value for action in ExemptionAction if action is not ExemptionAction.BLOCK
        )
        kinds = ", ".join(kind.value for kind in SubjectKind)
        raise UsageError(
            f"{error}; subjects are {kinds}, actions {actions}, use cases have no spaces "
            "(--use-case)"
        ) from error


def _terms_of(desk: "Desk", request_id: str) -> "ExemptionTerms":
    from safehold.trust.exemptions import ExemptionTerms

    details = desk.state.case(request_id).signed.request.details
    if not isinstance(details, ExemptionTerms):
        raise UsageError(f"expected the request of an exemption, got {request_id}")
    return details


def _file(
    desk: "Desk",
    asked: "ExemptionTerms",
    *,
    ticket: str,
    days: int,
    ssh_key: Path,
    to: tuple[str, ...],
) -> None:
    from safehold.cli._trust import file_request, owner_of
    from safehold.cli._trust_requests import governing_request
    from safehold.trust.exemptions import check_terms

    check_terms(asked)
    state = desk.state
    request = governing_request(
        state,
        owner_of(ssh_key, state.roster),
        "exemption.give",
        asked,
        desk.now(),
        purpose=asked.use_case,
        ticket=ticket,
        seconds=days * _DAY_S,
    )
    if request.requester in asked.vetting.conflicts:
        raise UsageError("expected a reviewer without a stake in it: you are among the conflicts")
    click.echo(file_request(desk, request, ssh_key, to))


@exemption.command("request")
@click.option("--subject", required=True, help="organisation=ID, user=ID or key=ID: ids, no names.")
@click.option("--relax", "relaxations", multiple=True, required=True, help="CLAUSE=hold|...|audit")
@click.option(
    "--surface",
    "surfaces",
    multiple=True,
    required=True,
    type=click.Choice([str(surface) for surface in Surface]),
    help="A door of the gateway; give it again for each.",
)
@click.option("--use-case", required=True, help="Name that requests declare (no spaces).")
@click.option(
    "--seats",
    type=WholeNumber(1),
    required=True,
    help="Users that the exemption covers at most.",
)
@click.option("--rate", type=WholeNumber(1), required=True, help="Exempted exchanges an hour.")
@click.option(
    "--days", type=click.IntRange(1, 366), required=True, help="It lasts for so many days."
)
@click.option(
    "--session-minutes",
    type=click.IntRange(1, 1440),
    default=60,
    show_default=True,
    help="For so long after its first exempted exchange a key has this one use case.",
)
@click.option("--ticket", type=SENTENCE, required=True, help="The ticket that this belongs to.")
@_application_option
@_checked_option
@_constitution_option
@notify_option
@ssh_key_option
@log_options
def request_(
    *,
    subject: str,
    relaxations: tuple[str, ...],
    surfaces: tuple[str, ...],
    use_case: str,
    seats: int,
    rate: int,
    days: int,
    session_minutes: int,
    ticket: str,
    application_file: Path,
    checks: tuple[str, ...],
    constitution: str,
    told: tuple[str, ...],
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Answer for an application's checks and ask for its exemption; print the request's id.

    Who asks is the reviewer and never approves.

    \b
    Example:
      safehold exemption request --application application.json --checked identity \\
          --checked use-case --checked conflicts --checked least --checked licence \\
          --checked people --checked security --checked sanctions \\
          --subject organisation=org-1 --relax beer-production=audit --surface openai.chat \\
          --use-case brewing-school --seats 20 --rate 500 --days 180 --ticket V-7 \\
          --constitution homebrewing --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import open_desk, plain
    from safehold.cli._vetting import read_application, vetting_of
    from safehold.constitution.library import load
    from safehold.trust.exemptions import check_application, check_clauses
    from safehold.trust.exemptions.vetting import tier_of

    kind, _, name = subject.partition("=")
    pairs = [one.partition("=") for one in relaxations]
    given = read_application(application_file)
    tiers = load(constitution).relaxable_tiers
    tier = tier_of(tiers, tuple(clause for clause, _, _ in pairs))
    asked = _terms(
        {
            "type": "exemption",
            "subject": {"kind": kind, "id": name},
            "relaxations": [{"clause": clause, "action": action} for clause, _, action in pairs],
            "surfaces": list(surfaces),
            "use_case": use_case,
            "seats": seats,
            "rate_per_hour": rate,
            "session_s": session_minutes * 60,
            "vetting": plain(vetting_of(given, tier, checks)),
        }
    )
    check_application(asked, given)
    check_clauses(asked, tiers)
    desk = open_desk(log_dir, key_dir)
    _file(desk, asked, ticket=ticket, days=days, ssh_key=ssh_key, to=told)


@exemption.command("renew")
@click.argument("request_id")
@click.option(
    "--ledger",
    "url",
    default="safehold-ledger.db",
    envvar="SAFEHOLD_LEDGER",
    show_default=True,
    help="The gateway's ledger: its rows of the old grant are counted.",
)
@click.option(
    "--days", type=click.IntRange(1, 366), required=True, help="It lasts for so many days more."
)
@click.option("--ticket", type=SENTENCE, required=True, help="The ticket that this belongs to.")
@_application_option
@_checked_option
@_constitution_option
@notify_option
@ssh_key_option
@log_options
def renew(
    *,
    request_id: str,
    url: str,
    days: int,
    ticket: str,
    application_file: Path,
    checks: tuple[str, ...],
    constitution: str,
    told: tuple[str, ...],
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask for the same exemption again, vetted again, with what the old one let through.

    Approvers see the counts and sign them.

    \b
    Example:
      safehold exemption renew 5f1c2a9e41d0 --application application.json --days 180 \\
          --ticket V-9 --checked identity ... --constitution homebrewing \\
          --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import open_desk, plain
    from safehold.cli._vetting import read_application, use_counted, vetting_of
    from safehold.constitution.library import load
    from safehold.trust.exemptions import Vetting, check_application, check_clauses
    from safehold.trust.exemptions.vetting import tier_of

    desk = open_desk(log_dir, key_dir)
    case = desk.state.case(request_id)
    old = _terms_of(desk, request_id)
    given = read_application(application_file)
    tiers = load(constitution).relaxable_tiers
    tier = tier_of(tiers, tuple(one.clause for one in old.relaxations))
    request = case.signed.request
    renewal = use_counted(url, request.sha256, request.not_before, desk.now())
    vetting: Vetting = msgspec.structs.replace(vetting_of(given, tier, checks), renewal=renewal)
    asked = msgspec.structs.replace(old, vetting=vetting)
    asked = _terms(plain(asked))
    check_application(asked, given)
    check_clauses(asked, tiers)
    for one in renewal.use:
        click.echo(f"let through: {one.clause} {one.action} {one.exchanges:,} exchanges", err=True)
    _file(desk, asked, ticket=ticket, days=days, ssh_key=ssh_key, to=told)


@exemption.command("withdraw")
@click.argument("request_id")
@click.option(
    "--reason", type=SENTENCE, required=True, help="One line, signed and logged: no personal data."
)
@click.option(
    "--application",
    "application_file",
    type=json_file(),
    help="Tell its contact at once (with --notify).",
)
@notify_option
@ssh_key_option
@log_options
def withdraw(
    *,
    request_id: str,
    reason: str,
    application_file: Path | None,
    told: tuple[str, ...],
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Take an exemption away: any one person; gateways block again within their `reload_s`.

    \b
    Example:
      safehold exemption withdraw 5f1c2a9e41d0 --reason "licence ended" \\
          --application application.json --notify ./mail-applicant --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import open_desk, sign
    from safehold.trust.grants.events import DecisionNote
    from safehold.trust.grants.interface import short
    from safehold.trust.people.statement import Act

    desk = open_desk(log_dir, key_dir)
    _terms_of(desk, request_id)
    digest = desk.state.case(request_id).signed.request.sha256
    try:
        note = msgspec.convert({"request": digest, "text": reason}, DecisionNote)
    except msgspec.ValidationError as error:
        raise UsageError(f"the reason: {error}") from error
    desk.revoke(note, sign(ssh_key, Act.REVOKE, note))
    click.echo(f"withdrawn: {short(digest)}")
    if application_file is None or not told:
        click.echo(f"the applicant waits to be told: safehold exemption tell {short(digest)}")
        return
    _tell(desk, digest, application_file, told)


@exemption.command("tell")
@click.argument("request_id")
@_application_option
@notify_option
@log_options
def tell_(
    *,
    request_id: str,
    application_file: Path,
    told: tuple[str, ...],
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Tell the applicant how it stands; the log notes that, not whom or where.

    The program gets the contact, a subject and a text as its three arguments.

    \b
    Example:
      safehold exemption tell 5f1c2a9e41d0 --application application.json --notify ./mail-applicant
    """
    from safehold.cli._trust import open_desk

    if not told:
        raise UsageError("expected --notify PROGRAM: it is given contact, subject and text")
    desk = open_desk(log_dir, key_dir)
    _tell(desk, desk.state.case(request_id).signed.request.sha256, application_file, told)


def _tell(desk: "Desk", digest: str, application_file: Path, to: tuple[str, ...]) -> None:
    from safehold.cli._notify import tell
    from safehold.cli._vetting import answer, read_application, standing_of, told
    from safehold.trust.exemptions import check_application
    from safehold.trust.exemptions.vetting import ApplicationStanding
    from safehold.trust.grants.interface import short

    given = read_application(application_file)
    terms = _terms_of(desk, digest)
    check_application(terms, given)
    standing = standing_of(desk.state, digest, desk.now())
    if standing is ApplicationStanding.WAITING:
        raise UsageError(f"expected a decided request, {short(digest)} still waits for approvals")
    request = desk.state.case(digest).signed.request
    for target in to:
        tell(target, given.contact, *answer(request, terms, standing))
    told(desk, digest, standing)
    click.echo(f"told: {standing.value}")


@exemption.command("list")
@json_option
@log_options
def list_(as_json: bool, log_dir: Path, key_dir: Path | None) -> None:
    """List exemptions, how long each still lasts, and whether its applicant was told.

    \b
    Example:
      safehold exemption list --json
    """
    from safehold.cli._trust import emit, open_desk, plain
    from safehold.cli._vetting import standing_of
    from safehold.trust.grants.interface import short

    desk = open_desk(log_dir, key_dir)
    now = desk.now()
    state = desk.state
    given = state.exemptions()
    if as_json:
        emit(plain(given))
        return
    for one in given:
        how = "ended" if one.ended else "expired" if one.expires <= now else "in force"
        left = max(0, one.expires - now) // _DAY_S
        subject = f"{one.terms.subject.kind.value} {one.terms.subject.id}"
        standing = standing_of(state, one.grant, now)
        note = "" if (one.grant, f"told: {standing.value}") in state.alarms else ", not told"
        click.echo(f"{short(one.grant)}  {subject:<30} {how}, {left} day(s) left{note}")


@exemption.command("warn")
@click.option("--record", is_flag=True, help="Put each warning into the log as an alarm, once.")
@log_options
def warn(record: bool, log_dir: Path, key_dir: Path | None) -> None:
    """Say which exemptions end within 14, 3 or 1 days (run it daily: expiry is never silent).

    \b
    Example:
      safehold exemption warn --record
    """
    from safehold.cli._trust import open_desk
    from safehold.trust.exemptions import ExemptionBook
    from safehold.trust.grants.interface import short

    desk = open_desk(log_dir, key_dir)
    book = ExemptionBook(desk.state.exemptions(), frozenset())
    for notice in book.warnings(desk.now()):
        detail = f"ends within {notice.days} day(s)"
        click.echo(f"{short(notice.grant)}  {detail}")
        if record and (notice.grant, detail) not in desk.state.alarms:
            desk.alarm(notice.grant, "exemption-expiry", detail)
