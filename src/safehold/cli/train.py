"""`safehold train`: train, calibrate, measure and sign a bundle."""

import sys
from pathlib import Path
from typing import Self

import click
import msgspec
import rich.progress
from rich.console import Console
from rich.table import Table

from safehold.constitution import admit_generator, load
from safehold.errors import DependencyError
from safehold.guard.bundle.interface import Operating
from safehold.guard.bundle.signing import load_or_make_key
from safehold.improve.synthesis import dataset
from safehold.improve.training.interface import Progress
from safehold.stats import Rate

try:
    from safehold.improve.training.train import Provenance, TrainingSettings, train
except ModuleNotFoundError as error:
    raise DependencyError("training needs PyTorch and: pip install 'safehold[train]'") from error


class _Bars(Progress):
    """Progress bars on standard error."""

    def __init__(self, console: Console) -> None:
        """Take the console; a pipe gets no bars."""
        self._bars = rich.progress.Progress(console=console, disable=not console.is_terminal)
        self._task = rich.progress.TaskID(0)

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._bars.stop()

    def start(self, what: str, total: int) -> None:
        """Begin a bar."""
        self._task = self._bars.add_task(what, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._task, steps)


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
    type=click.Path(path_type=Path),
    help="The bundle folder to make; it must not exist.",
)
@click.option(
    "--constitution", "source", help="Name or file; by default the one the dataset names."
)
@click.option(
    "--signing-key",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("~/.config/safehold/bundle-key.pem"),
    show_default=True,
    help="Ed25519 private key in PEM; made, with its .pub beside it, where it is missing.",
)
@click.option("--unsigned", is_flag=True, help="Do not sign (a gateway then refuses the bundle).")
@click.option("--seed", type=int, help="Equal seeds and data give equal scores.")
@click.option("--alpha", type=float, help="False-positive rate that each surface is held to.")
@click.option("--stage1-only", is_flag=True, help="No transformer: smaller, faster, weaker.")
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
    as_json: bool,
) -> None:
    """Train and calibrate a bundle from a dataset.

    \b
    Examples:
      safehold synth --out data/ && safehold train --data data/ --out bundles/mine
      safehold train --data data/ --out bundles/small --stage1-only
      safehold serve --upstream local --bundle bundles/mine
    """
    manifest = dataset.manifest_of(data)
    constitution = load(source or manifest.plan.domain)
    admit_generator(constitution, operator_owned="openai" in manifest.plan.generators)
    settings = TrainingSettings(stage2=not stage1_only)
    if seed is not None:
        settings = msgspec.structs.replace(settings, seed=seed)
    if alpha is not None:
        settings = msgspec.structs.replace(settings, alpha=(alpha, alpha))
    provenance = Provenance(
        name=out.name,
        constitution=constitution.name,
        constitution_digest=constitution.digest,
        data_digest=manifest.sha256,
        generators=manifest.plan.generators,
        clauses=tuple(clause.id for clause in constitution.restricted),
        command=f"safehold train --seed {settings.seed}{' --stage1-only' if stage1_only else ''}",
    )
    key = None if unsigned else load_or_make_key(signing_key.expanduser())
    console = Console(file=sys.stderr)
    with _Bars(console) as bars:
        trained = train(list(dataset.read(data)), provenance, settings, out, key, bars)
    if as_json:
        click.echo(msgspec.json.encode(trained).decode())
        return
    _show(out, trained.digest, trained.calibration)


def _show(out: Path, digest: str, calibration: dict[str, Operating]) -> None:
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
