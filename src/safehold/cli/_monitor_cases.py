"""`safehold monitor cases`, `close`, `prometheus`: what people should see, and who is told."""

import getpass
import time
from importlib import resources
from pathlib import Path
from typing import Any

import click
import msgspec

from safehold.cli._values import WHO
from safehold.errors import UpstreamError, UsageError

_folder = click.Path(file_okay=False, exists=True, path_type=Path)
_file = click.Path(dir_okay=False, exists=True, path_type=Path)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@click.option("--log", "log", type=_folder, help="A transparency log, or a copy of one.")
@click.option("--log-keys", type=_file, help="Your pinned copy of its log.json.")
@click.option("--webhook", multiple=True, help="Post each new case to this address.")
@click.option("--webhook-key", type=_file, help="Sign what is posted with this shared key.")
@click.option("--mail-command", help="Such as 'sendmail -t'; needs --mail-to.")
@click.option("--mail-to", help="Whom the mails are for.")
@click.option("--otlp", help="An OpenTelemetry collector, such as http://127.0.0.1:4318.")
@_json_option
@click.pass_obj
def cases(
    places: Any,
    log: Path | None,
    log_keys: Path | None,
    webhook: tuple[str, ...],
    webhook_key: Path | None,
    mail_command: str | None,
    mail_to: str | None,
    otlp: str | None,
    as_json: bool,
) -> None:
    """Open cases from labels, campaigns, alarms and the log; tell of new ones; list them.

    \b
    Examples:
      safehold monitor cases
      safehold monitor cases --log log/ --log-keys log.json --webhook https://pager.example/hook
      safehold monitor cases --mail-command "sendmail -t" --mail-to duty@example.org
    """
    from safehold.cli._visible import visible
    from safehold.detect.monitoring.account_book import AccountBook
    from safehold.detect.monitoring.campaign_book import look
    from safehold.detect.monitoring.cases import sources
    from safehold.detect.monitoring.cases.book import CaseBook
    from safehold.detect.monitoring.cases.channels import (
        CaseChannel,
        MailCommand,
        OtlpLogs,
        Webhook,
        tell_all,
        told,
    )
    from safehold.detect.monitoring.fitted import caps_of
    from safehold.detect.monitoring.tables import MonitorStore
    from safehold.guard.ledger.reader import LedgerReader
    from safehold.trust.log.files import DirectorySource
    from safehold.trust.log.keys import read_keys

    if (log is None) is not (log_keys is None):
        raise UsageError("expected --log and --log-keys, or neither of them")
    channels: list[CaseChannel] = [Webhook(url, webhook_key) for url in webhook]
    if mail_command is not None:
        channels.append(MailCommand(mail_command, mail_to or ""))
    if otlp is not None:
        channels.append(OtlpLogs(otlp))
    store, reader = MonitorStore.open(places.monitor), LedgerReader.open(places.ledger)
    now, book = time.time(), CaseBook(store)
    caps, exempt = caps_of(store)
    accounts = AccountBook(store, caps=caps, exempt_caps=exempt)
    accounts.follow(reader)
    book.open(sources.of_labels(accounts.labels(now=now)))
    book.open(sources.of_campaigns(look(store, reader).found, now=now))
    alarms = sources.of_ledger(store, reader)
    book.open(alarms.cases, alarms.cursor)
    if log is not None and log_keys is not None:
        leaves = sources.of_log(store, DirectorySource(log), read_keys(log_keys), now=now)
        book.open(leaves.cases, leaves.cursor)
    failures = [why for one in channels if (why := tell_all(book, one)[1]) is not None]
    for one in book.all():
        if as_json:
            click.echo(msgspec.json.encode(told(one)))
            continue
        click.echo(f"[{one.severity}] {visible(one.title)}  ({visible(one.key)})")
        for number, step in enumerate(one.playbook, start=1):
            click.echo(f"    {number}. {step}")
    if failures:
        raise UpstreamError("; ".join(failures))


@click.command("close")
@click.argument("key")
@click.option(
    "--by", type=WHO, default=getpass.getuser, show_default="your login", help="Who closes it."
)
@click.pass_obj
def close(places: Any, key: str, by: str) -> None:
    """Close the case KEY.

    \b
    Example:
      safehold monitor close label/default/key-7/search-walk/1790000000
    """
    from safehold.cli._visible import visible
    from safehold.detect.monitoring.cases.book import CaseBook
    from safehold.detect.monitoring.tables import MonitorStore

    CaseBook(MonitorStore.open(places.monitor, make=False)).close(key, by=by, now=time.time())
    click.echo(f"{visible(key)} is closed")


@click.command()
def prometheus() -> None:
    """Print alerting rules for Prometheus over the gateway's metrics.

    \b
    Example:
      safehold monitor prometheus > /etc/prometheus/safehold.yml
    """
    place = resources.files("safehold.detect.monitoring.cases") / "rules.yml"
    click.echo(place.read_text("utf-8"), nl=False)
