"""`safehold grant`: request, approve, deny, show, revoke, list."""

import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safehold.cli._grant_sight import (
    open_requests,
    operations,
    renew,
    status,
    stock_policy_command,
    whoami,
)
from safehold.cli._notify import notify_option
from safehold.cli._reads import read_text, text_file, toml_file
from safehold.cli._trust import json_option, log_options, ssh_key_option
from safehold.cli._values import PORT, SENTENCE, WholeNumber
from safehold.errors import TrustError, UsageError

if TYPE_CHECKING:
    from safehold.trust.grants.cases import Case
    from safehold.trust.grants.events import DecisionNote
    from safehold.trust.grants.grant_service import Desk
    from safehold.trust.people.interface import Proof
    from safehold.trust.people.statement import Act

_PAGE_TIMEOUT_S = 30


@click.group()
def grant() -> None:
    """Two-party authorization: ask, approve, deny, revoke.

    \b
    Examples:
      safehold grant request weights.load --resource model/brewer/1 --host gpu-1 \\
          --workload SHA256 --bytes 8GB --minutes 60 --purpose "serve it" --ticket OPS-1 \\
          --ssh-key ~/.ssh/id_ed25519
      safehold grant approve 5f1c2a9e41d0 --ssh-key ~/.ssh/id_ed25519
      safehold grant list
      safehold grant whoami --ssh-key ~/.ssh/id_ed25519
      safehold grant status
      safehold grant serve --port 8443        the approval page, for passkeys
    """


def _bytes(text: str) -> int:
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    number = text.rstrip("KMGTBkmgtb ")
    unit = text[len(number) :].strip().upper()
    if not number.isdigit() or unit not in units:
        raise UsageError(f"expected bytes such as 800GB, got {text[:40]!r}")
    return int(number) * units[unit]


@grant.command()
@click.argument("operation")
@click.option("--resource", required=True, help="KIND/NAME/VERSION[/PART,PART].")
@click.option("--host", required=True, help="The one host where it may be used.")
@click.option("--workload", required=True, help="SHA-256 of the program that will run.")
@click.option("--bytes", "budget", default="0", help="How much may be read, such as 800GB.")
@click.option("--minutes", type=WholeNumber(1), required=True, help="How long it may last.")
@click.option(
    "--uses", type=WholeNumber(1), default=1, show_default=True, help="How often it may be used."
)
@click.option(
    "--purpose", type=SENTENCE, required=True, help="What for, in words that approvers read."
)
@click.option("--ticket", type=SENTENCE, required=True, help="The ticket that this belongs to.")
@click.option("--break-glass", "alone", is_flag=True, help="Ask to act alone, reviewed later.")
@notify_option
@ssh_key_option
@log_options
def request(
    *,
    operation: str,
    resource: str,
    host: str,
    workload: str,
    budget: str,
    minutes: int,
    uses: int,
    purpose: str,
    ticket: str,
    alone: bool,
    told: tuple[str, ...],
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask for a grant; print the request's id.

    \b
    Example:
      safehold grant request weights.load --resource model/brewer/1 --host gpu-1 \\
          --workload $(sha256sum loader | cut -c1-64) --bytes 8GB --minutes 60 \\
          --purpose "serve it" --ticket OPS-1 --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import checked, parse_resource, within_rule
    from safehold.trust.grants.interface import GrantRequest

    desk = open_desk(log_dir, key_dir)
    state = desk.state
    now = desk.now()
    asked = GrantRequest(
        enclave=state.founding_sha256,
        requester=owner_of(ssh_key, state.roster).id,
        purpose=purpose,
        ticket=ticket,
        operation=operation,
        resource=parse_resource(resource),
        host=host,
        workload_sha256=workload,
        byte_budget=_bytes(budget),
        uses=uses,
        not_before=now,
        expires=now + minutes * 60,
        nonce=secrets.token_hex(16),
        policy_version=state.policy.version,
        policy_sha256=state.policy.sha256,
        break_glass=alone,
    )
    click.echo(file_request(desk, within_rule(checked(asked), state.policy), ssh_key, told))


@grant.command("class-off")
@click.argument("guard_class")
@click.option("--minutes", type=WholeNumber(1), required=True, help="How long it may last.")
@click.option(
    "--purpose", type=SENTENCE, required=True, help="What for, in words that approvers read."
)
@click.option("--ticket", type=SENTENCE, required=True, help="The ticket that this belongs to.")
@ssh_key_option
@log_options
def class_off(
    *,
    guard_class: str,
    minutes: int,
    purpose: str,
    ticket: str,
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask to switch one class of the guard off for a while; print the request's id.

    It takes effect once the quorum approved it, and ends by itself (docs/classes.md).

    \b
    Example:
      safehold grant class-off soap --minutes 60 --purpose "a flood of false alarms" \\
          --ticket OPS-1 --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import governing_request, within_rule
    from safehold.trust.grants.details import SWITCH_CLASS_OFF, ClassOff

    desk = open_desk(log_dir, key_dir)
    now, seconds = desk.now(), minutes * 60
    asked = governing_request(
        desk.state,
        owner_of(ssh_key, desk.state.roster),
        SWITCH_CLASS_OFF,
        ClassOff(guard_class=guard_class, until=now + seconds, reason=purpose),
        now,
        purpose=purpose,
        ticket=ticket,
        seconds=seconds,
    )
    if asked.expires < now + seconds:
        rule = desk.state.policy.rule(SWITCH_CLASS_OFF)
        most = 0 if rule is None else rule.max_duration_s // 60
        raise UsageError(f"the policy gives at most {most} minutes")
    click.echo(file_request(desk, within_rule(asked, desk.state.policy), ssh_key))


def _show(desk: "Desk", case: "Case") -> None:
    from safehold.cli._trust import show_words
    from safehold.trust.grants.approval_text import in_words

    show_words(in_words(case.signed.request, desk.state.roster))


def _status(desk: "Desk", case: "Case") -> str:
    from safehold.trust.grants.interface import Granted

    digest = case.signed.request.sha256
    decision = desk.state.decide(digest, desk.now())
    if isinstance(decision, Granted):
        return f"granted, {decision.uses_left} use(s) left"
    return f"{decision.reason.value}: {decision.detail}"


def _signing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the ways to sign: a key file, or a signature made elsewhere."""
    command = click.option(
        "--signature",
        type=text_file(),
        help="An SSHSIG made elsewhere over what `grant statement` printed.",
    )(command)
    return click.option(
        "--ssh-key",
        type=text_file(),
        envvar="SAFEHOLD_SSH_KEY",
        help="Your SSH key file; ssh-keygen signs with it.",
    )(command)


def _proof(act: "Act", document: object, ssh_key: Path | None, signature: Path | None) -> "Proof":
    from safehold.cli._trust import proof_of, sign

    if signature is not None:
        return proof_of(read_text(signature))
    if ssh_key is None:
        raise UsageError("expected --ssh-key or --signature")
    return sign(ssh_key, act, document)


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@_signing
@click.option("--yes", is_flag=True, help="Do not ask again after showing the request.")
@log_options
def approve(
    *,
    request_id: str,
    ssh_key: Path | None,
    signature: Path | None,
    yes: bool,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Read a request and approve exactly it.

    \b
    Example:
      safehold grant approve 5f1c2a9e41d0 --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import open_desk
    from safehold.trust.grants.interface import Granted, Refused, short
    from safehold.trust.grants.state import names
    from safehold.trust.people.statement import Act

    desk = open_desk(log_dir, key_dir)
    case = desk.state.case(request_id)
    asked = case.signed.request
    _show(desk, case)
    if not yes:
        click.confirm("Approve exactly this?", abort=True)
    proof = _proof(Act.APPROVE, asked, ssh_key, signature)
    match desk.approve(asked.sha256, proof):
        case Granted() as granted:
            by = ", ".join(names(desk.state.roster, granted.approvers))
            click.echo(f"granted by {by}: {short(asked.sha256)}")
        case Refused() as refused:
            click.echo(f"approved; still missing: {refused.detail}")


def _noted(
    *,
    act: "Act",
    record: str,
    request_id: str,
    reason: str,
    ssh_key: Path,
    log: tuple[Path, Path | None],
) -> None:
    from safehold.cli._trust import open_desk, sign
    from safehold.trust.grants.interface import short

    desk = open_desk(*log)
    digest = desk.state.case(request_id).signed.request.sha256
    note = checked_note(digest, reason)
    getattr(desk, record)(note, sign(ssh_key, act, note))
    click.echo(f"{act.value} recorded: {short(digest)}")


def checked_note(request_sha256: str, text: str) -> "DecisionNote":
    """Return a note whose text is one printable line."""
    import msgspec

    from safehold.trust.grants.events import DecisionNote

    try:
        return msgspec.convert({"request": request_sha256, "text": text}, DecisionNote)
    except msgspec.ValidationError as error:
        raise UsageError(f"the reason: {error}") from error


_reason = click.option(
    "--reason", type=SENTENCE, required=True, help="One line, which is signed and logged."
)


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@_reason
@ssh_key_option
@log_options
def deny(request_id: str, reason: str, ssh_key: Path, log_dir: Path, key_dir: Path | None) -> None:
    """Refuse a request: it is closed for good.

    \b
    Example:
      safehold grant deny 5f1c2a9e41d0 --reason "no ticket" --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.people.statement import Act

    _noted(
        act=Act.DENY,
        record="deny",
        request_id=request_id,
        reason=reason,
        ssh_key=ssh_key,
        log=(log_dir, key_dir),
    )


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@_reason
@ssh_key_option
@log_options
def revoke(
    request_id: str, reason: str, ssh_key: Path, log_dir: Path, key_dir: Path | None
) -> None:
    """Take a grant away: it holds for nobody from now on.

    \b
    Example:
      safehold grant revoke 5f1c2a9e41d0 --reason "host lost" --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.people.statement import Act

    _noted(
        act=Act.REVOKE,
        record="revoke",
        request_id=request_id,
        reason=reason,
        ssh_key=ssh_key,
        log=(log_dir, key_dir),
    )


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@_reason
@ssh_key_option
@log_options
def end(request_id: str, reason: str, ssh_key: Path, log_dir: Path, key_dir: Path | None) -> None:
    """Give your own grant back.

    \b
    Example:
      safehold grant end 5f1c2a9e41d0 --reason done --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.people.statement import Act

    _noted(
        act=Act.END,
        record="end",
        request_id=request_id,
        reason=reason,
        ssh_key=ssh_key,
        log=(log_dir, key_dir),
    )


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@_reason
@ssh_key_option
@log_options
def review(
    request_id: str, reason: str, ssh_key: Path, log_dir: Path, key_dir: Path | None
) -> None:
    """Record that you have looked at a break-glass grant.

    \b
    Example:
      safehold grant review 5f1c2a9e41d0 --reason "outage of 3 May" --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.people.statement import Act

    _noted(
        act=Act.REVIEW,
        record="review",
        request_id=request_id,
        reason=reason,
        ssh_key=ssh_key,
        log=(log_dir, key_dir),
    )


class CommandPager:
    """Runs a program with subject and detail as its two arguments; it must succeed."""

    def __init__(self, program: str) -> None:
        self._program = program

    def page(self, subject: str, detail: str) -> str:
        """Run the program.

        Raises:
            TrustError: it failed or hung: then the glass stays whole.
        """
        try:
            subprocess.run(
                [self._program, subject, detail],
                check=True,
                timeout=_PAGE_TIMEOUT_S,
                stdout=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise TrustError("the pager failed: break-glass needs somebody to be told") from error
        return f"by {Path(self._program).name}"


@grant.command("break-glass")
@click.argument("request_id", shell_complete=open_requests)
@click.option("--pager", required=True, help="Program that tells people; run before anything.")
@ssh_key_option
@log_options
def break_glass(
    request_id: str, pager: str, ssh_key: Path, log_dir: Path, key_dir: Path | None
) -> None:
    """Act alone on your own request: people are paged, and two must review it in time.

    \b
    Example:
      safehold grant break-glass 5f1c2a9e41d0 --pager ./page-oncall --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import open_desk, sign
    from safehold.trust.grants.interface import short
    from safehold.trust.people.statement import Act

    desk = open_desk(log_dir, key_dir, CommandPager(pager))
    asked = desk.state.case(request_id).signed.request
    granted = desk.break_glass(asked.sha256, sign(ssh_key, Act.BREAK_GLASS, asked))
    click.echo(f"granted to one person alone: {short(granted.request_sha256)}; reviews are due")


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@click.option(
    "--act",
    type=click.Choice(["approve"]),
    default="approve",
    show_default=True,
    help="What the signature says.",
)
@log_options
def statement(request_id: str, act: str, log_dir: Path, key_dir: Path | None) -> None:
    """Print what an approval signs, to be signed elsewhere with ssh-keygen.

    \b
    Example:
      safehold grant statement 5f1c2a9e41d0 > s
      ssh-keygen -Y sign -n safehold-act -f ~/.ssh/id_ed25519_sk s
      safehold grant approve 5f1c2a9e41d0 --signature s.sig
    """
    from safehold.cli._trust import open_desk
    from safehold.trust.people.statement import Act, ssh_message

    desk = open_desk(log_dir, key_dir)
    asked = desk.state.case(request_id).signed.request
    click.echo(ssh_message(Act(act), asked), nl=False)


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@json_option
@log_options
def show(request_id: str, as_json: bool, log_dir: Path, key_dir: Path | None) -> None:
    """Show one request in words, and whether it holds now.

    \b
    Example:
      safehold grant show 5f1c2a9e41d0 --json
    """
    from safehold.cli._trust import emit, open_desk, plain, show_words
    from safehold.trust.grants.approval_text import in_words
    from safehold.trust.grants.state import names

    desk = open_desk(log_dir, key_dir)
    case = desk.state.case(request_id)
    if as_json:
        emit(
            {
                "request": plain(case.signed.request),
                "sha256": case.signed.request.sha256,
                "status": _status(desk, case),
                "approved_by": case.approvers,
                "uses": case.uses,
                "words": [list(pair) for pair in in_words(case.signed.request, desk.state.roster)],
            }
        )
        return
    _show(desk, case)
    approvers = names(desk.state.roster, tuple(case.approvers))
    show_words((("Approved by", ", ".join(approvers) or "nobody"), ("Now", _status(desk, case))))


@grant.command("list")
@click.option("--all", "everything", is_flag=True, help="Closed, spent and expired ones too.")
@json_option
@log_options
def list_(everything: bool, as_json: bool, log_dir: Path, key_dir: Path | None) -> None:
    """List requests and grants.

    \b
    Example:
      safehold grant list --all --json
    """
    from safehold.cli._trust import emit, open_desk
    from safehold.trust.grants.interface import short
    from safehold.trust.grants.state import names

    desk = open_desk(log_dir, key_dir)
    rows = []
    state = desk.state
    for digest, case in state.cases.items() if everything else state.cases.live():
        asked = case.signed.request
        done = case.closed or asked.expires <= desk.now() or case.uses >= asked.uses
        if done and not everything:
            continue
        rows.append(
            {
                "sha256": digest,
                "operation": asked.operation,
                "requester": asked.requester,
                "purpose": asked.purpose,
                "status": _status(desk, case),
            }
        )
    if as_json:
        emit(rows)
        return
    for row in rows:
        click.echo(f"{short(row['sha256'])}  {row['operation']:<18} {row['status']}")
        (asker,) = names(desk.state.roster, (row["requester"],))
        click.echo(f"              {asker}: {row['purpose']}")
    late = desk.state.overdue_reviews(desk.now())
    for digest in late:
        click.echo(f"REVIEW OVERDUE: break-glass {short(digest)}", err=True)


@grant.command("policy")
@click.argument("path", type=toml_file())
@click.option("--request", "ask", is_flag=True, help="Ask to put it in force.")
@click.option(
    "--ssh-key",
    type=text_file(),
    envvar="SAFEHOLD_SSH_KEY",
    help="Your SSH private key, to ask for the change; without it the file is checked.",
)
@log_options
def policy_(
    *, path: Path, ask: bool, ssh_key: Path | None, log_dir: Path, key_dir: Path | None
) -> None:
    """Check a policy file, or ask to put it in force (a two-party change).

    \b
    Examples:
      safehold grant policy policy-2.toml
      safehold grant policy policy-2.toml --request --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.canonical import sha256_hex
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import checked, governing_request
    from safehold.trust.grants.details import ChangePolicy
    from safehold.trust.grants.policy import (
        check_achievable,
        check_governing,
        lint_policy,
        load_policy,
    )

    text = read_text(path)
    new = load_policy(text)
    check_governing(new)
    if not ask:
        click.echo(f"ok: version {new.version}, {len(new.rules)} rules, SHA-256 {new.sha256}")
        for line in lint_policy(new):
            click.echo(f"lint: {line}", err=True)
        return
    if ssh_key is None:
        raise UsageError("expected --ssh-key")
    desk = open_desk(log_dir, key_dir)
    state = desk.state
    check_achievable(new, state.roster)
    if new.version != state.policy.version + 1:
        raise UsageError(f"expected version {state.policy.version + 1}, got {new.version}")
    change = ChangePolicy(text, sha256_hex(text.encode()))
    requester = owner_of(ssh_key, state.roster)
    asked = governing_request(state, requester, "policy.change", change, desk.now())
    click.echo(file_request(desk, checked(asked), ssh_key))


@grant.command()
@click.argument("request_id", shell_complete=open_requests)
@log_options
def apply(request_id: str, log_dir: Path, key_dir: Path | None) -> None:
    """Let an approved change of people, policy or exemptions take effect, if it has not yet.

    \b
    Example:
      safehold grant apply 5f1c2a9e41d0
    """
    from safehold.cli._trust import open_desk
    from safehold.trust.grants.interface import short
    from safehold.trust.grants.operations import AT_ONCE

    desk = open_desk(log_dir, key_dir)
    asked = desk.state.case(request_id).signed.request
    if asked.operation not in AT_ONCE:
        raise UsageError(f"{asked.operation} is used by its own service, not by this command")
    desk.use(asked.sha256, host=asked.host, workload_sha256=asked.workload_sha256)
    click.echo(f"in effect: {short(asked.sha256)}")


@grant.command("correct-clock")
@click.option(
    "--reason",
    "purpose",
    type=SENTENCE,
    required=True,
    help="Which clock was fast, and how you know.",
)
@click.option(
    "--ticket",
    type=SENTENCE,
    default="none",
    show_default=True,
    help="The ticket that this belongs to.",
)
@ssh_key_option
@log_options
def correct_clock(
    purpose: str, ticket: str, ssh_key: Path, log_dir: Path, key_dir: Path | None
) -> None:
    """Ask to set the log's time back to now, after a leaf from a clock that was fast.

    Until it is approved (by the rule clock.correct, or else policy.change), no request or use is
    taken; denials, revocations, removals of a lease and records are.

    \b
    Example:
      safehold grant correct-clock --reason "gpu-2 was years ahead" --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import governing_request
    from safehold.trust.clock import CORRECT, SKEW_S
    from safehold.trust.grants.approval_text import utc
    from safehold.trust.grants.details import CorrectClock

    desk = open_desk(log_dir, key_dir)
    state, now = desk.state, desk.now()
    if state.last_time <= now + SKEW_S:
        raise UsageError(
            f"expected a log that is ahead of this clock, got one at {utc(state.last_time)}; "
            f"this clock says {utc(now)}"
        )
    change = CorrectClock(wrong=state.last_time, right=now)
    requester = owner_of(ssh_key, state.roster)
    asked = governing_request(
        state, requester, CORRECT, change, now, purpose=purpose, ticket=ticket
    )
    click.echo(file_request(desk, asked, ssh_key))


@grant.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=PORT, default=8443, show_default=True, help="Port to listen on.")
@log_options
def serve(host: str, port: int, log_dir: Path, key_dir: Path | None) -> None:
    """Serve the approval page and the JSON API (behind your TLS proxy, or on localhost).

    \b
    Example:
      safehold grant serve --port 8443
    """
    from safehold.cli._trust import open_desk
    from safehold.console.approvals import serve_approvals

    serve_approvals(open_desk(log_dir, key_dir), host=host, port=port)


for command in (operations, renew, status, stock_policy_command, whoami):
    grant.add_command(command)
