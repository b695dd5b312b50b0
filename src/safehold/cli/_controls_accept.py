"""`safehold controls attest`, `except` and `accept`: what persons answer for, by grant."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safehold.cli._reads import any_file, read_bytes
from safehold.cli._trust import log_options, ssh_key_option
from safehold.cli._values import SENTENCE, WHO
from safehold.errors import UsageError
from safehold.govern.controls.accepted import MAX_ATTESTATION_S, MAX_EXCEPTION_S
from safehold.govern.controls.interface import DAY

if TYPE_CHECKING:
    from safehold.trust.grants.grant_service import Desk
    from safehold.trust.people.interface import Person

owner_option = click.option(
    "--owner", type=WHO, required=True, help="Name or id of the enrolled person who answers for it."
)
ticket_option = click.option(
    "--ticket",
    type=SENTENCE,
    default="none",
    show_default=True,
    help="The ticket that this belongs to.",
)


def named_owner(desk: "Desk", text: str) -> "Person":
    """Return the enrolled person of a name or an id.

    Raises:
        UsageError: there is none.
    """
    for one in desk.state.roster.persons:
        if text in {one.id, one.name}:
            return one
    raise UsageError(f"expected an enrolled person as owner; came {text[:60]!r}")


def _file(operation: str, facts: dict[str, str], ticket: str, ssh_key: Path, desk: "Desk") -> None:
    from safehold.cli._trust import file_request, owner_of
    from safehold.cli._trust_requests import governing_request
    from safehold.trust.grants.details import Facts

    requester = owner_of(ssh_key, desk.state.roster)
    asked = governing_request(
        desk.state,
        requester,
        operation,
        Facts(values=facts),
        desk.now(),
        purpose=f"{operation} {facts['control']}",
        ticket=ticket,
    )
    digest = file_request(desk, asked, ssh_key)
    click.echo(digest)
    click.echo(
        f"next: safehold grant approve {digest[:12]}, then safehold controls accept {digest[:12]}",
        err=True,
    )


@click.command("attest")
@click.argument("control")
@owner_option
@click.option(
    "--evidence",
    type=any_file(),
    required=True,
    help="What shows it; its digest goes into the log.",
)
@click.option(
    "--days",
    type=click.IntRange(1, MAX_ATTESTATION_S // DAY),
    default=90,
    show_default=True,
    help="The attestation holds for so many days.",
)
@ticket_option
@ssh_key_option
@log_options
def attest(
    *,
    control: str,
    owner: str,
    evidence: Path,
    days: int,
    ticket: str,
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask to attest a control that persons answer for; print the request's id.

    \b
    Example:
      safehold controls attest iam-01 --owner ana --evidence review.pdf --days 90 \\
          --log trust-log --ssh-key ~/.ssh/id_ed25519_sk
    """
    from safehold.cli._trust import open_desk
    from safehold.govern.controls.interface import Assurance
    from safehold.govern.controls.library import stock_catalogue

    row = stock_catalogue().control(control)
    if row.way is Assurance.AUTOMATIC:
        raise UsageError(f"{row.id} is judged by a check; what fails needs `controls except`")
    desk = open_desk(log_dir, key_dir)
    facts = {
        "control": row.id,
        "owner": named_owner(desk, owner).id,
        "expires": str(desk.now() + days * DAY),
        "evidence": hashlib.sha256(read_bytes(evidence, most=None)).hexdigest(),
    }
    _file("controls.attest", facts, ticket, ssh_key, desk)


@click.command("except")
@click.argument("control")
@owner_option
@click.option("--reason", type=SENTENCE, required=True, help="Why the risk is taken, in one line.")
@click.option(
    "--days",
    type=click.IntRange(1, MAX_EXCEPTION_S // DAY),
    default=30,
    show_default=True,
    help="The exception holds for so many days.",
)
@ticket_option
@ssh_key_option
@log_options
def except_command(
    *,
    control: str,
    owner: str,
    reason: str,
    days: int,
    ticket: str,
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask to accept that a control is not met, for so many days; print the request's id.

    \b
    Example:
      safehold controls except hst-06 --owner ana --reason "kernel ordered" --days 30 \\
          --log trust-log --ssh-key ~/.ssh/id_ed25519_sk
    """
    from safehold.cli._trust import open_desk
    from safehold.govern.controls.library import stock_catalogue

    row = stock_catalogue().control(control)
    desk = open_desk(log_dir, key_dir)
    facts = {
        "control": row.id,
        "owner": named_owner(desk, owner).id,
        "expires": str(desk.now() + days * DAY),
        "reason": reason,
    }
    _file("controls.except", facts, ticket, ssh_key, desk)


@click.command("accept")
@click.argument("request")
@log_options
def accept(request: str, log_dir: Path, key_dir: Path | None) -> None:
    """Put an approved attestation or exception in force: REQUEST is its id, or the beginning.

    \b
    Example:
      safehold controls accept 5f1c2a9e41d0 --log trust-log
    """
    from safehold.cli._trust import open_desk

    desk = open_desk(log_dir, key_dir)
    found = [one for one in desk.state.cases if one.startswith(request)]
    if len(found) != 1:
        raise UsageError(f"expected the id of one request; {request[:20]!r} means {len(found)}")
    asked = desk.state.cases[found[0]].signed.request
    if not asked.operation.startswith("controls."):
        raise UsageError(f"expected an attestation or exception, got {asked.operation}")
    desk.use(found[0], host=asked.host, workload_sha256=asked.workload_sha256)
    click.echo(f"{asked.operation} is in force")
