"""Options that the commands share which ask a model for text: one declaration for one meaning."""

from pathlib import Path

import click

from safehold.cli._values import SEED, Finite, HeaderKey

seed_option = click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds give equal files."
)
seeds_option = click.option(
    "--seeds",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of your seed books (default: `seeds` beside the constitution's file).",
)
generator_model_option = click.option(
    "--generator-model", default="", help="The model's name at that URL."
)
generator_key_option = click.option(
    "--generator-key",
    default="",
    type=HeaderKey(),
    envvar="SAFEHOLD_SYNTH_KEY",
    show_envvar=True,
    help="Its API key; better given by the environment.",
)
temperature_option = click.option(
    "--temperature",
    default=1.0,
    show_default=True,
    type=Finite(0, 5),
    help="Of the model's sampling.",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    type=Finite(min=0.0, min_open=True),
    help="Seconds without any answer after which fewer calls are made at once.",
)
