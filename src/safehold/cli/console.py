"""`safehold console`: the pages where people see and decide."""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safehold.cli._trust import log_options
from safehold.errors import ConfigError

if TYPE_CHECKING:
    from safehold.console.sources import GatewayLink
    from safehold.trust.released.follow import ReleaseLog


def _gateway_link(gateway: str | None, admin_key_file: Path | None) -> "GatewayLink | None":
    """Return the way to the gateway's admin API, where the operator named one."""
    from safehold.console.sources import GatewayLink
    from safehold.trust.log.key_files import read_bearer

    if (gateway is None) != (admin_key_file is None):
        raise ConfigError("expected --gateway and --admin-key-file together, came one of them")
    if gateway is None or admin_key_file is None:
        return None
    return GatewayLink(gateway, read_bearer(admin_key_file))


def _releases(file: Path | None) -> "ReleaseLog | None":
    """Return the releases of the gateway's channel, where the operator named them."""
    if file is None:
        return None
    from safehold.trust.released.follow import ReleaseLog
    from safehold.trust.released.interface import read_release_settings

    return ReleaseLog(read_release_settings(file), time.time)


@click.command()
@click.option(
    "--ledger",
    "url",
    default="safehold-ledger.db",
    envvar="SAFEHOLD_LEDGER",
    show_default=True,
    help="The gateway's ledger: path, sqlite:/// or postgresql:// URL. Only read.",
)
@click.option(
    "--review",
    default="safehold-review.db",
    envvar="SAFEHOLD_REVIEW",
    show_default=True,
    help="The review desk's database.",
)
@click.option(
    "--monitor",
    default="safehold-monitor.db",
    envvar="SAFEHOLD_MONITOR",
    show_default=True,
    help="The monitor's database.",
)
@click.option(
    "--store",
    default="safehold-console.db",
    envvar="SAFEHOLD_CONSOLE",
    show_default=True,
    help="The console's own database: logins and an index of the ledger, without content.",
)
@log_options
@click.option("--gateway", help="The gateway's address, for its state and for rolling back.")
@click.option(
    "--admin-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the gateway's administrator key.",
)
@click.option(
    "--redteam",
    type=click.Path(path_type=Path),
    help="Folder with records of `safehold redteam run`.",
)
@click.option(
    "--timeline",
    type=click.Path(path_type=Path),
    help="The timeline that `safehold egress run` writes.",
)
@click.option(
    "--controls",
    type=click.Path(path_type=Path),
    help="The run that `safehold controls run` saved.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="The report.json that `safehold report build` wrote.",
)
@click.option(
    "--endpoint",
    type=click.Path(path_type=Path),
    help="The record of refusals that `safehold endpoint` keeps.",
)
@click.option(
    "--response",
    type=click.Path(path_type=Path),
    help="Folder whose folders are cases of `safehold respond`.",
)
@click.option(
    "--releases",
    "releases_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SAFEHOLD_RELEASES",
    help="TOML file: log, log_keys, channel, documents, memory; what may be promoted.",
)
@click.option("--intel", envvar="SAFEHOLD_INTEL", help="The database of intelligence.")
@click.option(
    "--programme",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The bounty programme; its public page is /bounty/submit.",
)
@click.option(
    "--book",
    default="safehold-bounty.db",
    show_default=True,
    envvar="SAFEHOLD_BOUNTY",
    help="The bounty's database.",
)
@click.option(
    "--appeals", is_flag=True, help="Take clients' appeals too, at /api/v1/appeals, without login."
)
@click.option(
    "--examples",
    default="permitted",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where an overturned appeal leaves its permitted example.",
)
@click.option(
    "--intel-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your intel.yaml: serve what you tell partners too, over TAXII at /taxii2/ (--intel).",
)
@click.option(
    "--clients",
    default="taxii-clients.yaml",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Who may read and write there, as `safehold intel new-client` keeps them.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8440,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port to listen on.",
)
@click.option("--demo", is_flag=True, help="Play a seeded history first; needs nothing else.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo/console"),
    show_default=True,
    help="Where the demo's stores go; made anew each time.",
)
def console(
    url: str,
    review: str,
    monitor: str,
    store: str,
    log_dir: Path,
    key_dir: Path | None,
    gateway: str | None,
    admin_key_file: Path | None,
    redteam: Path | None,
    timeline: Path | None,
    controls: Path | None,
    report: Path | None,
    endpoint: Path | None,
    response: Path | None,
    releases_file: Path | None,
    intel: str | None,
    programme: Path | None,
    book: str,
    appeals: bool,
    examples: Path,
    intel_config: Path | None,
    clients: Path,
    host: str,
    port: int,
    demo: bool,
    folder: Path,
) -> None:
    """Serve the console: overview, ledger, review, approvals, rollout, incidents.

    People log in with a passkey of the roster; the policy in the log says which origin the pages
    have. Put a TLS proxy before it, or use it on localhost.

    \b
    Examples:
      safehold console --demo
      safehold console --gateway http://127.0.0.1:8400 --admin-key-file admin.key
      safehold console --appeals --intel intel.db --intel-config intel.yaml
      safehold console --ledger postgresql://safehold@db/ledger --store postgresql://c@db/console
    """
    from safehold.cli._trust import key_directory, open_desk, read_signing_key

    if demo:
        from safehold.console.demo.play import serve_demo

        serve_demo(folder, host=host, port=port, say=click.echo)
        return
    from safehold.console.index import ExchangeIndex
    from safehold.console.server import Console, serve_console
    from safehold.console.shell.logins import Logins
    from safehold.console.sources import ConsoleSources, DeskLeaves
    from safehold.detect.monitoring.tables import MonitorStore
    from safehold.detect.review.appeals import AppealBook
    from safehold.detect.review.authority import GrantAuthority, LedgerHolds
    from safehold.detect.review.desk import ReviewDesk
    from safehold.detect.review.reading import ReviewReading
    from safehold.guard.ledger.engine import open_engine
    from safehold.guard.ledger.reader import LedgerReader

    link = _gateway_link(gateway, admin_key_file)
    desk = open_desk(log_dir, key_dir)
    emitter = read_signing_key(key_directory(log_dir, key_dir) / "emitter.key")
    reader = LedgerReader.open(url)
    engine = open_engine(store, wait_s=30.0, write=True)
    leaves = DeskLeaves(desk)
    more: dict[str, object] = {}
    if programme is not None:
        from safehold.console.screens.bounty import BountyDesk
        from safehold.detect.bounty.book import BountyBook
        from safehold.detect.bounty.programme import read_programme

        terms = read_programme(programme)
        more["bounty"] = BountyDesk(BountyBook(book, programme=terms, leaves=leaves), terms)
    taxii = None
    if intel is not None:
        from safehold.cli.intel import read_clients, read_intel
        from safehold.detect.intel.store import IntelStore
        from safehold.detect.intel.taxii_server import TaxiiServer

        told = IntelStore(intel, leaves=leaves)
        more["intel"] = told
        if intel_config is not None:
            file = read_intel(intel_config)
            taxii = TaxiiServer(told, file.sharer(), read_clients(clients), contact=file.contact)
            click.echo(f"shared collection: {taxii.shared}\ninbox: {taxii.inbox}", err=True)
    elif intel_config is not None:
        raise ConfigError("expected --intel beside --intel-config: the database of what is told")
    review_desk = ReviewDesk(
        review,
        evidence=reader,
        leaves=leaves,
        authority=GrantAuthority(desk),
        sampling_key=hashlib.sha256(f"review {emitter.text()}".encode()).digest(),
        holds=LedgerHolds(url),
        examples=examples,
    )
    sources = ConsoleSources(
        reader=reader,
        index=ExchangeIndex(engine, reader, time.time),
        desk=desk,
        review_desk=review_desk,
        cases=ReviewReading(review, time.time),
        monitor=MonitorStore.open(monitor),
        gateway=link,
        redteam=redteam,
        timeline=timeline,
        controls=controls,
        report=report,
        endpoint=endpoint,
        response=response,
        releases=_releases(releases_file),
        appeals=AppealBook(review, desk=review_desk, evidence=reader) if appeals else None,
        taxii=taxii,
        more=more,
    )
    app = Console(sources, Logins(engine, time.time))
    click.echo(
        f"console on http://{host}:{port}; people reach it by the policy's origins", err=True
    )
    serve_console(app, host=host, port=port)
