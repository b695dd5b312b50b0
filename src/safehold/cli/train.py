"""`safehold train`: train, calibrate, measure and sign a bundle."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from safehold.cli._places import key_file, out_folder
from safehold.cli._values import SEED, Finite
from safehold.errors import DependencyError, UsageError

if TYPE_CHECKING:
    from safehold.guard.bundle.interface import Operating
    from safehold.improve.training.float_weights import Weights


@click.command("train")
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A dataset that `safehold synth` made.",
)
@click.option(
    "--out",
    required=True,
    type=out_folder(),
    help="The bundle folder to make; it must not exist.",
)
@click.option(
    "--constitution", "source", help="Name or file; by default the one the dataset names."
)
@click.option(
    "--signing-key",
    type=key_file(),
    default=Path("~/.config/safehold/bundle-key.pem"),
    show_default=True,
    help="Ed25519 private key in PEM; made, with its .pub beside it, where it is missing.",
)
@click.option("--unsigned", is_flag=True, help="Do not sign (a gateway then refuses the bundle).")
@click.option("--seed", type=SEED, help="Equal seeds and data give equal scores.")
@click.option(
    "--alpha",
    type=Finite(0, 1, min_open=True, max_open=True),
    help="False-positive rate that each surface is held to.",
)
@click.option("--stage1-only", is_flag=True, help="No transformer: smaller, faster, weaker.")
@click.option(
    "--without",
    type=click.Choice(["hard-negatives"]),
    help="Leave a part of the training split out, to see what it is worth; not for serving.",
)
@click.option(
    "--probe",
    "model",
    type=click.Path(exists=True, path_type=Path),
    help="Add a probe that reads this model: a folder of safetensors, or a GGUF file.",
)
@click.option(
    "--bundle", default="homebrewing", show_default=True, help="With --probe: the bundle to add to."
)
@click.option("--bundle-key", "keys", multiple=True, help="With --probe: key that signed it.")
@click.option("--layers", help="With --probe: hidden states to read, as 8,16,24 (default: all).")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="With --probe: the number format that the model computes in, here and when it serves.",
)
@click.option(
    "--start",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A bundle trained here before: stage 2 goes on from its float weights, in a short pass.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def train_command(
    data: Path,
    out: Path,
    source: str | None,
    signing_key: Path,
    unsigned: bool,
    seed: int | None,
    alpha: float | None,
    stage1_only: bool,
    without: str | None,
    model: Path | None,
    bundle: str,
    keys: tuple[str, ...],
    layers: str | None,
    dtype: Literal["bfloat16", "float32"],
    start: Path | None,
    as_json: bool,
) -> None:
    """Train and calibrate a bundle from a dataset.

    What is computed is kept beside the bundle until the bundle is written: killed at any point, the
    same command goes on where it was, and the bundle has the same bytes.

    \b
    Examples:
      safehold synth --out data/ && safehold train --data data/ --out bundles/mine
      safehold train --data data/ --out bundles/small --stage1-only
      safehold train --data data/ --out bundles/plain --without hard-negatives
      safehold train --data more/ --out bundles/next --start bundles/mine
      safehold serve --upstream local --bundle bundles/mine
      safehold train --data data/ --probe models/mine --bundle bundles/mine --out bundles/probed
      safehold serve --upstream hf:models/mine --bundle bundles/probed
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars
    from safehold.guard.bundle.signing import load_or_make_key
    from safehold.guard.bundle.write import refuse_existing

    # The packages of the extra are wanted only now: `--help` works without them.
    try:
        from safehold.cli._probe import ProbeRequest, run_probe, show_probe
        from safehold.cli._train import (
            constitution_of,
            provenance_of,
            refuse_empty_splits,
            settings_of,
            started_from,
            train_kept,
        )
        from safehold.improve.synthesis import dataset
        from safehold.improve.training.ablation_parts import without_hard_negatives
        from safehold.improve.training.checkpoints import discard
    except ModuleNotFoundError as error:
        raise DependencyError("training needs: pip install 'safehold[train]'") from error
    manifest = dataset.manifest_of(data)
    constitution = constitution_of(data, manifest, source)
    refuse_empty_splits(manifest)
    settings = settings_of(stage1_only=stage1_only, seed=seed, alpha=alpha)
    options = (["--stage1-only"] if stage1_only else []) + (
        [f"--without {without}"] if without else []
    )
    begun: tuple[str, Weights] | None = None
    if start is not None:
        begun = started_from(start)
        options.append(f"--start {begun[0]}")
    provenance = provenance_of(out.name, constitution, manifest, settings, options)
    if out.exists():
        discard(out)
    refuse_existing(out)
    key = None if unsigned else load_or_make_key(signing_key.expanduser())
    console = Console(file=sys.stderr)
    if model is not None:
        if stage1_only or without:
            raise UsageError("--probe adds to a whole bundle: leave out --stage1-only, --without")
        request = ProbeRequest(data, bundle, keys, model, layers, dtype, seed, alpha, out)
        with Bars(console) as bars:
            probe = run_probe(request, key, bars)
        show_probe(out, probe, as_json=as_json)
        return
    examples = list(dataset.read(data))
    if without:
        examples = without_hard_negatives(examples, constitution)
    with Bars(console) as bars:
        trained = train_kept(examples, provenance, settings, out, key, bars, begun and begun[1])
    if as_json:
        click.echo(msgspec.json.encode(trained).decode())
        return
    _show(out, trained.digest, trained.calibration)


def _show(out: Path, digest: str, calibration: "dict[str, Operating]") -> None:
    from rich.console import Console
    from rich.table import Table

    from safehold.stats import Rate

    table = Table(title=f"{out}, digest {digest[:16]}")
    for column in ("surface", "restricted blocked", "permitted blocked", "permitted escalated"):
        table.add_column(column)
    for surface, figures in calibration.items():
        table.add_row(
            surface,
            Rate(*figures.test_true_positives).at_least(),
            Rate(*figures.test_false_positives).at_most(),
            Rate(*figures.escalated).at_most(),
        )
    Console().print(table)
