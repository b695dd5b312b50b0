"""`safehold monitor ladder`: the signed file of account states that gateways follow."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._values import SENTENCE, WHO, Finite, WholeNumber
from safehold.errors import UsageError
from safehold.guard.accounts.interface import LadderStep

if TYPE_CHECKING:
    from safehold.detect.monitoring.ladder import StateBook

_states_option = click.option(
    "--states",
    default="account-states.json",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The signed file that gateways follow.",
)
_key_option = click.option(
    "--key",
    default="monitor.key",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The monitor's private key (PEM); `begin` makes it, with its .pub beside it.",
)
_signer_option = click.option(
    "--signer",
    type=WHO,
    default="monitor",
    show_default=True,
    help="The key's name in the gateway's settings.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")

# As in `Climb`; a test compares.
LIMIT_AFTER = 5
REQUESTS_PER_HOUR = 6


@click.group()
def ladder() -> None:
    """Put accounts on the ladder: observe, review, step-up, rate-limit, suspend.

    \b
    Examples:
      safehold monitor ladder begin
      safehold monitor ladder climb
      safehold monitor ladder step default/key-7 rate-limit --requests 6 --reason "a search"
      safehold monitor ladder step default/key-7 suspend --grant REQUEST --days 30 --reason "..."
      safehold monitor ladder lift default/key-7
    """


@ladder.command()
@_states_option
@_key_option
@_signer_option
def begin(states: Path, key: Path, signer: str) -> None:
    """Make an empty signed file, and the monitor's key where there is none.

    \b
    Example:
      safehold monitor ladder begin --states states.json --key monitor.key
    """
    _book(states, key, signer).begin(int(time.time()))
    click.echo(f"{states} is there; give gateways {key.name}.pub (account_states.keys)")


@ladder.command()
@_states_option
@_key_option
@_signer_option
@_json_option
def show(states: Path, key: Path, signer: str, as_json: bool) -> None:
    """Show every step in the file.

    \b
    Example:
      safehold monitor ladder show --json
    """
    content = _book(states, key, signer).content()
    if as_json:
        click.echo(msgspec.json.encode(content))
        return
    for one in content.standings:
        ends = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.expires))
        click.echo(f"{one.account}  {one.level}  until {ends} UTC  {one.label}: {one.reason}")
    click.echo(f"serial {content.serial}, {len(content.standings)} steps")


@ladder.command()
@_states_option
@_key_option
@_signer_option
@click.option(
    "--limit-after",
    default=LIMIT_AFTER,
    show_default=True,
    type=WholeNumber(1),
    help="Stopped exchanges after which a stepped-up account is limited.",
)
@click.option(
    "--requests",
    default=REQUESTS_PER_HOUR,
    show_default=True,
    type=WholeNumber(1),
    help="Requests an hour of a limited account.",
)
@_json_option
@click.pass_obj
def climb(
    places: Any,
    states: Path,
    key: Path,
    signer: str,
    limit_after: int,
    requests: int,
    as_json: bool,
) -> None:
    """Take in the ledger's news and step labelled accounts up, for a day at most.

    \b
    Example:
      safehold monitor ladder climb --limit-after 3
    """
    from safehold.detect.monitoring.account_book import AccountBook
    from safehold.detect.monitoring.fitted import caps_of
    from safehold.detect.monitoring.ladder import climbed
    from safehold.detect.monitoring.tables import MonitorStore
    from safehold.guard.ledger.reader import LedgerReader

    store = MonitorStore.open(places.monitor)
    caps, exempt = caps_of(store)
    book = AccountBook(store, caps=caps, exempt_caps=exempt)
    book.follow(LedgerReader.open(places.ledger))
    file, now = _book(states, key, signer), int(time.time())
    from safehold.detect.monitoring.ladder import Climb

    how = Climb(limit_after=limit_after, requests_per_hour=requests)
    labels, known = book.labels(now=now), book.states()
    before = file.content().standings
    stepped = book.stepped()
    serial = file.change(
        lambda all_: climbed(all_, labels, known, now=now, stepped_at=stepped, how=how), now
    )
    after = file.content().standings
    fresh = [one for one in after if one not in before]
    book.note_steps(fresh)
    if as_json:
        click.echo(msgspec.json.encode({"serial": serial, "new": fresh}))
        return
    for one in fresh:
        click.echo(f"{one.account}  {one.level}  {one.label}: {one.reason}")
    click.echo(f"serial {serial}, {len(fresh)} new steps, {len(after)} in all")


@ladder.command()
@click.argument("account")
@click.argument("level", type=click.Choice([one.value for one in LadderStep]))
@_states_option
@_key_option
@_signer_option
@click.option(
    "--reason", type=SENTENCE, required=True, help="A sentence for whoever looks at it later."
)
@click.option(
    "--label", type=WHO, default="by-hand", show_default=True, help="A short name of the finding."
)
@click.option("--evidence", multiple=True, help="A decision id that shows it.")
@click.option(
    "--days",
    default=1.0,
    show_default=True,
    type=Finite(min=0.001, max=90),
    help="The step ends by itself after so many days.",
)
@click.option("--requests", type=WholeNumber(1), help="Of a rate limit: requests an hour.")
@click.option("--grant", default="", help="The used request that gives the step (64 hex digits).")
def step(
    account: str,
    level: str,
    states: Path,
    key: Path,
    signer: str,
    reason: str,
    label: str,
    evidence: tuple[str, ...],
    days: float,
    requests: int | None,
    grant: str,
) -> None:
    """Put ACCOUNT (tenant/key) on a step.

    \b
    Examples:
      safehold monitor ladder step default/key-7 step-up --reason "odd wording"
      safehold monitor ladder step default/key-7 suspend --grant REQUEST --days 30 --reason "..."
    """
    from safehold.guard.accounts.interface import DAY_S, AccountStanding

    now = int(time.time())
    given = {
        "account": account,
        "level": level,
        "label": label,
        "reason": reason,
        "evidence": evidence,
        "created": now,
        "expires": now + int(days * DAY_S),
        "requests_per_hour": requests,
        "grant": grant,
    }
    try:
        standing = msgspec.convert(given, AccountStanding)
    except msgspec.ValidationError as error:
        raise UsageError(f"that is no step: {error}") from error
    serial = _book(states, key, signer).step(standing, now)
    click.echo(f"serial {serial}: {account} is on {level}")


@ladder.command()
@click.argument("account")
@_states_option
@_key_option
@_signer_option
def lift(account: str, states: Path, key: Path, signer: str) -> None:
    """Take ACCOUNT off the ladder.

    \b
    Example:
      safehold monitor ladder lift default/key-7
    """
    serial = _book(states, key, signer).lift(account, int(time.time()))
    click.echo(f"serial {serial}: {account} is on no step")


def _book(states: Path, key: Path, signer: str) -> "StateBook":
    from safehold.detect.monitoring.ladder import StateBook
    from safehold.guard.bundle.signing import load_or_make_key

    private = load_or_make_key(key)
    return StateBook(states, {signer: private.public_key()}, signer, private)
