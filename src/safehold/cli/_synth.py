"""From options to a dataset: which generators run, what they gave, and how it is shown."""

import asyncio
import functools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.constitution import Constitution, stock
from safehold.errors import (
    ConstitutionError,
    DataError,
    DependencyError,
    DiskError,
    UpstreamError,
    UsageError,
    told_by_system,
)
from safehold.progress import Progress

try:
    from safehold.detect.runners.interface import RunLimits
    from safehold.detect.runners.pool import run_pool
    from safehold.detect.runners.ray_runner import run_ray
    from safehold.guard.gateway.upstreams import embedded as local
    from safehold.improve.synthesis import dataset, seeds
    from safehold.improve.synthesis.build import SIZES, build, target_of
    from safehold.improve.synthesis.calls import CallBook
    from safehold.improve.synthesis.chat import ChatSettings, only_model
    from safehold.improve.synthesis.costs import CallPlan, Expected, Price, call_plan
    from safehold.improve.synthesis.coverage import COVERAGE, SynthesisCoverage, coverage_of
    from safehold.improve.synthesis.crossed import CrossedText
    from safehold.improve.synthesis.dataset import DatasetManifest, SynthesisPlan
    from safehold.improve.synthesis.generator import ModelGenerator
    from safehold.improve.synthesis.interface import Example, Generator
    from safehold.improve.synthesis.own import ConstitutionText, GeneralText, SeedFolder
    from safehold.improve.synthesis.phrasebook import phrasebook
    from safehold.improve.synthesis.refusals import (
        CHAT,
        HELD_OUT,
        PAIRS,
        refusal_data,
        write_refusals,
    )
    from safehold.improve.synthesis.spread import Run, Spread, SpreadPlan
    from safehold.improve.synthesis.written import WrittenGenerator
except ModuleNotFoundError as error:
    raise DependencyError("synthesis needs: pip install 'safehold[train]'") from error

if TYPE_CHECKING:
    from safehold.constitution.lint import LintFinding

_WRITTEN = "written"
_SHOWN = 5
_EMBEDDED = "embedded"
_URLS = ("http://", "https://")


class SynthRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    source: str
    out: Path
    size: str = "default"
    seed: int = 1
    seeds: Path | None = None
    generators: tuple[str, ...] = ()
    model: str = ""
    key: str = ""
    temperature: float = 1.0
    rounds: int = 2
    batch: int = 6
    languages: tuple[str, ...] = ()
    concurrency: int = 4
    max_tokens: int = 600
    timeout_s: float = 120.0
    fill: int = 0
    force: bool = False
    runner: str = ""
    processes: int = 1
    queue: str = ""
    ray_address: str | None = None


class SynthResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished dataset, what each model gave, and what its reader must know."""

    manifest: DatasetManifest
    coverage: tuple[SynthesisCoverage, ...]
    warnings: tuple[str, ...]


class _Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The checked request: the constitution and where base examples come from."""

    constitution: Constitution
    stock: bool
    folder: Path | None
    written: bool
    models: tuple[str, ...]


def make_dataset(request: SynthRequest, running: ExitStack, progress: Progress) -> SynthResult:
    """Make the dataset, or return the one that is there if it is the one asked for.

    Raises:
        SafeholdError: The options, the constitution, the books, the folder or the model are wrong.
    """
    sources = _sources(request)
    constitution = sources.constitution
    settings = {name: _settings(request, name) for name in sources.models}
    plan = _plan(request, sources, settings)
    there = _finished(request, plan)
    if there is not None:
        return there
    with CallBook(request.out) as book:
        fixed: list[Generator] = []
        general: GeneralText | None = None
        if sources.folder is not None:
            # First, since what is wrong with a book should be said at once.
            fixed.append(SeedFolder(constitution, sources.folder))
        if sources.written:
            fixed.append(WrittenGenerator(constitution.name, constitution.digest))
        else:
            general = GeneralText(constitution)
            fixed.append(ConstitutionText(constitution))
        base = [example for one in fixed for example in one.generate(seed=request.seed)]
        _check(base, constitution)
        answered: list[Example] = []
        coverage = []
        for name in sources.models:
            asked = _served(name, settings[name], running)
            spread = _spread(request)
            workers = None
            if spread is not None:
                workers = Spread(spread, constitution, asked, book, progress)
            generator = ModelGenerator(_kind(name), constitution, asked, book, progress, workers)
            paid = len(book.new)
            answered += generator.generate(seed=request.seed)
            new = [one.answer for one in book.new[paid:]]
            tokens = (sum(a.prompt_tokens for a in new), sum(a.completion_tokens for a in new))
            coverage.append(
                coverage_of(asked.model, generator.yields, calls=len(new), tokens=tokens)
            )
        (request.out / COVERAGE).write_bytes(
            msgspec.json.format(msgspec.json.encode(coverage), indent=1) + b"\n"
        )
        _refuse_empty(coverage)
        if general is not None:
            # After the model, which says at once that it is no good; the order of rows stays.
            base += general.generate(seed=request.seed)
        base += answered
        target = target_of(request.size, len(base), written=sources.written)
        progress.start("examples", target)
        told = 0

        def counted(done: int, total: int) -> None:
            del total
            nonlocal told
            progress.advance(done - told)
            told = done

        built = build(
            base,
            phrases=phrasebook(),
            seed=request.seed,
            target=target,
            progress=counted,
            taught=() if sources.written else CrossedText(constitution).generate(seed=request.seed),
        )
        if not sources.stock:
            (request.out / dataset.CONSTITUTION).write_bytes(Path(request.source).read_bytes())
        manifest = dataset.write(
            request.out, plan, built.examples, base=built.base, dropped=built.dropped
        )
    left = general.left_out if general is not None else 0
    return SynthResult(
        manifest=manifest,
        coverage=tuple(coverage),
        warnings=(*_warnings(manifest, coverage), *_left_out(left)),
    )


def plan_calls(request: SynthRequest, prices: tuple[float, float]) -> CallPlan | None:
    """Return what the model would be asked for; None where no model is named.

    Raises:
        SafeholdError: The options or the constitution are wrong.
    """
    sources = _sources(request)
    for name in sources.models:
        settings = _settings(request, name, offline=True)
        generator = ModelGenerator(
            _kind(name), sources.constitution, settings, CallBook(request.out)
        )
        price = Price(prompt=prices[0], completion=prices[1])
        book = CallBook(request.out)
        if book.exists:
            with book:
                return call_plan(generator, settings, book, price, seed=request.seed)
        return call_plan(generator, settings, book, price, seed=request.seed)
    return None


def write_refusal_data(request: SynthRequest) -> dict[str, int]:
    """Write chat rows and pairs beside a finished dataset, and return the rows of each file.

    Raises:
        SafeholdError: There is no dataset, or it has nothing to teach from.
    """
    from safehold.constitution import ClauseRole, load

    constitution = load(request.source)
    general = [c.id for c in constitution.permitted if c.role is ClauseRole.GENERAL]
    examples = list(dataset.read(request.out))
    data = refusal_data(examples, phrasebook().refusals, general, seed=request.seed)
    try:
        write_refusals(request.out, data)
    except OSError as error:
        raise DiskError(f"{told_by_system(error, request.out)}; the dataset is whole") from error
    return {CHAT: len(data.chat), PAIRS: len(data.pairs), HELD_OUT: len(data.held_out)}


def _sources(request: SynthRequest) -> _Sources:
    from safehold.constitution import GeneratorRule, admit_generator, load

    constitution = load(request.source)
    own = request.source not in stock()
    folder = request.seeds
    if folder is None and own:
        folder = seeds.folder_beside(Path(request.source))
    named = _named(request, constitution, folder, own=own)
    models = tuple(name for name in named if name != _WRITTEN)
    urls = [name for name in models if name != _EMBEDDED]
    if constitution.generator is GeneratorRule.OPERATOR_ONLY:
        for name in named:
            admit_generator(constitution, operator_owned=name in urls)
    linted(request.source)
    return _Sources(
        constitution=constitution,
        stock=not own,
        folder=folder,
        written=_WRITTEN in named,
        models=models,
    )


def linted(source: str) -> "tuple[LintFinding, ...]":
    """Return what lint warns of in a constitution that text is to be made for.

    Raises:
        ConstitutionError: Lint finds an error in it, or it can't be read.
    """
    from safehold.constitution import load_document, stock
    from safehold.constitution.lint import Severity, lint

    found = lint(load_document(source), seeds=None if source in stock() else ())
    errors = [one for one in found if one.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more: `safehold constitution lint {source}`)"
        first = errors[0]
        raise ConstitutionError(
            f"{source}:{first.line}:{first.column}: {first.path}: {first.message}"
            f"{more if len(errors) > 1 else ''}"
        )
    return found


def _named(
    request: SynthRequest, constitution: Constitution, folder: Path | None, *, own: bool
) -> tuple[str, ...]:
    """Return the generators that are asked for, or say which ones could be."""
    named = request.generators
    if not named and not own:
        named = (_WRITTEN,)
    urls = [name for name in named if name.startswith(_URLS)]
    strange = [name for name in named if name not in {_WRITTEN, _EMBEDDED, *urls}]
    if strange:
        raise UsageError(
            "--generator: expected written, embedded or a URL with http:// or https://, "
            f"got {strange[0]!r}"
        )
    if _WRITTEN in named and own:
        raise UsageError(
            f"--generator written: the package has no books for {constitution.name!r}; "
            "give your own with --seeds DIR, or name a model's URL"
        )
    if not named and folder is None:
        raise UsageError(
            f"nothing makes text for {constitution.name!r}: name a model with --generator URL, "
            "or a folder of seed books with --seeds DIR"
        )
    if len(urls) > 1:
        raise UsageError("--generator: expected at most one URL")
    return named


def _settings(request: SynthRequest, name: str, *, offline: bool = False) -> ChatSettings:
    settings = ChatSettings(
        url="" if name == _EMBEDDED else name,
        model=local.MODEL if name == _EMBEDDED else request.model,
        key="" if name == _EMBEDDED else request.key,
        temperature=request.temperature,
        batch=request.batch,
        rounds=request.rounds,
        languages=request.languages,
        fill=request.fill,
        concurrency=request.concurrency,
        max_tokens=request.max_tokens,
        timeout_s=request.timeout_s,
    )
    if not settings.model and not offline:
        settings = msgspec.structs.replace(settings, model=asyncio.run(only_model(settings)))
    return settings


def _served(name: str, settings: ChatSettings, running: ExitStack) -> ChatSettings:
    """Return the settings with an address; the embedded model runs until `running` is closed."""
    if name != _EMBEDDED:
        return settings
    model = running.enter_context(local.LocalServer())
    return msgspec.structs.replace(settings, url=model.url, key=model.key, timeout_s=600.0)


def _spread(request: SynthRequest) -> SpreadPlan | None:
    """Return over which workers the calls are spread; None where this process makes them."""
    if not request.runner:
        return None
    run: Run = run_pool
    if request.runner == "ray":
        run = functools.partial(run_ray, address=request.ray_address)
    return SpreadPlan(
        url=request.queue or str(request.out / "spread.db"),
        run=run,
        limits=RunLimits(processes=request.processes),
    )


def _kind(name: str) -> str:
    return _EMBEDDED if name == _EMBEDDED else "openai"


def _plan(
    request: SynthRequest, sources: _Sources, settings: dict[str, ChatSettings]
) -> SynthesisPlan:
    described = [_WRITTEN] if sources.written else ["constitution", "general"]
    if sources.folder is not None:
        described.append("seeds")
    for name in sources.models:
        one = settings[name]
        described.append(
            f"{_kind(name)}:{one.model}:t={one.temperature:g}:rounds={one.rounds}"
            f":batch={one.batch}:tokens={one.max_tokens}:in={','.join(one.languages) or 'lexicon'}"
        )
    digests = [
        seeds.digest(sources.constitution.name) if sources.written else seeds.shared_digest()
    ]
    if sources.folder is not None:
        digests.append(seeds.folder_digest(sources.folder))
    return SynthesisPlan(
        domain=sources.constitution.name,
        constitution=sources.constitution.digest,
        generators=tuple(described),
        seed=request.seed,
        target=SIZES[request.size],
        seed_books=":".join(digests),
        fill=request.fill,
    )


def _finished(request: SynthRequest, plan: SynthesisPlan) -> SynthResult | None:
    """Return the dataset that is there already, if it is the one asked for.

    A run that only fills, or that asks for more rounds, goes on from the one that is there.
    """
    out = request.out
    if not (out / dataset.MANIFEST).exists():
        return None
    manifest = dataset.manifest_of(out)
    if manifest.plan == plan:
        for _ in dataset.read(out):
            pass
        return SynthResult(manifest=manifest, coverage=_coverage(out), warnings=())
    if msgspec.structs.replace(manifest.plan, fill=plan.fill) != plan and not request.force:
        raise DataError(
            f"{out} holds a dataset made with other options or seeds; "
            "choose another folder, or replace it with --force"
        )
    return None


def _coverage(out: Path) -> tuple[SynthesisCoverage, ...]:
    try:
        return msgspec.json.decode(
            (out / COVERAGE).read_bytes(), type=tuple[SynthesisCoverage, ...]
        )
    except (OSError, msgspec.ValidationError, msgspec.DecodeError):
        return ()


def _check(base: Sequence[Example], constitution: Constitution) -> None:
    """Refuse an example whose clause the constitution has not, or has on the other side."""
    for side in ("restricted", "permitted"):
        own = {clause.id for clause in getattr(constitution, side)}
        for example in base:
            if example.side.value == side and example.clause not in own:
                raise DataError(
                    f"{example.id}: expected a {side} clause of {constitution.name}, "
                    f"got {example.clause!r}"
                )


def _refuse_empty(coverage: Sequence[SynthesisCoverage]) -> None:
    """A restricted clause or stage of which a model gave nothing is no thin data but none."""
    for one in coverage:
        empty = [row for row in one.empty if row.side == "restricted"]
        if empty:
            first = empty[0]
            why = max(first.faults, key=lambda name: first.faults[name], default="no messages")
            raise UpstreamError(
                f"{one.generator} gave nothing usable for {len(empty)} restricted cells, "
                f"{first.group} first (mostly: {why}); --fill asks again, or add asks and names"
            )


def _warnings(manifest: DatasetManifest, coverage: Sequence[SynthesisCoverage]) -> list[str]:
    found = [
        f"{one.generator}: {row.group} has {row.answers} of {row.wanted} answers, {row.note}; "
        "--fill asks again"
        for one in coverage
        for row in one.thin
    ]
    for one in coverage:
        if one.strange:
            more = f" and {len(one.strange) - _SHOWN} more" if len(one.strange) > _SHOWN else ""
            found.append(
                f"{one.generator}: the answers of {', '.join(one.strange[:_SHOWN])}{more} can't be "
                "told from answers to other cells and were left out: read some in calls.jsonl"
            )
    return found + split_warnings(manifest)


def split_warnings(manifest: DatasetManifest) -> list[str]:
    """Say which splits are empty on a side: they can't be trained or measured on."""
    return [
        f"the {split} split has no {side} example: more base examples are wanted"
        for split in ("train", "calibrate", "test")
        for side in ("restricted", "permitted")
        if not manifest.splits.get(f"{split}/{side}")
    ]


def _left_out(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} of the package's general texts name the subject and were left out"]


def show_dataset(out: Path, manifest: DatasetManifest) -> None:
    """Print the counts of a dataset."""
    from rich.console import Console
    from rich.table import Table

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


def show_coverage(coverage: SynthesisCoverage) -> None:
    """Print what a model gave, a row for each clause and stage."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"what {coverage.generator} gave ({coverage.calls} new calls)")
    table.add_column("clause / stage", overflow="fold", min_width=30)
    for column in ("wanted", "asks", "answers", "distinct", "clusters", "told"):
        table.add_column(column, justify="right")
    table.add_column("left out")
    for row in coverage.groups:
        faults = ", ".join(f"{name} {count}" for name, count in row.faults.items())
        table.add_row(
            row.group,
            str(row.wanted),
            str(row.asks),
            str(row.answers),
            f"{row.distinct:.2f}",
            f"{row.clusters:.2f}",
            f"{row.told:.2f}",
            ("THIN; " if row.thin else "") + faults,
        )
    console = Console(highlight=False)
    console.print(table)
    for what in ("languages", "forms", "difficulties"):
        counts = ", ".join(f"{name} {n}" for name, n in getattr(coverage, what).items())
        console.print(f"answers by {what}: {counts}", soft_wrap=True)


def show_plan(plan: CallPlan) -> None:
    """Print what would be asked for."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="what will be asked for")
    for column in ("part", "calls", "tokens in", "tokens out", "cost"):
        table.add_column(column, justify="left" if column == "part" else "right")

    def add(name: str, row: Expected) -> None:
        table.add_row(
            name,
            f"{row.calls:,}",
            f"{row.prompt_tokens:,}",
            f"{row.completion_tokens:,}",
            f"{row.cost:.2f}",
        )

    for what, rows in (
        ("clause", plan.clauses),
        ("neighbour", plan.neighbours),
        ("language", plan.languages),
        ("form", plan.forms),
        ("difficulty", plan.difficulties),
    ):
        for name, row in rows.items():
            add(f"{what}: {name}", row)
        table.add_section()
    add("total", plan.total)
    console = Console(highlight=False)
    console.print(table)
    styles = ", ".join(f"{name} {share:.0%}" for name, share in plan.styles.items())
    console.print(f"styles, made without calls: {styles}", soft_wrap=True)
    click.echo(f"{plan.paid} first calls are paid already; repairs and --fill come on top")
