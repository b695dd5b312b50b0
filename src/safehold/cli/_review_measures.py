"""The commands of `safehold review` that measure: samples, what is missed, gold, agreement."""

import asyncio
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._values import SEED, WHO, Finite, WholeNumber
from safehold.detect.redteam.interface import MODEL
from safehold.errors import DataError, UsageError

if TYPE_CHECKING:
    from safehold.cli._review_places import ReviewPlaces


@click.command("draw")
@click.argument("name")
@click.option("--monitor", required=True, help="The monitor's database.")
@click.option("--scanner", required=True, help="The slow scorer, as `monitor status` names it.")
@click.option("--edge", "edges", multiple=True, required=True, type=Finite(), help="Bands' edges.")
@click.option(
    "--floor", required=True, type=Finite(), help="The edge where the tight figure begins."
)
@click.option(
    "--per-stratum",
    default=150,
    show_default=True,
    type=WholeNumber(1),
    help="Exchanges to draw from each stratum.",
)
@click.option("--seed", required=True, type=SEED, help="Equal seeds draw equally.")
@click.option("--by", type=WHO, required=True, help="Who opens the case.")
@click.pass_obj
def draw_command(
    places: "ReviewPlaces",
    name: str,
    monitor: str,
    scanner: str,
    edges: tuple[float, ...],
    floor: float,
    per_stratum: int,
    seed: int,
    by: str,
) -> None:
    """Draw a sample by lot over bands and caught or not, keep it, and open its case.

    \b
    Example:
      safehold review draw week-47 --monitor safehold-monitor.db --scanner session \\
          --edge -4 --edge -1 --edge 2 --floor -1 --seed 47 --by ann
    """
    from safehold.detect.monitoring.account_book import stopped
    from safehold.detect.review.sampling import SampleBook, SampleDesign, SampledExchange
    from safehold.guard.ledger.joined import joined, watermark
    from safehold.guard.ledger.reader import LedgerReader

    values = _values(monitor, scanner)
    with LedgerReader.open(places.ledger).snapshot() as rows:
        population = [
            SampledExchange(one.decision_id, values[one.decision_id], stopped(one))
            for one in joined(rows, after=0, through=watermark(rows))
            if one.decision_id in values
        ]
    design = SampleDesign(edges=edges, floor=floor, per_stratum=per_stratum, seed=seed)
    case = SampleBook(places.review).keep(
        name, population, design, desk=places.desk(make=True), by=by
    )
    click.echo(case)


@click.command("estimate")
@click.argument("name")
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds give equal bounds."
)
@click.pass_obj
def estimate(places: "ReviewPlaces", name: str, seed: int) -> None:
    """Estimate what is missed from a drawn sample, with the reviewers' own errors.

    \b
    Example:
      safehold review estimate week-47
    """
    from safehold.detect.review.gold import GoldBook
    from safehold.detect.review.sampling import SampleBook

    reviewers = GoldBook(places.review, make=False).reviewers()
    done = SampleBook(places.review, make=False).estimate(name, seed=seed, reviewers=reviewers)
    click.echo(msgspec.json.format(msgspec.json.encode(done)))


@click.command("plant")
@click.option("--upstream-gateway", required=True, help="Base URL of your gateway (.../v1).")
@click.option("--model", default=MODEL, show_default=True, help="Model to ask for there.")
@click.option(
    "--attempts",
    default=50,
    show_default=True,
    type=WholeNumber(1),
    help="Known positives to send.",
)
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds draw equal attacks."
)
@click.option("--domain", default="homebrewing", show_default=True, help="Which question set.")
@click.option("--benign", is_flag=True, help="Send harmless neighbours instead of attacks.")
@click.pass_obj
def plant(
    places: "ReviewPlaces",
    upstream_gateway: str,
    model: str,
    attempts: int,
    seed: int,
    domain: str,
    benign: bool,
) -> None:
    """Send known positives through the gateway, and keep which decisions they became.

    `draw` mixes some of both kinds into its samples as gold. The key comes from
    SAFEHOLD_PLANT_KEY.

    \b
    Examples:
      safehold review plant --upstream-gateway http://127.0.0.1:8080/v1 --attempts 100
      safehold review plant --upstream-gateway http://127.0.0.1:8080/v1 --benign
    """
    from safehold.detect.bounty.door import HttpDoor
    from safehold.detect.redteam.interface import AttackedPart
    from safehold.detect.redteam.plan import AttackPlan, draw
    from safehold.detect.redteam.questions import questions, wrappers
    from safehold.detect.review.gold import GoldBook

    plan_ = AttackPlan(
        domain=domain,
        seed=seed,
        attempts=attempts,
        depth=2,
        surface=AttackedPart.BOTH,
        benign=benign,
    )
    dresses = wrappers()
    drawn = [
        one for one in draw(plan_, questions(domain), dresses) if (one.topic is None) == benign
    ]
    attacks = drawn[:attempts]
    key = os.environ.get("SAFEHOLD_PLANT_KEY", "")
    door = HttpDoor(upstream_gateway, model=model, api_key=key, use_case="planted")
    sent = asyncio.run(GoldBook(places.review).plant(attacks, dresses, door, now=time.time()))
    click.echo(sent)


@click.command("planted")
@click.option("--monitor", help="The monitor's database.")
@click.option(
    "--scanner",
    default="session",
    show_default=True,
    help="Whose values in the monitor's database count.",
)
@click.option("--least", type=Finite(), help="The scanner's value from which it flags.")
@click.pass_obj
def planted(places: "ReviewPlaces", monitor: str | None, scanner: str, least: float | None) -> None:
    """Say what became of the planted exchanges: stopped by the guard, noticed by the pipeline.

    \b
    Example:
      safehold review planted --monitor safehold-monitor.db --least 0
    """
    from safehold.detect.review.gold import GoldBook

    if (monitor is None) is not (least is None):
        raise UsageError("give --monitor and --least together")
    flagged = []
    if monitor is not None and least is not None:
        flagged = [name for name, value in _values(monitor, scanner).items() if value >= least]
    recall = GoldBook(places.review, make=False).recall(flagged)
    click.echo(msgspec.json.format(msgspec.json.encode(recall.summary())))


@click.command("gold")
@click.pass_obj
def gold(places: "ReviewPlaces") -> None:
    """Say how each reviewer did on items whose answer is known.

    \b
    Example:
      safehold review gold
    """
    from safehold.detect.review.gold import GoldBook

    scores = [one.summary() for one in GoldBook(places.review, make=False).scores()]
    click.echo(msgspec.json.format(msgspec.json.encode(scores)))


@click.command("agreement")
@click.pass_obj
def agreement(places: "ReviewPlaces") -> None:
    """Say how far reviewers agree beyond chance, over decisions that two or more judged.

    \b
    Example:
      safehold review agreement
    """
    from safehold.detect.review.agreement import krippendorff_alpha
    from safehold.detect.review.reading import ReviewReading

    groups: dict[str, list[str]] = {}
    for one in ReviewReading(places.review, time.time, make=False).verdicts():
        groups.setdefault(one.decision_id, []).append(one.verdict)
    doubles = [group for group in groups.values() if len(group) > 1]
    told = {"alpha": krippendorff_alpha(doubles), "n": len(doubles)}
    click.echo(msgspec.json.encode(told))


def _values(monitor: str, scanner: str) -> dict[str, float]:
    """Return the newest value of each decision; what could not be scored is below every edge."""
    from sqlalchemy import select

    from safehold.detect.monitoring.tables import RESULTS, SCANNERS, MonitorStore

    query = (
        select(RESULTS.c.decision_id, RESULTS.c.value)
        .join_from(RESULTS, SCANNERS, RESULTS.c.scanner == SCANNERS.c.scanner)
        .where((SCANNERS.c.name == scanner) | (SCANNERS.c.scanner == scanner))
        .order_by(RESULTS.c.seq)
    )
    with MonitorStore.open(monitor, make=False).begin() as connection:
        found = {
            row.decision_id: -math.inf if row.value is None else row.value
            for row in connection.execute(query)
        }
    if not found:
        raise UsageError(f"no results of a scanner {scanner}: safehold monitor status names them")
    return found


@click.command("missed")
@click.argument("sample", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds give equal bounds."
)
def missed_command(sample: Path, seed: int) -> None:
    """Estimate what is missed from a file with strata and, if measured, the reviewers' own errors.

    \b
    Example:
      safehold review missed sample.json
    """
    from safehold.detect.monitoring.estimate import ReadSample, missed

    try:
        read = msgspec.json.decode(sample.read_bytes(), type=ReadSample)
    except msgspec.DecodeError as error:
        raise DataError(f"{sample}: expected strata as in docs/detection.md: {error}") from error
    done = missed(read.strata, seed=seed, reviewers=read.reviewers)
    click.echo(msgspec.json.format(msgspec.json.encode(done)))


@click.command("plan")
@click.option("--prevalence", required=True, type=Finite(0, 1), help="Expected share of positives.")
@click.option("--recall", required=True, type=Finite(0, 1), help="The recall to show.")
def plan_command(prevalence: float, recall: float) -> None:
    """Print how many exchanges below the floor to read.

    \b
    Example:
      safehold review plan --prevalence 0.0002 --recall 0.5
    """
    from safehold.detect.monitoring.estimate import plan

    click.echo(plan(prevalence=prevalence, recall=recall))


MEASURING: tuple[click.Command, ...] = (
    draw_command,
    estimate,
    plant,
    planted,
    gold,
    agreement,
    missed_command,
    plan_command,
)
