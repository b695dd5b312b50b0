"""`safehold exemption`: vetted subjects get a gentler action on named clauses."""

from pathlib import Path

import click
import msgspec

from safehold.cli._trust import (
    emit,
    file_request,
    json_option,
    log_options,
    open_desk,
    owner_of,
    plain,
    ssh_key_option,
)
from safehold.cli._trust_requests import governing_request
from safehold.constitution.library import load
from safehold.errors import UsageError, WireError
from safehold.guard.gateway.access.admission import use_case as use_case_name
from safehold.guard.gateway.interface import Surface
from safehold.trust.exemptions import (
    ExemptionAction,
    ExemptionBook,
    ExemptionTerms,
    SubjectKind,
    check_clauses,
    check_terms,
)
from safehold.trust.grants.interface import short

_DAY_S = 86_400


@click.group()
def exemption() -> None:
    """Vetted exemptions: the action changes, scoring and logging never do.

    \b
    Examples:
      safehold exemption request --subject organisation=org-1 --relax beer-production=audit \\
          --surface openai.chat --use-case brewing-school --seats 20 --rate 500 --days 180 \\
          --ticket V-7 --constitution homebrewing
      safehold grant approve ID
      safehold exemption list
    """


@exemption.command("request")
@click.option("--subject", required=True, help="organisation=ID, user=ID or key=ID.")
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
@click.option("--seats", type=click.IntRange(1), required=True)
@click.option("--rate", type=click.IntRange(1), required=True, help="Exempted exchanges an hour.")
@click.option("--days", type=click.IntRange(1, 366), required=True)
@click.option("--ticket", required=True)
@click.option("--constitution", required=True, help="Name or file: it says what may be relaxed.")
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
    ticket: str,
    constitution: str,
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask for an exemption; print the request's id.

    \b
    Example:
      safehold exemption request --subject organisation=org-1 --relax beer-production=audit \\
          --surface openai.chat --use-case brewing-school --seats 20 --rate 500 --days 180 \\
          --ticket V-7 --constitution homebrewing
    """
    kind, _, name = subject.partition("=")
    pairs = [one.partition("=") for one in relaxations]
    terms = {
        "type": "exemption",
        "subject": {"kind": kind, "id": name},
        "relaxations": [{"clause": clause, "action": action} for clause, _, action in pairs],
        "surfaces": list(surfaces),
        "use_case": use_case,
        "seats": seats,
        "rate_per_hour": rate,
    }
    try:
        asked = msgspec.convert(terms, ExemptionTerms)
    except msgspec.ValidationError as error:
        actions = ", ".join(
            action.value for action in ExemptionAction if action is not ExemptionAction.BLOCK
        )
        kinds = ", ".join(kind.value for kind in SubjectKind)
        raise UsageError(f"{error}; subjects are {kinds}, actions {actions}") from error
    # The gateway matches the use case with what a request's header declares: the same form.
    try:
        use_case_name(use_case)
    except WireError as error:
        raise UsageError(f"--use-case: {str(error).partition(': ')[2]}") from error
    check_terms(asked)
    check_clauses(asked, load(constitution).relaxable)
    desk = open_desk(log_dir, key_dir)
    state = desk.state
    request = governing_request(
        state,
        owner_of(ssh_key, state.roster),
        "exemption.give",
        asked,
        desk.now(),
        purpose=use_case,
        ticket=ticket,
        seconds=days * _DAY_S,
    )
    click.echo(file_request(desk, request, ssh_key))


@exemption.command("list")
@json_option
@log_options
def list_(as_json: bool, log_dir: Path, key_dir: Path | None) -> None:
    """List exemptions and how long each still lasts.

    \b
    Example:
      safehold exemption list --json
    """
    desk = open_desk(log_dir, key_dir)
    now = desk.now()
    given = desk.state.exemptions()
    if as_json:
        emit(plain(given))
        return
    for one in given:
        state = "ended" if one.ended else "expired" if one.expires <= now else "in force"
        left = max(0, one.expires - now) // _DAY_S
        subject = f"{one.terms.subject.kind.value} {one.terms.subject.id}"
        click.echo(f"{short(one.grant)}  {subject:<30} {state}, {left} day(s) left")


@exemption.command("warn")
@click.option("--record", is_flag=True, help="Put each warning into the log as an alarm, once.")
@log_options
def warn(record: bool, log_dir: Path, key_dir: Path | None) -> None:
    """Say which exemptions end within 14, 3 or 1 days (run it daily: expiry is never silent).

    \b
    Example:
      safehold exemption warn --record
    """
    desk = open_desk(log_dir, key_dir)
    book = ExemptionBook(desk.state.exemptions(), frozenset())
    for notice in book.warnings(desk.now()):
        detail = f"ends within {notice.days} day(s)"
        click.echo(f"{short(notice.grant)}  {detail}")
        if record and (notice.grant, detail) not in desk.state.alarms:
            desk.alarm(notice.grant, "exemption-expiry", detail)
