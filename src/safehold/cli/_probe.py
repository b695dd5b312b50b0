"""`safehold train --probe`: a bundle that also reads the served model's activations."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from safehold.errors import UsageError
from safehold.progress import Progress

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from safehold.improve.probes.interface import TrainedProbe


class ProbeRequest(msgspec.Struct, frozen=True):
    """What was asked for on the command line."""

    data: Path
    bundle: str
    keys: tuple[str, ...]
    model: Path
    layers: str | None
    dtype: Literal["bfloat16", "float32"]
    seed: int | None
    alpha: float | None
    out: Path


def run_probe(
    asked: ProbeRequest, key: "Ed25519PrivateKey | None", progress: Progress
) -> "TrainedProbe":
    """Train the probe and write the bundle.

    Raises:
        UsageError: `--layers` is no list of numbers.
    """
    from safehold.guard.bundle.find import open_bundle
    from safehold.guard.bundle.stock import stock_bundle
    from safehold.guard.served.model import HfModel
    from safehold.improve.probes.interface import ProbeSettings
    from safehold.improve.probes.train import train_probe
    from safehold.improve.synthesis import dataset

    base = open_bundle(asked.bundle, asked.keys, None)
    folder = Path(asked.bundle)
    if not folder.is_dir():
        folder, _ = stock_bundle(asked.bundle)
    settings = ProbeSettings(dtype=asked.dtype)
    if asked.layers:
        try:
            layers = tuple(int(one) for one in asked.layers.split(","))
        except ValueError as error:
            raise UsageError("--layers: expected numbers with commas, as 8,16,24") from error
        settings = msgspec.structs.replace(settings, layers=layers)
    if asked.seed is not None:
        settings = msgspec.structs.replace(settings, seed=asked.seed)
    if asked.alpha is not None:
        settings = msgspec.structs.replace(settings, alpha=asked.alpha)
    progress.start("loading the model", 1)
    model = HfModel(asked.model, dtype=settings.dtype, threads=settings.threads)
    progress.advance()
    examples = list(dataset.read(asked.data))
    return train_probe(examples, base, folder, model, settings, asked.out, key, progress)


def show_probe(out: Path, trained: "TrainedProbe", *, as_json: bool) -> None:
    """Print the figures of the test split."""
    from rich.console import Console
    from rich.table import Table

    if as_json:
        click.echo(msgspec.json.encode(trained).decode())
        return
    console = Console()
    title = f"{out}, digest {trained.digest[:16]}, for the model {trained.model_digest[:16]}"
    table = Table(title=title, title_justify="left")
    for column in ("streamed test replies", "AUC", "detected at 1% FPR"):
        table.add_column(column)
    for row in trained.test:
        rate = row.tpr_at_1_percent
        table.add_row(
            row.scorer,
            f"{row.auc:.4f} (n={row.n_restricted}/{row.n_permitted}, 95% lower bound "
            f"{row.auc_lower:.4f})",
            "too few permitted replies" if rate is None else rate.rate.at_least(),
        )
    console.print(table)
    first, second, probe, constant = trained.weights
    lines = (
        f"restricted blocked: {trained.blocked_restricted.rate.at_least()}",
        f"permitted blocked:  {trained.blocked_permitted.rate.at_most()}",
        f"decision: {first:.3f} stage 1 + {second:.3f} stage 2 + {probe:.3f} probe {constant:+.3f}",
        f"a token: reading {trained.model_us:.0f} CPU us, probe {trained.probe_us:.1f} CPU us",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
