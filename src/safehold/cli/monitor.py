"""`safehold monitor`: look again at what was served, by exchange, account and campaign."""

import math
import time
from collections.abc import Iterator
from typing import IO

import click
import msgspec

from safehold.cli._monitor_cases import cases, close, prometheus
from safehold.cli._monitor_export import export
from safehold.cli._monitor_ladder import ladder
from safehold.cli._values import SEED, Finite, WholeNumber
from safehold.errors import UpstreamError, UsageError

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")

# What the parts say, told here so that `--help` loads none of them; a test compares.
SCANNERS = ("decoded", "judge", "known", "rules", "session", "sketch", "stages", "workflow")
TAILS = ("light", "medium", "heavy")
OWN = "own"
BACKGROUND = 0.5


class _Places(msgspec.Struct, frozen=True):
    ledger: str
    monitor: str


@click.group()
@click.option(
    "--ledger",
    "url",
    default="safehold-ledger.db",
    envvar="SAFEHOLD_LEDGER",
    show_default=True,
    show_envvar=True,
    help="The gateway's ledger: path, sqlite:/// or postgresql:// URL. Only read.",
)
@click.option(
    "--monitor",
    "store",
    default="safehold-monitor.db",
    envvar="SAFEHOLD_MONITOR",
    show_default=True,
    show_envvar=True,
    help="The monitor's own database.",
)
@click.pass_context
def monitor(context: click.Context, url: str, store: str) -> None:
    """Look again at what was served.

    \b
    Examples:
      safehold monitor scan --scanner session --processes 2
      safehold monitor accounts
      safehold monitor account default/key-1
      safehold monitor campaigns --json
      safehold monitor ladder climb
      safehold monitor cases --webhook https://pager.example/hook
      safehold monitor export --parquet tables/
      safehold monitor simulate --tail heavy --accounts 100000
    """
    context.obj = _Places(url, store)


@monitor.command()
@click.option(
    "--scanner",
    default="session",
    show_default=True,
    type=click.Choice(SCANNERS),
    help="Which scanner judges.",
)
@click.option("-o", "--option", "options", multiple=True, help="Of the scanner, as NAME=VALUE.")
@click.option(
    "--runner",
    default="pool",
    show_default=True,
    type=click.Choice(["pool", "ray"]),
    help="Processes here, or a Ray cluster.",
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=WholeNumber(1),
    help="Processes that judge side by side.",
)
@click.option(
    "--budget-cpu-s", type=Finite(0, min_open=True), help="Stop after so many CPU seconds."
)
@click.option(
    "--gateway-metrics",
    metavar="URL",
    help="Hold back while this gateway waits for its ledger, such as http://127.0.0.1:8400.",
)
@click.option(
    "--max-ledger-s",
    default=0.25,
    show_default=True,
    type=Finite(min=0, min_open=True),
    help="The 99 % quantile of the gateway's appends that is too much.",
)
@_json_option
@click.pass_obj
def scan(
    places: _Places,
    scanner: str,
    options: tuple[str, ...],
    runner: str,
    processes: int,
    budget_cpu_s: float | None,
    gateway_metrics: str | None,
    max_ledger_s: float,
    as_json: bool,
) -> None:
    """Judge every exchange that this scanner has not judged yet.

    \b
    Examples:
      safehold monitor scan
      safehold monitor scan --scanner stages
      safehold monitor scan -o bundle=out/bundle -o sha256=DIGEST --processes 2
      safehold monitor scan --scanner known -o file=attack.txt
      safehold monitor scan --scanner rules -o file=new-rules.yaml
      safehold monitor scan --scanner judge -o url=http://127.0.0.1:8000/v1 -o model=m -o share=0.01
    """
    from safehold.detect.monitoring.scan.interface import ScannerSpec
    from safehold.detect.monitoring.scan.judge_scanner import on_the_top
    from safehold.detect.monitoring.scan.pressure import LedgerPressure
    from safehold.detect.monitoring.scan.scanners import load_scanner
    from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
    from safehold.detect.runners.interface import RunLimits
    from safehold.detect.runners.pool import run_pool
    from safehold.detect.runners.ray_runner import run_ray
    from safehold.guard.ledger.reader import LedgerReader

    budget = math.inf if budget_cpu_s is None else budget_cpu_s
    spec = ScannerSpec(scanner, dict(_pairs(options)))
    if scanner == "judge":
        spec = on_the_top(spec, places.monitor)
    job = ScanJob(places.ledger, places.monitor, spec, load_scanner)
    if gateway_metrics is not None:
        busy = LedgerPressure(gateway_metrics, max_ledger_s)
        job = msgspec.structs.replace(job, busy=busy)
    planner = ScanWorker(job, "planner")
    planned = planner.queue.plan(LedgerReader.open(places.ledger), name=scanner)
    run = run_ray if runner == "ray" else run_pool
    counts = run(job, RunLimits(processes=processes, budget_cpu_s=budget))
    if as_json:
        click.echo(msgspec.json.encode({"planned": planned, **msgspec.structs.asdict(counts)}))
    else:
        waits = f", {counts.parked} parked" if counts.parked else ""
        click.echo(f"{planned} new units; {counts.done} done, {counts.open} open{waits}")
    if counts.parked:
        raise UpstreamError(
            f"{counts.parked} units were not judged and are asked about again by the next "
            f"`monitor scan --scanner {scanner}`: {planner.queue.parked_why()}"
        )


@monitor.command()
@_json_option
@click.pass_obj
def status(places: _Places, as_json: bool) -> None:
    """Show what each scanner has covered, and what waits.

    \b
    Examples:
      safehold monitor status
      safehold monitor status --json | jq .waiting
    """
    from safehold.detect.monitoring.scan.coverage import scan_coverage
    from safehold.detect.monitoring.tables import MonitorStore

    found = list(scan_coverage(MonitorStore.open(places.monitor, make=False)))
    if not found and not as_json:
        click.echo("nothing was scanned yet: safehold monitor scan")
    for one in found:
        if as_json:
            click.echo(msgspec.json.encode(one))
        else:
            click.echo(
                f"{one.name}  {one.judged} judged, {one.waiting} waiting, up to row {one.planned}, "
                f"{one.cpu_s:.0f} CPU s  ({one.scanner[:60]})"
            )


@monitor.command()
@click.option(
    "--workflow",
    metavar="BUNDLE",
    help="Also judge each account's last day as one text and count the workflow's stages in it, "
    "with this stock bundle.",
)
@_json_option
@click.pass_obj
def accounts(places: _Places, workflow: str | None, as_json: bool) -> None:
    """Take in what ended since the last time, and list the accounts that have a label.

    \b
    Examples:
      safehold monitor accounts
      safehold monitor accounts --workflow homebrewing
      safehold monitor accounts --json | jq .account
    """
    from safehold.detect.monitoring.account_book import AccountBook
    from safehold.detect.monitoring.fitted import caps_of
    from safehold.detect.monitoring.scan.guard_scanners import day_watch
    from safehold.detect.monitoring.tables import MonitorStore
    from safehold.guard.ledger.reader import LedgerReader

    joiner, stager = (None, None) if workflow is None else day_watch({"bundle": workflow})
    store = MonitorStore.open(places.monitor)
    caps, exempt = caps_of(store)
    book = AccountBook(store, caps=caps, exempt_caps=exempt, joiner=joiner, stager=stager)
    taken = book.follow(LedgerReader.open(places.ledger))
    found = book.labels(now=time.time())
    for one in found:
        if as_json:
            click.echo(msgspec.json.encode(one))
        else:
            click.echo(f"{one.account}  {one.label}  {one.reason}  (query {one.queries})")
    if not as_json:
        click.echo(f"{taken} new exchanges, {len(found)} labels")


@monitor.command("campaigns")
@click.option(
    "--background",
    default=BACKGROUND,
    show_default=True,
    type=Finite(0.0, 1.0),
    help="At the first look: the oldest share of the ledger, whose wording counts as usual.",
)
@click.option(
    "--window-days",
    default=7.0,
    show_default=True,
    type=Finite(min=0.01),
    help="How long an exchange is looked at before its wording counts as usual.",
)
@_json_option
@click.pass_obj
def campaigns_command(
    places: _Places, background: float, window_days: float, as_json: bool
) -> None:
    """Find texts of many accounts that share rare wording.

    \b
    Examples:
      safehold monitor campaigns
      safehold monitor campaigns --window-days 3 --json
    """
    from safehold.detect.monitoring.campaign_book import CampaignSettings, look
    from safehold.detect.monitoring.tables import MonitorStore
    from safehold.guard.ledger.reader import LedgerReader

    settings = CampaignSettings(window_s=window_days * 86_400, begin_with=background)
    store = MonitorStore.open(places.monitor)
    looked = look(store, LedgerReader.open(places.ledger), settings)
    for found in looked.found:
        if as_json:
            click.echo(msgspec.json.encode(found))
        elif found.alarm:
            click.echo(
                f"{len(found.decision_ids)} texts of {len(found.accounts)} accounts, "
                f"{found.stopped} stopped; first {found.decision_ids[0]}"
            )
    if not as_json:
        alarms = sum(one.alarm for one in looked.found)
        click.echo(
            f"{looked.window} exchanges looked at against {looked.background} usual ones: "
            f"{alarms} campaigns, {len(looked.found) - alarms} harmless clusters"
        )


@monitor.command("simulate")
@click.option(
    "--tail",
    default="medium",
    show_default=True,
    type=click.Choice([*TAILS, OWN]),
    help="How heavy the tail of honest accounts is.",
)
@click.option(
    "--accounts",
    "count",
    default=10_000,
    show_default=True,
    type=WholeNumber(1),
    help="Honest accounts to play.",
)
@click.option(
    "--walk-share",
    default=0.2,
    show_default=True,
    type=Finite(0.0, 1.0),
    help="Share of the search's queries that walk on from the last one.",
)
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds play equal accounts."
)
@click.pass_obj
def simulate_command(places: _Places, tail: str, count: int, walk_share: float, seed: int) -> None:
    """Show what the account statistics do to honest accounts and to a search.

    The tail `own` is that of your own accounts so far, against the caps that you fitted.

    \b
    Examples:
      safehold monitor simulate
      safehold monitor simulate --tail own
      safehold monitor simulate --tail heavy --accounts 100000 --walk-share 0.3
    """
    from safehold.detect.monitoring.account_book import EXEMPT, AccountBook
    from safehold.detect.monitoring.accounts import Caps
    from safehold.detect.monitoring.fitted import caps_of
    from safehold.detect.monitoring.simulate import TAILS as MODELS
    from safehold.detect.monitoring.simulate import own_tail, simulate
    from safehold.detect.monitoring.tables import MonitorStore

    caps, law = Caps(), MODELS.get(tail)
    if law is None:
        store = MonitorStore.open(places.monitor, make=False)
        caps, _ = caps_of(store)
        states = AccountBook(store, caps=caps).states()
        law = own_tail(one for name, one in states.items() if not name.endswith(EXEMPT))
    done = simulate(tail=law, accounts=count, walk_share=walk_share, caps=caps, seed=seed)
    click.echo(msgspec.json.format(msgspec.json.encode(done)))


@monitor.command("account")
@click.argument("account")
@_json_option
@click.pass_obj
def account_command(places: _Places, account: str, as_json: bool) -> None:
    """Show one account: its counts, how strong the evidence is, its labels, its decisions.

    \b
    Examples:
      safehold monitor account default/key-1
      safehold monitor account default/key-1 --json | jq .labels
    """
    from safehold.detect.monitoring.account_book import EXEMPT, AccountBook
    from safehold.detect.monitoring.accounts import evidence
    from safehold.detect.monitoring.fitted import caps_of
    from safehold.detect.monitoring.tables import MonitorStore

    store = MonitorStore.open(places.monitor, make=False)
    caps, exempt = caps_of(store)
    book = AccountBook(store, caps=caps)
    state = book.states().get(account)
    if state is None:
        raise UsageError(
            f"the monitor has not seen {account!r}: run `safehold monitor accounts` first, and "
            "look up its name there or in the ledger (TENANT/KEY)"
        )
    labels = [one for one in book.labels(now=time.time()) if one.account == account]
    own = exempt if account.endswith(EXEMPT) else caps
    strength = {} if own is None else evidence(state, own)
    powers = {name: round(log / math.log(10), 1) for name, log in strength.items()}
    if as_json:
        counts = {
            name: getattr(state, name)
            for name in ("queries", "blocked", "walked", "windows", "split", "lineage")
        }
        told = {"account": account, **counts, "evidence_10": powers, "labels": labels}
        told |= {"workflow": state.workflow, "most_stages": state.most_stages}
        click.echo(msgspec.json.encode({**told, "decisions": state.evidence}))
        return
    click.echo(
        f"{account}: {state.queries} exchanges, {state.blocked} stopped, {state.walked} resembling "
        f"an earlier one, longest chain {state.lineage}, {state.split} of {state.windows} days hot"
    )
    if state.workflow.stages:
        click.echo(
            f"  last day: {len(state.workflow.stages)} of {state.workflow.of} stages of "
            f"{state.workflow.clause} ({', '.join(state.workflow.stages)})"
        )
    for name, power in powers.items():
        click.echo(
            f"  {name}: evidence 10^{power} (a label needs 10^{-math.log10(caps.alpha):.0f})"
        )
    for one in labels:
        until = time.strftime("%Y-%m-%d", time.gmtime(one.expires))
        click.echo(f"  label {one.label} until {until}: {one.reason}")
    if state.evidence:
        click.echo(f"  decisions: {', '.join(state.evidence)}")


monitor.add_command(ladder)
monitor.add_command(cases)
monitor.add_command(close)
monitor.add_command(prometheus)
monitor.add_command(export)


@monitor.command("fit")
@click.argument("honest", type=click.File("r"))
@_json_option
@click.pass_obj
def fit_command(places: _Places, honest: IO[str], as_json: bool) -> None:
    """Fit the caps on HONEST: a file of account names that people looked at, one a line.

    \b
    Examples:
      safehold monitor fit honest.txt
      cut -f1 honest.tsv | safehold monitor fit -
    """
    from safehold.detect.monitoring.fitted import fit
    from safehold.detect.monitoring.tables import MonitorStore

    names = {line.strip() for line in honest if line.strip()}
    found = fit(MonitorStore.open(places.monitor, make=False), names, now=time.time())
    for name, one in found.items():
        if as_json:
            click.echo(msgspec.json.encode({"name": name, **msgspec.structs.asdict(one)}))
        else:
            caps = one.caps
            click.echo(
                f"{name}: stopped {caps.block:.1%}, resembling {caps.walk:.1%}, in pieces "
                f"{caps.workflow:.1%} of days above {caps.asked:.2f} asked or {caps.got:.2f} got, "
                f"chain {caps.lineage}, fewer than {caps.stages} stages a day; of {one.accounts} "
                "accounts"
            )


def _pairs(options: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"expected NAME=VALUE, came {option}")
        yield name, value
