"""What the commands of `safehold grant` show: who I am, how it stands, and every operation."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.shell_completion import CompletionItem

from safehold.cli._notify import notify_option
from safehold.cli._places import out_file
from safehold.cli._trust import json_option, log_options, ssh_key_option
from safehold.cli._values import SENTENCE, WholeNumber
from safehold.errors import SafeholdError, TrustError, UsageError
from safehold.trust.people.interface import KeyKind

if TYPE_CHECKING:
    from safehold.trust.grants.cases import Case
    from safehold.trust.grants.grant_service import Desk
    from safehold.trust.grants.state import TrustState
    from safehold.trust.people.interface import Person

_DAY_S = 86_400


def open_requests(context: click.Context, _: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the id of an open request in a shell; nothing where no log is at hand."""
    from safehold.cli._trust import open_desk
    from safehold.trust.grants.interface import short

    found = context.find_root().params
    log_dir = context.params.get("log_dir") or found.get("log_dir") or "trust-log"
    try:
        desk = open_desk(Path(str(log_dir)), context.params.get("key_dir"))
        live = desk.state.cases.live()
    except SafeholdError:
        return []
    return [
        CompletionItem(short(digest), help=case.signed.request.operation)
        for digest, case in live
        if digest.startswith(incomplete) and not case.closed
    ]


def _waits_for(case: "Case", person: "Person", state: "TrustState", now: int) -> bool:
    """Tell whether this person could bring an open request nearer to its quorum."""
    from safehold.trust.grants.evaluate import evaluate
    from safehold.trust.grants.interface import Granted, Reason
    from safehold.trust.people.interface import Kind

    request = case.signed.request
    rule = state.policy.rule(request.operation)
    if (
        rule is None
        or case.closed
        or request.expires <= now
        or request.requester == person.id
        or person.kind is not Kind.HUMAN
        or person.id in case.approvers
        or not {one.team for one in rule.thresholds} & state.roster.teams_of(person)
        or not {key.kind for key in person.keys} & set(rule.keys)
    ):
        return False
    decision = evaluate(
        case.signed,
        tuple(case.approvals),
        state.roster,
        state.policy,
        max(now, request.not_before),
        state.view(request.sha256, max(now, request.not_before)),
    )
    return not isinstance(decision, Granted) and decision.reason in {
        Reason.QUORUM,
        Reason.NO_APPROVAL,
        Reason.APPROVAL_SIGNATURE,
        Reason.KEY_KIND,
    }


@click.command()
@ssh_key_option
@json_option
@log_options
def whoami(ssh_key: Path, as_json: bool, log_dir: Path, key_dir: Path | None) -> None:
    """Say who a key is here, what waits for them, and what they asked for.

    \b
    Example:
      safehold grant whoami --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import emit, open_desk, owner_of
    from safehold.trust.grants.interface import short

    desk = open_desk(log_dir, key_dir)
    state, now = desk.state, desk.now()
    person = owner_of(ssh_key, state.roster)
    live = state.cases.live()
    waiting = [one for one, case in live if _waits_for(case, person, state, now)]
    mine = [
        one
        for one, case in live
        if case.signed.request.requester == person.id and not case.settled(now)
    ]
    teams = sorted(state.roster.teams_of(person))
    if as_json:
        emit(
            {
                "id": person.id,
                "name": person.name,
                "kind": person.kind.value,
                "roles": list(person.roles),
                "teams": teams,
                "keys": [key.key_id for key in person.keys],
                "waiting_for_you": waiting,
                "your_requests": mine,
            }
        )
        return
    click.echo(f"{person.name} ({person.id}), a {person.kind.value}")
    click.echo(f"teams  {', '.join(teams) or 'none'}")
    for key in person.keys:
        click.echo(f"key    {key.kind.value} {key.key_id}")
    for words, digests in (("waits for you", waiting), ("you asked", mine)):
        for digest in digests:
            asked = state.cases[digest].signed.request
            click.echo(f"{words}: {short(digest)}  {asked.operation}  {asked.purpose}")


@click.command()
@json_option
@log_options
def status(as_json: bool, log_dir: Path, key_dir: Path | None) -> None:
    """Say how the enclave stands; exit with 1 if somebody must look at something.

    \b
    Example:
      safehold grant status || page-somebody
    """
    from safehold.cli._trust import emit, open_desk

    desk = open_desk(log_dir, key_dir)
    facts, look = _standing(desk)
    if as_json:
        emit({**facts, "look": look})
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' '):<22} {value}")
        for line in look:
            click.echo(f"LOOK: {line}", err=True)
    if look:
        raise click.exceptions.Exit(1)


def _standing(desk: "Desk") -> tuple[dict[str, Any], list[str]]:
    from safehold.trust.grants.approval_text import utc
    from safehold.trust.grants.interface import Granted
    from safehold.trust.people.interface import Kind

    state, now = desk.state, desk.now()
    people = state.roster.persons
    humans = sum(person.kind is Kind.HUMAN for person in people)
    held = waiting = 0
    for digest, case in state.cases.live():
        request = case.signed.request
        if case.closed or request.expires <= now or case.uses >= request.uses:
            continue
        granted = isinstance(state.decide(digest, max(now, request.not_before)), Granted)
        held, waiting = held + granted, waiting + (not granted)
    exempt = [one for one in state.exemptions() if one.in_force(now)]
    facts = {
        "enclave": state.origin,
        "founding": state.founding_sha256,
        "leaves": desk.store.size,
        "newest_leaf": utc(max(state.newest, state.last_time)),
        "policy": f"version {state.policy.version}, {state.policy.sha256}",
        "people": f"{humans} humans, {len(people) - humans} services and agents",
        "requests_waiting": waiting,
        "grants_in_force": held,
        "exemptions_in_force": len(exempt),
    }
    return facts, _look(state, now, exempt)


def _look(state: "TrustState", now: int, exempt: list[Any]) -> list[str]:
    from safehold.trust.clock import SKEW_S
    from safehold.trust.grants.approval_text import utc
    from safehold.trust.grants.interface import short
    from safehold.trust.grants.policy import MIN_GOVERNING, check_governing

    look = [f"break-glass {short(one)} lacks its reviews" for one in state.overdue_reviews(now)]
    if state.last_time > now + SKEW_S:
        look.append(f"the log is ahead of this clock: {utc(state.last_time)} (correct-clock)")
    try:
        check_governing(state.policy)
    except TrustError as error:
        look.append(f"{error} (at least {MIN_GOVERNING})")
    look += [
        f"exemption {short(one.grant)} ends within 3 days"
        for one in exempt
        if one.expires - now <= 3 * _DAY_S
    ]
    if state.voids:
        newest = state.voids[-1]
        look.append(f"{len(state.voids)} void leaves; newest: {newest.index}, {newest.reason}")
    return look


@click.command()
@click.argument("request_id", shell_complete=open_requests)
@click.option("--minutes", type=WholeNumber(1), help="How long (default: as long as before).")
@click.option("--ticket", type=SENTENCE, help="Another ticket (default: the same).")
@notify_option
@ssh_key_option
@log_options
def renew(
    *,
    request_id: str,
    minutes: int | None,
    ticket: str | None,
    told: tuple[str, ...],
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask for the same again, from now; print the new request's id and what the old one used.

    Nothing is carried over: others approve it, under the policy of now.

    \b
    Example:
      safehold grant renew 5f1c2a9e41d0 --minutes 240 --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import checked, within_rule
    from safehold.trust.grants.operations import AT_ONCE

    desk = open_desk(log_dir, key_dir)
    state, now = desk.state, desk.now()
    case = state.case(request_id)
    old = case.signed.request
    if old.operation in AT_ONCE:
        raise UsageError(
            f"{old.operation} takes effect once and is asked for by its own command, not renewed"
        )
    span = old.expires - old.not_before if minutes is None else minutes * 60
    asked = msgspec.structs.replace(
        old,
        requester=owner_of(ssh_key, state.roster).id,
        ticket=old.ticket if ticket is None else ticket,
        not_before=now,
        expires=now + span,
        nonce=secrets.token_hex(16),
        policy_version=state.policy.version,
        policy_sha256=state.policy.sha256,
        break_glass=False,
    )
    click.echo(f"before: {case.uses} of {old.uses} use(s), {case.releases} release(s)", err=True)
    click.echo(file_request(desk, within_rule(checked(asked), state.policy), ssh_key, told))


@click.command()
@json_option
def operations(as_json: bool) -> None:
    """List every operation that needs a grant, and how many approve it at least.

    \b
    Example:
      safehold grant operations
    """
    from safehold.cli._trust import emit
    from safehold.trust.grants.operations import OPERATIONS

    if as_json:
        emit({name: {"least": row.least, "stock": row.stock} for name, row in OPERATIONS.items()})
        return
    for row in OPERATIONS.values():
        click.echo(f"{row.name:<22} least {row.least}, stock {row.stock}  {row.what}")


@click.command("stock-policy")
@click.argument("path", type=out_file())
@click.option("--team", required=True, help="Team of everybody who may approve, such as t-ops.")
@click.option("--security", default="", help="Team without which nothing is weakened.")
@click.option(
    "--people",
    type=WholeNumber(3),
    default=5,
    show_default=True,
    help="How many can approve: no rule asks for more than one fewer.",
)
@click.option("--rp-id", required=True, help="Host of the approval page.")
@click.option("--origin", required=True, help="Its origin, such as https://approvals.example.org.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Choice([kind.value for kind in KeyKind]),
    help="Kinds of key that may approve (default: passkey and ssh-sk).",
)
def stock_policy_command(
    *,
    path: Path,
    team: str,
    security: str,
    people: int,
    rp_id: str,
    origin: str,
    keys: tuple[str, ...],
) -> None:
    """Write a first policy: a rule for every operation, with the stock number of approvals.

    \b
    Example:
      safehold grant stock-policy policy.toml --team t-ops --security t-security \\
          --rp-id approvals.example.org --origin https://approvals.example.org
    """
    from safehold.trust.grants.operations import stock_policy
    from safehold.trust.grants.policy import check_governing, lint_policy, load_policy

    text = stock_policy(
        team=team, security=security, people=people, rp_id=rp_id, origin=origin, keys=keys
    )
    policy = load_policy(text)
    check_governing(policy)
    try:
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}; expected a new file") from error
    click.echo(f"wrote {path}: {len(policy.rules)} rules; read it, then found the enclave with it")
    for line in lint_policy(policy):
        click.echo(f"lint: {line}", err=True)
