"""`safehold up`: from a constitution to a guard in service, in one go."""

import sys
from pathlib import Path

import click

from safehold.cli._generator_options import (
    generator_key_option,
    generator_model_option,
    seed_option,
    seeds_option,
    temperature_option,
    timeout_option,
)
from safehold.cli._places import key_file, out_folder
from safehold.cli._values import (
    Address,
    Finite,
    LanguageCode,
    WholeNumber,
)
from safehold.errors import UsageError


@click.command("up")
@click.argument("constitution")
@click.option(
    "--generator",
    "names",
    multiple=True,
    type=Address("written", "embedded"),
    metavar="NAME|URL",
    help="What makes the text: the base URL of an OpenAI-compatible model, or `embedded`.",
)
@generator_model_option
@generator_key_option
@seeds_option
@click.option(
    "--out",
    type=out_folder(),
    help="Folder for all that is made [default: guards/NAME].",
)
@click.option(
    "--size",
    default="small",
    show_default=True,
    type=click.Choice(["small", "default", "large"]),
    help="How many examples to aim at.",
)
@seed_option
@temperature_option
@click.option(
    "--rounds", default=4, show_default=True, type=WholeNumber(1), help="Batches a stage."
)
@click.option(
    "--batch", default=6, show_default=True, type=click.IntRange(1, 50), help="Messages in a batch."
)
@click.option(
    "--concurrency",
    default=4,
    show_default=True,
    type=click.IntRange(1, 256),
    help="The most calls at once; fewer where the model can't keep up.",
)
@timeout_option
@click.option(
    "--language", "languages", multiple=True, type=LanguageCode(), help="Language to ask for."
)
@click.option(
    "--benign",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Your own traffic (JSONL) to set the thresholds on; a file or a folder.",
)
@click.option(
    "--alpha",
    type=Finite(0, 1, min_open=True, max_open=True),
    help="False-positive rate that each surface is held to.",
)
@click.option("--stage1-only", is_flag=True, help="No transformer: smaller, faster, weaker.")
@click.option(
    "--signing-key",
    type=key_file(),
    default=Path("~/.config/safehold/bundle-key.pem"),
    show_default=True,
    help="Ed25519 private key in PEM; made, with its .pub beside it, where it is missing.",
)
@click.option(
    "--upstream",
    type=Address("local", prefixes=("hf:",)),
    help="Serve the guard before this model when it is ready.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="With --upstream: the port.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def up(
    constitution: str,
    names: tuple[str, ...],
    generator_model: str,
    generator_key: str,
    folder: Path | None,
    out: Path | None,
    size: str,
    seed: int,
    temperature: float,
    rounds: int,
    batch: int,
    concurrency: int,
    timeout_s: float,
    languages: tuple[str, ...],
    benign: tuple[Path, ...],
    alpha: float | None,
    stage1_only: bool,
    signing_key: Path,
    upstream: str | None,
    port: int | None,
    as_json: bool,
) -> None:
    """Check CONSTITUTION, make data, train, calibrate and measure a guard, and perhaps serve it.

    Each step is kept in the folder: killed at any point, the same command goes on where it was,
    and no call to a model is made twice. At the end stands a report.

    \b
    Examples:
      safehold up mine.yaml --generator http://127.0.0.1:8000/v1
      safehold up mine.yaml --generator http://127.0.0.1:8000/v1 --benign traffic.jsonl
      safehold up mine.yaml --seeds my-books/ --stage1-only --out guards/trial
      safehold up mine.yaml --generator http://127.0.0.1:8000/v1 --upstream http://127.0.0.1:8001/v1
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars

    if port is not None and upstream is None:
        raise UsageError("--port is about serving: name the model to guard with --upstream")
    # Training's packages are wanted only now: `--help` works without them.
    from safehold.cli._synth import SynthRequest
    from safehold.cli._up import UpRequest, run_up, show_report

    request = UpRequest(
        synth=SynthRequest(
            source=constitution,
            out=Path(),
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
            timeout_s=timeout_s,
            fill=2,
        ),
        out=out,
        benign=benign,
        alpha=alpha,
        stage1_only=stage1_only,
        signing_key=signing_key.expanduser(),
    )
    with Bars(Console(file=sys.stderr)) as bars:
        report = run_up(request, bars)
    show_report(report, as_json=as_json)
    if upstream is not None:
        from safehold.cli.serve import read_settings, serve_with, with_defaults

        changes: dict[str, object] = {
            "bundle": report.bundle,
            "bundle_keys": [str(request.signing_key.with_suffix(".pub"))],
            "upstream": {"url": upstream},
        }
        if port is not None:
            changes["port"] = port
        serve_with(with_defaults(read_settings(None, changes)), as_json=as_json)
