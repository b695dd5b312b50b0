"""The egress commands that need no enforcement state: init, learn, simulate, drill, others."""

import datetime as dt
import itertools
import time
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._places import out_file, out_folder
from safehold.cli._reads import any_place, rows_file, toml_file
from safehold.cli._values import (
    SEED,
    Finite,
    WholeNumber,
)
from safehold.errors import UsageError

if TYPE_CHECKING:
    from safehold.secure.egress.watch.timeline_rows import TimelineRow


@click.command()
@click.option(
    "--out",
    type=out_folder(),
    default=".",
    help="Folder for the register and the plan.",
)
def init(out: Path) -> None:
    """Write an example register and plan to start from.

    \b
    Examples:
      safehold egress init --out /etc/safehold
    """
    from safehold.secure.egress.simulation.example_host import PLAN, REGISTER

    for name, text in (("egress.toml", REGISTER), ("egress-plan.toml", PLAN)):
        if (out / name).exists():
            raise UsageError(f"{name} exists; it is not overwritten")
        out.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    click.echo("wrote egress.toml and egress-plan.toml; next: safehold egress plan")


@click.command()
@click.option("--netns", default=None, help="Observe a named network namespace.")
@click.option(
    "--seconds",
    type=Finite(1),
    default=60.0,
    show_default=True,
    help="How long to observe.",
)
@click.option("--out", type=out_file(), default=None, help="Write the proposed rows here.")
@click.option("--keep", is_flag=True, help="Leave the observer in the kernel afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print what was seen as JSON.")
def learn(netns: str | None, seconds: float, out: Path | None, keep: bool, as_json: bool) -> None:
    """Observe what leaves, without changing it, and propose register rows.

    \b
    Examples:
      safehold egress learn --seconds 600 --out proposed.toml
      safehold egress learn --netns enclave --keep
    """
    from rich.console import Console
    from rich.progress import Progress

    from safehold.secure.egress.kernel.nft import NftKernel
    from safehold.secure.egress.watch.observe_flows import observer, propose, seen, stop_observing

    kernel = NftKernel(netns)
    kernel.apply(observer())
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("observing", total=seconds)
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(1.0, left))
                bar.update(task, completed=seconds - max(0.0, left - 1))
        found = seen(kernel)
    finally:
        if not keep:
            kernel.apply(stop_observing())
    text = propose(found, seconds, dt.datetime.now(dt.UTC).date())
    if out:
        out.write_text(text)
    click.echo(msgspec.json.encode(found).decode() if as_json else text)


_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Of a flow, for a thief who signs."""


@click.command()
@click.option(
    "--runs",
    type=WholeNumber(20),
    default=1000,
    show_default=True,
    help="Thefts to play at each point.",
)
@click.option(
    "--seed", type=SEED, default=7, show_default=True, help="Equal seeds draw equal traffic."
)
@click.option(
    "--share",
    type=Finite(0.001, 10),
    default=0.1,
    show_default=True,
    help="The thief's rate, as a share of the honest traffic.",
)
@click.option("--phi", type=Finite(0, 0.95), default=0.0, help="Hourly correlation.")
@click.option("--hosts", type=WholeNumber(2), default=200, show_default=True, help="Fits.")
@click.option(
    "--weeks", type=WholeNumber(4), default=26, show_default=True, help="A detector learns."
)
@click.option(
    "--pieces",
    "pieces_folder",
    type=any_place(),
    help="Keep finished pieces here: a run that was killed goes on.",
)
@click.option(
    "--register",
    "register_file",
    type=toml_file(),
    default=None,
    help="The register of flows (default: an example).",
)
@click.option(
    "--plan",
    "plan_file",
    type=toml_file(),
    default=None,
    help="The plan of budgets (default: an example).",
)
@click.option("--series", "series_files", type=rows_file(), multiple=True, help="Recorded series.")
@click.option("--plot", type=out_file(), default=None, help="Write a picture (needs matplotlib).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def simulate(
    runs: int,
    seed: int,
    share: float,
    phi: float,
    hosts: int,
    weeks: int,
    pieces_folder: Path | None,
    register_file: Path | None,
    plan_file: Path | None,
    series_files: tuple[Path, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Simulate thieves against budgets, accounting and detectors: time to detect, bytes lost.

    \b
    Examples:
      safehold egress simulate
      safehold egress simulate --share 0.02 --phi 0.5 --plot simulation.png
      safehold egress simulate --runs 2000 --phi 0.8 --pieces simulated
      safehold egress simulate --series net_nab_series.jsonl --json
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress

    from safehold import __version__
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.detectors import recorded_series as recorded
    from safehold.secure.egress.simulation.by_volume import Study, study
    from safehold.secure.egress.simulation.delay import Delay
    from safehold.secure.egress.simulation.example_host import shipped_setup
    from safehold.secure.egress.simulation.figures import plot_simulation
    from safehold.secure.egress.simulation.pieces import Pieces
    from safehold.secure.egress.simulation.report import SimulationReport, simulation_text
    from safehold.secure.egress.simulation.simulate import (
        Containment,
        Mimicry,
        Setup,
        containment,
        mimicry,
        residual_delay,
    )

    setup = shipped_setup(phi)
    if bool(register_file) != bool(plan_file):
        raise UsageError("give --register and --plan together")
    if register_file and plan_file:
        rules = load_register(register_file).live(dt.datetime.now(dt.UTC).date())
        setup = Setup(traffic=setup.traffic, plan=load_plan(plan_file), flows=rules)
    asked = Study(
        setup.traffic, share, runs=runs, hosts=hosts, years=hosts * 10, weeks=weeks, seed=seed
    )
    kept = Pieces(pieces_folder, (__version__, asked, setup))

    def rng(part: int) -> np.random.Generator:
        return np.random.default_rng([seed, part, 2])

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulating", total=4 + len(series_files))
        found = SimulationReport(
            setup=setup,
            seed=seed,
            volume=study(asked, kept),
            reconciled=kept.once(
                "reconciled", Delay, lambda: residual_delay(setup, share, runs=runs, rng=rng(1))
            ),
            contained=kept.once(
                "contained", Containment, lambda: containment(setup, runs=runs, rng=rng(2))
            ),
            mimicry=kept.once(
                "mimicry",
                tuple[Mimicry, ...],
                lambda: mimicry(setup, _SHARES, runs=max(50, runs // 10), rng=rng(3)),
            ),
        )
        bar.update(task, advance=4)
        series = []
        for path in series_files:
            series += [
                recorded.evaluate(one, share=share, rng=np.random.default_rng(seed))
                for one in recorded.load_series(path)
            ]
            bar.update(task, advance=1)
    found = msgspec.structs.replace(found, series=tuple(series))
    if plot:
        plot_simulation(found, plot)
    click.echo(msgspec.json.encode(found.summary()).decode() if as_json else simulation_text(found))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def drill(as_json: bool) -> None:
    """Try every way out with synthetic bytes, between two namespaces, and say what got through.

    Exits with 1 when any byte more than allowed arrived. Needs root.

    \b
    Examples:
      safehold egress drill
      safehold egress drill --json
    """
    from rich.console import Console
    from rich.progress import Progress

    from safehold.secure.egress.simulation.drill import run_drill

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("trying", total=12)
        found = run_drill(lambda _: bar.update(task, advance=1))
    if as_json:
        click.echo(msgspec.json.encode({"passed": found.passed, **msgspec.to_builtins(found)}))
    else:
        for attempt in found.attempts:
            verdict = "held" if attempt.held else "GOT OUT"
            click.echo(
                f"{verdict:<8}{attempt.name:<42}{attempt.arrived:>10} of {attempt.pushed} B "
                f"(allowed {attempt.allowed})"
            )
        click.echo(f"block took hold in {found.block_s * 1000:.0f} ms")
    if not found.passed:
        raise SystemExit(1)


@click.command()
@click.argument("rows", type=rows_file())
@click.option("--plan", "plan_file", type=toml_file(), required=True, help="The plan of budgets.")
@click.option("--out", type=out_file(), required=True, help="The HTML page to write.")
def timeline(rows: Path, plan_file: Path, out: Path) -> None:
    """Draw the watch's timeline as one self-contained HTML page.

    \b
    Examples:
      safehold egress timeline /var/lib/safehold/egress/timeline.jsonl \\
          --plan egress-plan.toml --out egress.html
    """
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.watch.timeline import render
    from safehold.secure.egress.watch.timeline_files import timeline_rows

    plan = load_plan(plan_file)
    out.write_text(render(timeline_rows(rows), stolen_bytes=plan.bound.stolen_bytes))
    click.echo(f"wrote {out.name}")


@click.command()
@click.argument("rows", type=rows_file())
@click.option("--out", type=out_file(), required=True, help="The file of detectors to write.")
@click.option(
    "--per-year",
    type=Finite(0.01, 365),
    default=1.0,
    show_default=True,
    help="False alarms a year that all detectors may raise together.",
)
@click.option(
    "--seed", type=SEED, default=7, show_default=True, help="Equal seeds give equal thresholds."
)
def baseline(rows: Path, out: Path, per_year: float, seed: int) -> None:
    """Fit detectors to a watched time that somebody vouches for; thresholds by alarms per year.

    The allowance is for all detectors of the host together.

    \b
    Examples:
      safehold egress baseline timeline.jsonl --out detectors.json --per-year 1
    """
    import numpy as np

    from safehold.secure.egress.detectors.baseline import fit
    from safehold.secure.egress.detectors.calibration import calibrate
    from safehold.secure.egress.enforcement.state import write_durably
    from safehold.secure.egress.watch.timeline_files import timeline_rows

    series = hourly_series(timeline_rows(rows))
    rng = np.random.default_rng(seed)
    fitted = {
        name: calibrate(fit(values, 3600), alarms_per_year=per_year / len(series), rng=rng)
        for name, values in series.items()
    }
    write_durably(out, msgspec.json.encode(fitted))
    click.echo(
        f"wrote {out.name}: {len(fitted)} detectors, {per_year:g} false alarms a year in all"
    )


def hourly_series(rows: "Iterable[TimelineRow]") -> dict[str, list[float]]:
    """Bytes by hour from a timeline's odometers; rows are read one at a time."""
    series: dict[str, list[float]] = {}
    first: float | None = None
    for before, after in itertools.pairwise(rows):
        first = before.time if first is None else first
        hour = int((after.time - first) // 3600)
        for name, passed in after.passed.items():
            bins = series.setdefault(name, [])
            bins.extend([0.0] * (hour + 1 - len(bins)))
            bins[hour] += max(0, passed - before.passed.get(name, 0))
    return {name: bins[:-1] for name, bins in series.items() if sum(bins) > 0}


@click.command()
@click.argument("rows", type=rows_file())
@click.option(
    "--senders", type=toml_file(), required=True, help="Who signed the rows of that time."
)
@click.option(
    "--register",
    "register_file",
    type=toml_file(),
    default="egress.toml",
    show_default=True,
    help="The register of flows.",
)
@click.option(
    "--plan",
    "plan_file",
    type=toml_file(),
    default="egress-plan.toml",
    show_default=True,
    help="The plan of budgets.",
)
@click.option(
    "--interval",
    type=Finite(1),
    default=600.0,
    show_default=True,
    help="Seconds of each compared stretch of time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def overhead(
    rows: Path,
    senders: Path,
    register_file: Path,
    plan_file: Path,
    interval: float,
    as_json: bool,
) -> None:
    """Learn what kernel bytes explained ones make, in a watched time that somebody vouches for.

    Prints the tables for the senders file, and the noise and bias measured on the half of the time
    that was not learned from; a bias beyond the plan's `overhead_slack` breaks the proof.

    \b
    Examples:
      safehold egress overhead timeline.jsonl --senders senders.toml >> senders.toml
      safehold egress overhead timeline.jsonl --senders senders.toml --json
    """
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.explain.ledger import ChainPosition
    from safehold.secure.egress.explain.senders import load_sources
    from safehold.secure.egress.watch import overhead_learning as vouched
    from safehold.secure.egress.watch.timeline_files import timeline_rows

    register, plan = load_register(register_file), load_plan(plan_file)
    sources = load_sources(senders, register)
    told = [
        row
        for name in sources.files.values()
        if sources.reader is not None
        for row, _ in sources.reader.follow(name, ChainPosition(), time.time())
    ]
    watched = vouched.looks(timeline_rows(rows), interval)
    flows = [flow.id for flow in register.flows if flow.reconciled]
    if not flows:
        raise UsageError("the register has no reconciled flow")
    found = [vouched.learn(watched, told, flow, interval) for flow in flows]
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    click.echo(vouched.as_toml(found), nl=False)
    for item in found:
        click.echo(vouched.words(item, plan.overhead_slack), err=True)


@click.command("map")
@click.argument("rows", type=rows_file())
@click.option(
    "--register",
    "register_file",
    type=toml_file(),
    default="egress.toml",
    show_default=True,
    help="The register of flows.",
)
@click.option(
    "--plan",
    "plan_file",
    type=toml_file(),
    default="egress-plan.toml",
    show_default=True,
    help="The plan of budgets.",
)
@click.option("--observed", is_flag=True, help="Add what `learn --keep` has seen on the wire.")
@click.option("--netns", default=None, help="Where it observes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def map_(
    rows: Path,
    register_file: Path,
    plan_file: Path,
    observed: bool,
    netns: str | None,
    as_json: bool,
) -> None:
    """Map the flows: owner, purpose, class, bytes a day, last week, and what needs a look.

    ROWS is the watch's timeline. Unowned, unused, expired and undeclared flows come last, and the
    time to steal the weights month by month.

    \b
    Examples:
      safehold egress map /var/lib/safehold/egress/timeline.jsonl
      safehold egress map timeline.jsonl --observed --json
    """
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.kernel.nft import NftKernel
    from safehold.secure.egress.watch.flow_map import flow_map, map_text, steal_months, steal_text
    from safehold.secure.egress.watch.observe_flows import seen
    from safehold.secure.egress.watch.timeline_files import HOUR_S, timeline_rows
    from safehold.secure.egress.watch.timeline_rows import rolled_up

    register, plan = load_register(register_file), load_plan(plan_file)
    watched = list(rolled_up(timeline_rows(rows), HOUR_S))
    today = dt.datetime.now(dt.UTC).date()
    found = flow_map(register, watched, seen(NftKernel(netns)) if observed else [], today)
    months = steal_months(watched, register.live(today), plan)
    if as_json:
        whole = {"map": found, "attention": found.attention, "steal": months}
        click.echo(msgspec.json.encode(whole).decode())
        return
    click.echo(map_text(found))
    click.echo(steal_text(months))


@click.command("tighten")
@click.argument("rows", type=rows_file())
@click.option(
    "--register",
    "register_file",
    type=toml_file(),
    default="egress.toml",
    show_default=True,
    help="The register of flows.",
)
@click.option(
    "--plan",
    "plan_file",
    type=toml_file(),
    default="egress-plan.toml",
    show_default=True,
    help="The plan of budgets.",
)
@click.option(
    "--risk",
    type=Finite(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Of a false stop in a month, for each window.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def tighten_(rows: Path, register_file: Path, plan_file: Path, risk: float, as_json: bool) -> None:
    """Propose the next smaller budget of each flow, with the risk of a false stop.

    ROWS is the watch's timeline. A smaller budget is a pure tightening: `apply` takes it without a
    grant. Also draws the time to steal the weights month by month, and what it would be.

    \b
    Examples:
      safehold egress tighten /var/lib/safehold/egress/timeline.jsonl
      safehold egress tighten timeline.jsonl --risk 0.001 --json
    """
    from safehold.secure.egress.bounds.tighten import tighten, tightened
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.units import human_bytes
    from safehold.secure.egress.watch.flow_map import steal_month, steal_months, steal_text
    from safehold.secure.egress.watch.timeline_files import HOUR_S, timeline_rows
    from safehold.secure.egress.watch.timeline_rows import rolled_up

    register, plan = load_register(register_file), load_plan(plan_file)
    live = register.live(dt.datetime.now(dt.UTC).date())
    held = {flow.id: (array("d"), array("q")) for flow in live}
    for row in timeline_rows(rows):  # numbers alone: of many flows, a month of rows is much
        for name in held.keys() & row.passed.keys():
            held[name][0].append(row.time)
            held[name][1].append(row.passed[name])
    watched = list(rolled_up(timeline_rows(rows), HOUR_S))
    proposals = {
        flow.id: tighten(flow, *held[flow.id], risk=risk)
        for flow in live
        if len(held[flow.id][0]) > 1
    }
    after = [tightened(f, proposals[f.id]) if f.id in proposals else f for f in live]
    months = (*steal_months(watched, live, plan), steal_month("proposed", after, plan))
    if as_json:
        whole = {"proposals": proposals, "steal": months}
        click.echo(msgspec.json.encode(whole).decode())
        return
    for flow_id, found in proposals.items():
        click.echo(f"[{flow_id}]")
        for one in found:
            seen_most = f"most {human_bytes(one.most)} in {one.windows} windows"
            click.echo(
                f"  {one.window.value:<6}{human_bytes(one.now):>10} -> "
                f"{human_bytes(one.proposed):>10}   {seen_most}; risk {one.risk:.2%} a month; "
                f"at most {one.bound:.1%} of windows exceed the most (95 %)"
            )
        sizes = ", ".join(f"{one.window.value} = {one.proposed}" for one in found)
        click.echo(f"  budget = {{ {sizes} }}")
    click.echo(steal_text(months))


@click.command("sender-key")
@click.argument("path", type=out_file())
def sender_key(path: Path) -> None:
    """Make the key with which a sender signs its rows of explained bytes.

    \b
    Examples:
      safehold egress sender-key gateway.pem
    """
    from safehold.secure.egress.explain.senders import new_key

    click.echo(f"wrote {path.name} and {new_key(path).name}")


TOOLS: tuple[click.Command, ...] = (
    init,
    learn,
    simulate,
    drill,
    timeline,
    baseline,
    overhead,
    map_,
    tighten_,
    sender_key,
)
