"""Tell people: a program of yours (mail, pager), or a webhook; what waits for whom, no content."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safehold.errors import TrustError, UsageError
from safehold.http_ask import ask

if TYPE_CHECKING:
    from safehold.trust.grants.interface import GrantRequest
    from safehold.trust.grants.state import TrustState
    from safehold.trust.people.interface import Person

_TIMEOUT_S = 30
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

notify_option = click.option(
    "--notify",
    "told",
    multiple=True,
    envvar="SAFEHOLD_NOTIFY",
    help="Program (subject and text as arguments) or https:// webhook that tells the approvers.",
)


def tell(target: str, *message: str) -> None:
    """Give a message to one program or webhook.

    Args:
        target: A program, run with the message as its arguments; or an https URL (http on
            loopback), posted `{"text": ...}`, as chat systems read it.
        message: Its parts, one line each.

    Raises:
        TrustError: it failed or hung.
        UsageError: a URL of another scheme.
    """
    if "://" in target:
        _post(target, message)
        return
    try:
        subprocess.run(
            [target, *message], check=True, timeout=_TIMEOUT_S, stdout=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        name = Path(target).name
        raise TrustError(f"{name} told nobody ({_why(error)}): try it by hand") from error


def _post(url: str, message: Sequence[str]) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname in _LOOPBACK) != ("http", True):
        raise UsageError("expected an https:// webhook (http:// on loopback only)")
    body = json.dumps({"text": "\n".join(message)}).encode()
    headers = {"content-type": "application/json"}
    try:
        ask(url, data=body, headers=headers, timeout_s=_TIMEOUT_S)
    except (OSError, urllib.error.URLError) as error:
        from safehold.http_words import why_no_answer  # its libraries are wanted only now

        raise TrustError(f"the webhook told nobody ({why_no_answer(error)})") from error


def _why(error: OSError | subprocess.SubprocessError) -> str:
    match error:
        case subprocess.TimeoutExpired():
            return f"it did not end within {_TIMEOUT_S} s"
        case subprocess.CalledProcessError():
            return f"it ended with status {error.returncode}"
        case OSError():
            return f"it did not start: {error.strerror}"
        case _:
            return "it did not run"


def approvers_of(request: "GrantRequest", state: "TrustState") -> "tuple[Person, ...]":
    """Return the humans whose approval a request may count."""
    from safehold.trust.people.interface import Kind

    rule = state.policy.rule(request.operation)
    teams = set() if rule is None else {one.team for one in rule.thresholds}
    return tuple(
        person
        for person in state.roster.persons
        if person.kind is Kind.HUMAN
        and person.id != request.requester
        and teams & state.roster.teams_of(person)
    )


def tell_approvers(request: "GrantRequest", state: "TrustState", told: Sequence[str]) -> None:
    """Tell those who may approve that something waits; a failure is a warning, for it is filed."""
    from safehold.trust.grants.interface import short

    who = ", ".join(person.name for person in approvers_of(request, state)) or "nobody"
    subject = f"safehold: {request.operation} waits for approval"
    text = (
        f"{short(request.sha256)}: {request.purpose} ({request.ticket}); may approve: {who}; "
        f"read it with: safehold grant show {short(request.sha256)}"
    )
    for target in told:
        try:
            tell(target, subject, text)
        except TrustError as error:
            click.echo(f"safehold: warning: {error}", err=True)
