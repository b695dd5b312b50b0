"""`safehold synth`: make a labelled dataset from a constitution."""

from contextlib import ExitStack
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from safehold.constitution import Constitution, admit_generator, load
from safehold.errors import DataError, DependencyError, UsageError
from safehold.guard.gateway.upstreams import embedded as local
from safehold.improve.synthesis import dataset, seeds
from safehold.improve.synthesis.chat import ChatGenerator, ChatSettings
from safehold.improve.synthesis.dataset import DatasetManifest, ExampleJournal, SynthesisPlan
from safehold.improve.synthesis.interface import Example, Generator
from safehold.improve.synthesis.phrasebook import phrasebook
from safehold.improve.synthesis.written import WrittenGenerator

try:
    from safehold.improve.synthesis.build import SIZES, build
except ModuleNotFoundError as error:
    raise DependencyError("synthesis needs: pip install 'safehold[train]'") from error


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
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write examples.jsonl and manifest.json to.",
)
@click.option(
    "--size",
    default="default",
    show_default=True,
    type=click.Choice(list(SIZES)),
    help="How many examples to aim at: " + ", ".join(f"{k} {v}" for k, v in SIZES.items()) + ".",
)
@click.option("--seed", default=1, show_default=True, help="Equal seeds give equal files.")
@click.option(
    "--generator",
    "names",
    multiple=True,
    default=("written",),
    show_default=True,
    type=click.Choice(["written", "openai", "embedded"]),
    help="What makes the base examples; may be given several times.",
)
@click.option("--base-url", default="", help="openai: where the model is served, /v1 included.")
@click.option("--model", default="", help="openai: the model's name.")
@click.option(
    "--key",
    default="",
    envvar="SAFEHOLD_SYNTH_KEY",
    show_envvar=True,
    help="openai: its API key; better given by the environment.",
)
@click.option("--temperature", default=1.0, show_default=True, help="openai, embedded.")
@click.option(
    "--rounds",
    default=2,
    show_default=True,
    type=click.IntRange(min=1),
    help="openai, embedded: batches per clause and stage.",
)
@click.option("--force", is_flag=True, help="Replace a dataset that was made with other options.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def synth(
    source: str,
    out: Path,
    size: str,
    seed: int,
    names: tuple[str, ...],
    base_url: str,
    model: str,
    key: str,
    temperature: float,
    rounds: int,
    force: bool,
    as_json: bool,
) -> None:
    """Make a labelled dataset of exchanges from a constitution.

    An interrupted run goes on where it stopped when it is started again.

    \b
    Examples:
      safehold synth --out data/
      safehold synth --constitution homebrewing --size small --seed 7 --out small/
      safehold synth --out data/ --generator written --generator openai \\
          --base-url http://127.0.0.1:8000/v1 --model my-model
      safehold synth --out data/ --generator written --generator embedded --rounds 1
    """
    constitution = load(source)
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        admit_generator(constitution, operator_owned=name == "openai")
    if "openai" in chosen and not (base_url and model):
        raise UsageError("--generator openai needs --base-url and --model")
    asking = ChatSettings(
        url=base_url, model=model, key=key, temperature=temperature, rounds=rounds
    )
    plan = SynthesisPlan(
        domain=constitution.name,
        constitution=constitution.digest,
        generators=tuple(_described(name, asking) for name in chosen),
        seed=seed,
        target=SIZES[size],
        seed_books=seeds.digest(constitution.name) if "written" in chosen else "",
    )
    manifest = _finished(out, plan, force=force)
    if manifest is None:
        with ExitStack() as running:
            generators = [_generator(name, constitution, asking, running) for name in chosen]
            manifest = _make(out, plan, constitution, generators, quiet=as_json)
    if as_json:
        click.echo(msgspec.json.encode(manifest).decode())
    else:
        _show(out, manifest)


def _described(name: str, asking: ChatSettings) -> str:
    """Name a generator with all that changes what it makes."""
    match name:
        case "openai":
            return f"openai:{asking.model}:t={asking.temperature:g}:rounds={asking.rounds}"
        case "embedded":
            return f"embedded:{local.MODEL}:t={asking.temperature:g}:rounds={asking.rounds}"
        case _:
            return name


def _generator(
    name: str, constitution: Constitution, asking: ChatSettings, running: ExitStack
) -> Generator:
    """Return a generator by its name; the embedded model runs until `running` is closed."""
    if name == "written":
        return WrittenGenerator(constitution.name, constitution.digest)
    if name == "embedded":
        model = running.enter_context(local.LocalServer())
        asking = msgspec.structs.replace(
            asking,
            url=model.url,
            key=model.key,
            model=local.MODEL,
            max_tokens=160,
            batch=2,
            concurrency=2,
            timeout_s=600.0,
        )
    return ChatGenerator(name, constitution, asking)


def _finished(out: Path, plan: SynthesisPlan, *, force: bool) -> DatasetManifest | None:
    """Return the manifest of a dataset that is there already, if it is the one asked for."""
    if not (out / dataset.MANIFEST).exists():
        return None
    manifest = dataset.manifest_of(out)
    if manifest.plan == plan:
        for _ in dataset.read(out):
            pass
        return manifest
    if not force:
        raise DataError(
            f"{out} holds a dataset made with other options or seeds; "
            "choose another folder, or replace it with --force"
        )
    return None


def _make(
    out: Path,
    plan: SynthesisPlan,
    constitution: Constitution,
    generators: list[Generator],
    *,
    quiet: bool,
) -> DatasetManifest:
    journal = ExampleJournal(out, plan)
    console = Console(stderr=True, quiet=quiet)
    with Progress(console=console, transient=True) as bar:
        reading = bar.add_task("base examples", total=None)
        for generator in generators:
            for example in journal.keep(generator.generate(seed=plan.seed, skip=journal.ids)):
                _check(example, constitution)
                bar.advance(reading)
        making = bar.add_task("examples", total=plan.target)
        built = build(
            journal.examples,
            phrases=phrasebook(),
            seed=plan.seed,
            target=plan.target,
            progress=lambda done, total: bar.update(making, completed=done, total=total),
        )
    return dataset.write(out, plan, built.examples, base=built.base, dropped=built.dropped)


def _check(example: Example, constitution: Constitution) -> None:
    """Refuse an example whose clause the constitution has not, or has on the other side."""
    own = {clause.id for clause in getattr(constitution, example.side.value)}
    if example.clause not in own:
        raise DataError(
            f"{example.id}: expected a {example.side} clause of {constitution.name}, "
            f"got {example.clause!r}"
        )


def _show(out: Path, manifest: DatasetManifest) -> None:
    table = Table(title=f"{manifest.examples} examples in {manifest.families} families")
    table.add_column("split")
    table.add_column("restricted", justify="right")
    table.add_column("permitted", justify="right")
    for split in ("train", "calibrate", "test"):
        counts = [manifest.splits.get(f"{split}/{side}", 0) for side in ("restricted", "permitted")]
        table.add_row(split, *map(str, counts))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{out / dataset.EXAMPLES}  sha256 {manifest.sha256}", soft_wrap=True)
    console.print(
        f"{manifest.base} base examples, {manifest.dropped_duplicates} near-duplicates left out"
    )
