"""`safehold eval`: measure a bundle on labelled data that it was not made from."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._places import out_file, out_folder
from safehold.cli._values import (
    Address,
    HeaderKey,
    WholeNumber,
)
from safehold.errors import UsageError
from safehold.improve.evaluation.parts import DataPart

if TYPE_CHECKING:
    from safehold.improve.evaluation.interface import EvaluationReport, GroupFigures

_LIMIT = WholeNumber(1)


@click.command("eval")
@click.argument("bundle")
@click.option(
    "--data",
    envvar="SAFEHOLD_EVAL_DATA",
    required=True,
    show_envvar=True,
    type=click.Path(exists=True, path_type=Path),
    help="A .jsonl file, or a folder of them.",
)
@click.option(
    "--out",
    type=out_folder(),
    default=Path("evaluation"),
    show_default=True,
    help="Folder for the report; scores found in it are not computed again.",
)
@click.option("--bundle-key", "keys", multiple=True, help="Public key that signs bundles.")
@click.option("--bundle-sha256", help="Digest of the one manifest to trust.")
@click.option("--unsafe-unsigned-bundle", "unsigned", is_flag=True, help="Trust any manifest.")
@click.option("--limit", type=_LIMIT, help="At most so many items of each file, evenly spaced.")
@click.option(
    "--part",
    type=click.Choice([part.value for part in DataPart]),
    help="Only the repositories that settings may be chosen on, or only those they may not.",
)
@click.option(
    "--record",
    type=out_file(),
    help="Add the figures to a record of looks; a second look at blind data is marked seen.",
)
@click.option("--stage1-only", is_flag=True, help="Without stage 2: the escalation decides.")
@click.option("--ablations", is_flag=True, help="Also measure the guard without each of its parts.")
@click.option(
    "--beside",
    multiple=True,
    metavar="NAME=BUNDLE",
    help="Another bundle in the ablation table, e.g. one trained without hard negatives.",
)
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="The model that the bundle's probe reads: a folder of safetensors, or a GGUF file.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="With --model: the number format it computes in.",
)
@click.option(
    "--judge", type=Address(), help="Also ask a model, by its OpenAI-compatible base URL."
)
@click.option("--judge-model", default="", help="The judge's name at its server.")
@click.option(
    "--judge-key",
    type=HeaderKey(),
    envvar="SAFEHOLD_JUDGE_KEY",
    default="",
    show_envvar=True,
    help="Its API key.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def evaluate_command(
    bundle: str,
    data: Path,
    out: Path,
    keys: tuple[str, ...],
    bundle_sha256: str | None,
    unsigned: bool,
    limit: int | None,
    part: str | None,
    record: Path | None,
    stage1_only: bool,
    ablations: bool,
    beside: tuple[str, ...],
    model: Path | None,
    dtype: str,
    judge: str | None,
    judge_model: str,
    judge_key: str,
    as_json: bool,
) -> None:
    """Score labelled texts as prompts and as streamed replies, and write a report.

    BUNDLE is a bundle's folder, or the name of a stock bundle. Each line of the data is a JSON
    object with `label` (restricted, benign, boundary, jailbreak_template) and `text` or `messages`;
    `source`, `category` and `dataset` name its slices. Without a key, bundles signed by your own
    default key are trusted.

    \b
    Examples:
      safehold eval homebrewing --data labelled/
      safehold eval bundles/mine --data labelled/ --out report/ --ablations
      safehold eval bundles/mine --data labelled/ --limit 50 --json | jq .headline
      safehold eval a --data d/ --ablations --beside "no hard negatives=bundles/b"
      safehold eval probed/ --data d/ --model models/mine --ablations --beside text=bundles/mine
      safehold eval bundles/mine --data labelled/ --part tune
      safehold eval homebrewing --data labelled/ --part blind --record docs/figures.json
      safehold eval homebrewing --data labelled/ --limit 100 --judge http://127.0.0.1:8000/v1
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars
    from safehold.constitution import load
    from safehold.guard.bundle.find import open_bundle
    from safehold.guard.bundle.load import Bundle
    from safehold.guard.scorers.judge import JudgeSettings, PromptedJudge
    from safehold.guard.served.model import HfModel
    from safehold.improve.evaluation import page, plots
    from safehold.improve.evaluation.judging import SecondOpinion
    from safehold.improve.evaluation.looks import read_looks, record_look
    from safehold.improve.evaluation.run import EvaluationSettings, evaluate, without_stage2

    if beside and not ablations:
        raise UsageError("--beside adds to the ablation table: give --ablations too")
    if record is not None:
        read_looks(record)  # what is no record is said before anything is scored
    plots.require()
    served = None if model is None else HfModel(model, dtype=dtype)
    loaded = open_bundle(bundle, keys, bundle_sha256, unsigned=unsigned, served=served)
    others: dict[str, Bundle] = {}
    for given in beside:
        name, separator, folder = given.partition("=")
        if not (name and separator and folder):
            raise UsageError("--beside: expected NAME=BUNDLE")
        others[name] = open_bundle(folder, keys, None, unsigned=unsigned, served=served)
    settings = EvaluationSettings(
        limit=limit,
        stage1_only=stage1_only,
        ablations=ablations,
        part=None if part is None else DataPart(part),
    )
    second = None
    if judge is not None:
        constitution = load(loaded.manifest.constitution)
        asked = JudgeSettings(url=judge, model=judge_model, key=judge_key)
        second = SecondOpinion(PromptedJudge(constitution, asked), f"{judge_model} at {judge}")
    console = Console(file=sys.stderr)
    with Bars(console) as bars:
        found = evaluate(loaded, data, out, settings, bars, others, second, served)
    shown = without_stage2(loaded) if stage1_only else loaded
    pictures = plots.draw(found.judged, found.report.slices, shown.cascade, out)
    (out / "report.html").write_text(page.render(found.report, pictures), encoding="utf-8")
    if record is not None:
        look = record_look(record, found.report)
        console.print(f"Look {look.look} at this data: {look.status}", highlight=False)
    if as_json:
        click.echo(msgspec.json.encode(found.report).decode())
        return
    _show(found.report)
    for name in found.report.skipped:
        console.print(f"skipped {name}: network data, not text", highlight=False)
    console.print(f"Report: {out / 'report.html'}", highlight=False, soft_wrap=True)


def _flagged(row: "GroupFigures") -> list[str]:
    """Return the cells of both surfaces, with what could not be scored."""
    from safehold.improve.evaluation import page

    return [
        page.rate_text(figures.flagged if figures else None, row.label)
        + (f"; {figures.unscorable} unscorable" if figures and figures.unscorable else "")
        for figures in (row.prompt, row.reply)
    ]


def _show(report: "EvaluationReport") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{report.bundle}, {report.items:,} items")
    columns = ["group", "flagged as prompt", "flagged as reply", "escalated as reply"]
    judged = {row.name: row for row in report.judge.headline} if report.judge else {}
    if judged:
        columns += ["judge: as prompt", "judge: as reply"]
    for column in columns:
        table.add_column(column)
    for row in report.headline:
        cells = [
            row.name,
            *_flagged(row),
            row.reply.escalated.rate.at_most() if row.reply else "-",
        ]
        if judged:
            cells += _flagged(judged[row.name])
        table.add_row(*cells)
    console.print(table)
    for line in report.separations:
        if line.others.startswith("all "):
            console.print(
                f"AUC, restricted against {line.others}, as {line.surface}: {line.auc:.4f} "
                f"(n={line.n_restricted}/{line.n_others}, 95% lower bound {line.auc_lower:.4f})",
                highlight=False,
            )
