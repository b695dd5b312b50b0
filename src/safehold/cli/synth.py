"""`safehold synth`: make a labelled dataset from a constitution."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from safehold.cli._generator_options import (
    generator_key_option,
    generator_model_option,
    seed_option,
    seeds_option,
    temperature_option,
    timeout_option,
)
from safehold.cli._places import out_folder
from safehold.cli._values import (
    Address,
    Finite,
    LanguageCode,
    WholeNumber,
)
from safehold.errors import UsageError

_SIZES = ("small", "default", "large")


@click.command()
@click.option(
    "--constitution",
    "source",
    default="homebrewing",
    show_default=True,
    help="A stock constitution's name, or a file.",
)
@click.option(
    "--out",
    required=True,
    type=out_folder(),
    help="The folder to write the dataset to; the generator's answers are kept there too.",
)
@click.option(
    "--size",
    default="default",
    show_default=True,
    type=click.Choice(_SIZES),
    help="How many examples to aim at: 1,800, 27,500 or 32,000; never fewer than were written.",
)
@seed_option
@seeds_option
@click.option(
    "--generator",
    "names",
    multiple=True,
    type=Address("written", "embedded"),
    metavar="NAME|URL",
    help="What makes the base examples: `written` (the package's books of a stock constitution), "
    "`embedded` (the small model inside), or the base URL of any OpenAI-compatible model. May be "
    "given several times.",
)
@generator_model_option
@generator_key_option
@temperature_option
@click.option(
    "--rounds",
    default=2,
    show_default=True,
    type=WholeNumber(1),
    help="Batches that a model is asked for, for each clause and stage.",
)
@click.option(
    "--batch",
    default=6,
    show_default=True,
    type=click.IntRange(min=1, max=50),
    help="Messages in a batch; each gets an answer of its own.",
)
@click.option(
    "--language",
    "languages",
    multiple=True,
    type=LanguageCode(),
    help="Language to ask for; may be repeated (default: those of the lexicon).",
)
@click.option(
    "--concurrency",
    default=4,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Calls at once.",
)
@click.option(
    "--max-tokens", default=600, show_default=True, type=WholeNumber(16), help="Per answer."
)
@timeout_option
@click.option(
    "--fill",
    is_flag=False,
    flag_value=2,
    default=0,
    type=click.IntRange(min=0, max=20),
    help="Ask again for thin cells, so many times (--fill alone: twice).",
)
@click.option(
    "--runner",
    type=click.Choice(["pool", "ray"]),
    help="Spread calls and scoring over worker processes here, or over a Ray cluster.",
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=WholeNumber(1),
    help="With --runner: how many workers; each makes --concurrency calls at once.",
)
@click.option(
    "--queue",
    metavar="PATH|URL",
    help="With --runner: database of the work, which every worker reaches (default: in --out).",
)
@click.option("--ray-address", help="With --runner ray: the cluster (default: one on this host).")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["guard", "refusal"]),
    default="guard",
    show_default=True,
    help="`refusal` also writes chat rows and preference pairs for your own fine-tuning.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be asked for, and its cost.")
@click.option(
    "--price",
    "prices",
    nargs=2,
    type=Finite(min=0.0),
    default=(0.0, 0.0),
    metavar="IN OUT",
    help="With --dry-run: cost of a million tokens, of prompts and of answers.",
)
@click.option("--force", is_flag=True, help="Replace a dataset that was made with other options.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def synth(
    source: str,
    out: Path,
    size: str,
    seed: int,
    folder: Path | None,
    names: tuple[str, ...],
    generator_model: str,
    generator_key: str,
    temperature: float,
    rounds: int,
    batch: int,
    languages: tuple[str, ...],
    concurrency: int,
    max_tokens: int,
    timeout_s: float,
    fill: int,
    runner: str | None,
    processes: int,
    queue: str | None,
    ray_address: str | None,
    purpose: str,
    dry_run: bool,
    prices: tuple[float, float],
    force: bool,
    as_json: bool,
) -> None:
    """Make a labelled dataset of exchanges from a constitution.

    An interrupted run goes on where it stopped when it is started again: no call to a model is
    made twice. A table shows what each clause and stage got; `--fill` asks again where it is thin.

    \b
    Examples:
      safehold synth --out data/
      safehold synth --constitution homebrewing --size small --seed 7 --out small/
      safehold synth --constitution mine.yaml --generator http://127.0.0.1:8000/v1 --out data/ \\
          --dry-run --price 0.5 1.5
      safehold synth --constitution mine.yaml --generator http://127.0.0.1:8000/v1 --out data/
      safehold synth --constitution mine.yaml --generator http://127.0.0.1:8000/v1 --fill \\
          --out data/
      safehold synth --constitution mine.yaml --generator http://127.0.0.1:8000/v1 --out data/ \\
          --runner ray --processes 64 --queue postgresql://safehold@db/work
      safehold synth --constitution mine.yaml --seeds my-books/ --out data/
      safehold synth --out data/ --for refusal
      safehold synth --out data/ --generator written --generator embedded --rounds 1
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars

    # The packages of the extra are wanted only now: `--help` works without them.
    from safehold.cli._synth import (
        SynthRequest,
        make_dataset,
        plan_calls,
        show_coverage,
        show_dataset,
        show_plan,
        write_refusal_data,
    )

    request = SynthRequest(
        source=source,
        out=out,
        size=size,
        seed=seed,
        seeds=folder,
        generators=tuple(dict.fromkeys(names)),
        model=generator_model,
        key=generator_key,
        temperature=temperature,
        rounds=rounds,
        batch=batch,
        languages=languages,
        concurrency=concurrency,
        max_tokens=max_tokens,
        timeout_s=timeout_s,
        fill=fill,
        force=force,
        runner=runner or "",
        processes=processes,
        queue=queue or "",
        ray_address=ray_address,
    )
    if dry_run:
        plan = plan_calls(request, prices)
        if plan is None:
            raise UsageError("--dry-run is about a model's calls: name one with --generator")
        if as_json:
            click.echo(msgspec.json.encode(plan).decode())
        else:
            show_plan(plan)
        return
    with ExitStack() as running, Bars(Console(file=sys.stderr)) as bars:
        made = make_dataset(request, running, bars)
    if as_json:
        click.echo(msgspec.json.encode(made.manifest).decode())
    else:
        show_dataset(out, made.manifest)
        for coverage in made.coverage:
            show_coverage(coverage)
    if purpose == "refusal":
        counts = write_refusal_data(request)
        told = ", ".join(f"{name} {count} rows" for name, count in counts.items())
        click.echo(f"for fine-tuning: {told}", err=as_json)
    for line in made.warnings:
        click.echo(f"safehold: warning: {line}", err=True)
