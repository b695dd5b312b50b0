"""`safehold redteam`: attack a guard with our own transforms and wrappers, and say the rates."""

import asyncio
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._places import out_file
from safehold.cli._values import (
    PORT,
    SEED,
    WholeNumber,
)
from safehold.detect.redteam.interface import AttackedPart
from safehold.detect.redteam.transforms.chain import MAX_DEPTH
from safehold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from safehold.detect.redteam.report import RedteamReport, Slice
    from safehold.detect.redteam.run import Attacker, Stage2
    from safehold.guard.interface import Escalation
    from safehold.guard.session.drivers import Answer
    from safehold.guard.session.session import Guard

_SHOWN = 12
_SHORT = 200
"""Attempts that are played sooner than further processes have started."""
_UNMATCHABLE = r"\z."
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_domain_option = click.option(
    "--domain", default="homebrewing", show_default=True, help="Which question set."
)


@click.group()
def redteam() -> None:
    """Attack a guard and measure what gets through.

    \b
    Examples:
      safehold redteam list transforms
      safehold redteam run --bundle homebrewing --out attacks.jsonl
      safehold redteam run --bundle bundle/ --bundle-key bundle.pub --out attacks.jsonl
      safehold redteam report attacks.jsonl
      safehold redteam universal --bundle bundle/ --bundle-key bundle.pub
      safehold redteam best-of --bundle bundle/ --bundle-key bundle.pub
      safehold redteam target --port 9100
    """


@redteam.command("list")
@click.argument("what", type=click.Choice(["transforms", "wrappers", "questions", "benign"]))
@_domain_option
@_json_option
def list_(what: str, domain: str, as_json: bool) -> None:
    """List what attacks are made of.

    \b
    Examples:
      safehold redteam list transforms
      safehold redteam list questions --json | jq length
    """
    from safehold.cli._visible import visible
    from safehold.detect.redteam.questions import questions, wrappers
    from safehold.detect.redteam.transforms import TRANSFORMS

    found = questions(domain)
    match what:
        case "transforms":
            rows = [(one.name, one.family.value, one.told) for one in TRANSFORMS]
        case "wrappers":
            rows = [(f"{n}", one.family, one.text) for n, one in enumerate(wrappers())]
        case "benign":
            rows = [("benign", one.clause, one.text) for one in found.benign]
        case _:
            rows = [
                (topic.id, f"{topic.clause}/{topic.stage}", ask)
                for topic in found.topics
                for ask in topic.questions
            ]
    if as_json:
        click.echo(msgspec.json.encode(rows).decode())
        return
    for name, family, text in rows:
        click.echo(f"{name:24} {family:36} {visible(' '.join(text.split()))[:120]}")
    click.echo(f"{len(rows)} {what}")


_bundle_options = (
    click.option("--bundle", help="The bundle to attack: a stock one by its name, or a folder."),
    click.option(
        "--bundle-key",
        "key",
        type=click.Path(path_type=Path),
        help="Public key that signed the bundle (default: your own, which `train` made).",
    ),
    click.option(
        "--bundle-sha256",
        "sha256",
        default="",
        help="Digest of the bundle's manifest, instead of a key.",
    ),
    click.option(
        "--unsafe-unsigned-bundle",
        "unsafe_unsigned",
        is_flag=True,
        help="Take the bundle without checking who made it.",
    ),
    click.option(
        "--unsafe-no-guard",
        is_flag=True,
        help="Attack the bare target: what a guard is compared with.",
    ),
)


def _of_bundle(command: Callable[..., None]) -> Callable[..., None]:
    return functools.reduce(lambda made, option: option(made), reversed(_bundle_options), command)


@redteam.command()
@_of_bundle
@click.option(
    "--out",
    required=True,
    type=out_file(makes_folders=True),
    help="The record, JSONL; an interrupted run goes on where it stopped.",
)
@click.option(
    "--attempts",
    default=3200,
    show_default=True,
    type=WholeNumber(1),
    help="Attacks to make.",
)
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds draw equal attacks."
)
@click.option(
    "--depth",
    default=MAX_DEPTH,
    show_default=True,
    type=click.IntRange(1, MAX_DEPTH),
    help="Most transforms on one request.",
)
@click.option(
    "--surface",
    default="both",
    show_default=True,
    type=click.Choice([one.value for one in AttackedPart]),
    help="Meet the whole guard, the prompt's verdict alone, or the reply's alone.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="Play side by side (default: one for each core, one for a short run).",
)
@_domain_option
@_json_option
def run(
    bundle: str | None,
    key: Path | None,
    sha256: str,
    unsafe_unsigned: bool,
    unsafe_no_guard: bool,
    out: Path,
    attempts: int,
    seed: int,
    depth: int,
    surface: str,
    processes: int | None,
    domain: str,
    as_json: bool,
) -> None:
    """Attack a guard before the always-complying target.

    \b
    Examples:
      safehold redteam run --bundle homebrewing --out attacks.jsonl
      safehold redteam run --bundle bundle/ --bundle-key bundle.pub --out attacks.jsonl
      safehold redteam run --bundle bundle/ --bundle-sha256 4f1e... --attempts 500 --out q.jsonl
      safehold redteam run --unsafe-no-guard --attempts 500 --out bare.jsonl
      safehold redteam run --bundle bundle/ --processes 8 --out attacks.jsonl
    """
    from rich.console import Console
    from rich.progress import Progress

    from safehold.detect.redteam.plan import AttackPlan, draw
    from safehold.detect.redteam.questions import questions, wrappers
    from safehold.detect.redteam.report import summarise
    from safehold.detect.redteam.run import Players, RunFile
    from safehold.detect.redteam.worker_pool import Crew

    if (bundle is None) is not unsafe_no_guard:
        raise UsageError("give either --bundle or --unsafe-no-guard")
    asks, dresses = questions(domain), wrappers()
    make = functools.partial(_attacker, bundle, key, sha256, unsafe_unsigned, domain)
    attacker, digest = make()  # what is wrong with the bundle is said before anything is played
    plan = AttackPlan(
        domain=domain,
        seed=seed,
        attempts=attempts,
        depth=depth,
        surface=AttackedPart(surface),
        bundle=digest,
    )
    with RunFile(out, plan) as record:
        planned = list(draw(plan, asks, dresses))
        left = len(record.missing(planned))
        if processes is None:
            processes = (os.cpu_count() or 1) if left > _SHORT else 1
        players: Players = attacker
        if processes > 1:
            players = Crew(functools.partial(_attacker_alone, make), processes)
        console = Console(stderr=True, quiet=as_json)
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("attempts", total=len(planned), completed=len(record.results))
            for _ in record.play(planned, players):
                bar.advance(task)
    _show(summarise(record.results), as_json=as_json)


def _opened(
    bundle: str | None, key: Path | None, sha256: str, domain: str, *, unsigned: bool, bare: bool
) -> "Attacker":
    if (bundle is None) is not bare:
        raise UsageError("give either --bundle or --unsafe-no-guard")
    return _attacker(bundle, key, sha256, unsigned, domain)[0]


@redteam.command("universal")
@_of_bundle
@click.option(
    "--dresses",
    default=400,
    show_default=True,
    type=WholeNumber(2),
    help="Wrappers and chains to begin with.",
)
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds draw equal attacks."
)
@_domain_option
@_json_option
def universal_(
    bundle: str | None,
    key: Path | None,
    sha256: str,
    unsafe_unsigned: bool,
    unsafe_no_guard: bool,
    dresses: int,
    seed: int,
    domain: str,
    as_json: bool,
) -> None:
    """Find the one wrapper and chain that delivers the most, over every question.

    \b
    Examples:
      safehold redteam universal --bundle bundle/ --bundle-key bundle.pub
      safehold redteam universal --bundle bundle/ --bundle-sha256 4f1e... --dresses 800 --json
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars
    from safehold.detect.redteam.questions import questions, wrappers
    from safehold.detect.redteam.search import universal

    attacker = _opened(bundle, key, sha256, domain, unsigned=unsafe_unsigned, bare=unsafe_no_guard)
    with Bars(Console(stderr=True, quiet=as_json)) as bars:
        found = universal(
            attacker, questions(domain), wrappers(), seed=seed, most=dresses, progress=bars
        )
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    chain = " > ".join(found.dress.chain) or "none"
    click.echo(f"best of {found.tried} dresses: wrapper {found.wrapper_family}, chain {chain}")
    click.echo(f"questions with half of the facts: {found.half_leaked.at_most()}")


@redteam.command("best-of")
@_of_bundle
@click.option(
    "--tries",
    default=50,
    show_default=True,
    type=WholeNumber(1),
    help="Tries at each question.",
)
@click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds draw equal attacks."
)
@_domain_option
@_json_option
def best_of_(
    bundle: str | None,
    key: Path | None,
    sha256: str,
    unsafe_unsigned: bool,
    unsafe_no_guard: bool,
    tries: int,
    seed: int,
    domain: str,
    as_json: bool,
) -> None:
    """Ask every question again and again, typed badly in new ways, until one gets through.

    \b
    Examples:
      safehold redteam best-of --bundle bundle/ --bundle-key bundle.pub
      safehold redteam best-of --bundle bundle/ --bundle-sha256 4f1e... --tries 500 --json
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars
    from safehold.detect.redteam.questions import questions
    from safehold.detect.redteam.search import best_of

    attacker = _opened(bundle, key, sha256, domain, unsigned=unsafe_unsigned, bare=unsafe_no_guard)
    with Bars(Console(stderr=True, quiet=as_json)) as bars:
        found = best_of(attacker, questions(domain), seed=seed, tries=tries, progress=bars)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    click.echo(f"questions lost within {tries} tries: {found.half_leaked.at_most()}")
    click.echo(f"tries used a question: {found.mean_tries:.1f}")


@redteam.command()
@click.argument("record", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Show every slice, not the worst only.")
@_json_option
def report(record: Path, everything: bool, as_json: bool) -> None:
    """Say the rates of a record again, each with its n and bound.

    \b
    Examples:
      safehold redteam report attacks.jsonl
      safehold redteam report attacks.jsonl --json | jq .outcomes
    """
    from safehold.detect.redteam.report import summarise
    from safehold.detect.redteam.run import read_record

    _, results = read_record(record)
    _show(summarise(results), as_json=as_json, shown=None if everything else _SHOWN)


@redteam.command()
@click.option(
    "--port", default=0, show_default=True, type=PORT, help="Loopback port; 0 takes a free one."
)
@_domain_option
def target(port: int, domain: str) -> None:
    """Serve the always-complying target as an OpenAI-compatible model, until interrupted.

    \b
    Examples:
      safehold redteam target --port 9100
      safehold serve --upstream http://127.0.0.1:9100/v1 --bundle bundle/
    """
    from safehold.detect.redteam.questions import domains, questions
    from safehold.detect.redteam.target import Complier
    from safehold.detect.redteam.target_server import serving

    async def serve() -> None:
        async with serving(Complier(questions(domain)), port=port) as url:
            click.echo(url)
            await asyncio.Event().wait()

    if domain not in domains():
        raise UsageError(f"no questions for {domain!r}; there are: {', '.join(domains())}")
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    except OSError as error:
        raise UsageError(f"port {port} can't be used: {error.strerror}") from error


def _attacker(
    bundle: str | None,
    key: Path | None,
    sha256: str,
    unsafe_unsigned: bool,
    domain: str,
) -> "tuple[Attacker, str]":
    """Return an attacker of a bundle, or of the bare target, and the bundle's digest."""
    from safehold.detect.redteam.questions import questions, wrappers
    from safehold.detect.redteam.run import Attacker

    guard, stage2, digest = (
        (_bare(), _no_stage2, "none")
        if bundle is None
        else _load(bundle, key, sha256, unsigned=unsafe_unsigned)
    )
    return Attacker(guard, stage2, questions(domain), wrappers()), digest


def _attacker_alone(make: "Callable[[], tuple[Attacker, str]]") -> "Attacker":
    return make()[0]


def _load(
    name: str, key: Path | None, sha256: str, *, unsigned: bool
) -> "tuple[Guard, Stage2, str]":
    from safehold.detect.redteam.run import Stage2
    from safehold.guard.bundle.find import open_bundle
    from safehold.guard.session.batching import InlineStage2
    from safehold.guard.session.decoding import ViewDecoder
    from safehold.guard.session.session import Guard

    keys = () if key is None else (str(key),)
    loaded = open_bundle(name, keys, sha256 or None, unsigned=unsigned)
    stage2: Stage2 = _no_stage2 if loaded.stage2 is None else InlineStage2(loaded.stage2)
    return Guard(loaded.cascade, ViewDecoder()), stage2, loaded.digest


def _bare() -> "Guard":
    """Return a guard whose one rule no text can match; a guard without any is refused."""
    from safehold.guard.scorers.rules import Rule, RuleSet
    from safehold.guard.session.cascade import Cascade, Thresholds
    from safehold.guard.session.decoding import ViewDecoder
    from safehold.guard.session.session import Guard

    never = Thresholds(escalate=100.0, weights=(1.0, 0.0, 0.0), block=100.0, alone=100.0)
    cascade = Cascade(
        digest=hashlib.sha256(b"none").hexdigest(),
        stage1=None,
        has_stage2=False,
        prompt=never,
        reply=never,
        rules=RuleSet([Rule(id="never", clause="none", pattern=_UNMATCHABLE)]),
    )
    return Guard(cascade, ViewDecoder())


def _no_stage2(request: "Escalation") -> "Answer":
    from safehold.guard.interface import Failed

    del request
    return Failed(reason="NoStage2")


def _show(found: "RedteamReport", *, as_json: bool, shown: int | None = _SHOWN) -> None:
    from rich.console import Console

    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    console = Console(highlight=False)
    console.print("  ".join(f"{name} {count}" for name, count in found.outcomes.items()))
    console.print(f"attack success:        {found.total.success.at_most()}", soft_wrap=True)
    console.print(f"half the rubric leaked: {found.total.half_leaked.at_most()}", soft_wrap=True)
    console.print(f"benign questions flagged, plain:   {found.benign_plain.at_most()}")
    console.print(f"benign questions flagged, wrapped: {found.benign_wrapped.at_most()}")
    console.print(f"benign, each in a transform:       {found.benign_transformed.at_most()}")
    console.print(f"benign, answer asked in a code:    {found.benign_coded.at_most()}")
    for title, slices in found.by.items():
        console.print(_table(title, slices[:shown]))
        if shown is not None and len(slices) > shown:
            console.print(f"... and {len(slices) - shown} more; --all shows them")


def _table(title: str, slices: "tuple[Slice, ...]") -> "Table":
    from rich.table import Table

    table = Table(title=f"by {title}", title_justify="left")
    table.add_column(title)
    table.add_column("attack success")
    table.add_column("half leaked")
    for one in slices:
        table.add_row(one.name, one.success.at_most(), one.half_leaked.at_most())
    return table
