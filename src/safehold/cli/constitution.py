"""`safehold constitution`: check, show, list and begin constitutions."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._generator_options import generator_key_option, generator_model_option
from safehold.cli._places import out_file, out_folder, write_new
from safehold.cli._values import Address, Finite
from safehold.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from safehold.constitution import Constitution, Document, PermittedClause, RestrictedClause
    from safehold.constitution.lint import LintFinding, SeedCount

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group()
def constitution() -> None:
    """Check, show and begin constitutions: what is restricted and what is permitted.

    \b
    Examples:
      safehold constitution list
      safehold constitution show homebrewing
      safehold constitution lint my-domain.yaml
      safehold constitution new my-domain --restricted glue-making -o my-domain.yaml
    """


@constitution.command("lint")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--no-seeds", is_flag=True, help="Do not hold it against the written seeds.")
@click.option(
    "--seeds",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of your seed books (default: `seeds` beside the constitution's file).",
)
@click.option("--rules", is_flag=True, help="List the rules instead.")
@_json_option
def lint_command(
    names: tuple[str, ...],
    strict: bool,
    no_seeds: bool,
    folder: Path | None,
    rules: bool,
    as_json: bool,
) -> None:
    """Check constitutions: schema, ids, neighbours, stages, wording and seed coverage.

    Without a name, all stock constitutions are checked. Exits with status 1 on any error.

    \b
    Examples:
      safehold constitution lint
      safehold constitution lint my-domain.yaml --strict
      safehold constitution lint my-domain.yaml --json | jq '.[].findings[].rule'
      safehold constitution lint --rules
    """
    from safehold.constitution import stock
    from safehold.constitution.lint import Severity

    if rules:
        _print_rules(as_json=as_json)
        return
    checked = [(name, _findings(name, folder, seeds=not no_seeds)) for name in names or stock()]
    if as_json:
        click.echo(_json([{"constitution": name, "findings": found} for name, found in checked]))
    else:
        for name, found in checked:
            _print_findings(name, found)
    severities = {finding.severity for _, found in checked for finding in found}
    if Severity.ERROR in severities or (strict and severities):
        raise click.exceptions.Exit(1)


@constitution.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--clause", "clause_id", metavar="ID", help="Only this clause, with its wording.")
@_json_option
def show(name: str, clause_id: str | None, as_json: bool) -> None:
    """Show a constitution: its digest, principle, clauses, tiers, stages and neighbours.

    \b
    Examples:
      safehold constitution show homebrewing
      safehold constitution show homebrewing --clause beer-production
      safehold constitution show ./my-domain.yaml --json | jq .digest
    """
    from safehold.constitution import load

    shown = load(name)
    if clause_id is not None:
        clause = shown.clause(clause_id)
        if as_json:
            click.echo(_json(_full(clause)))
        else:
            _print_clause(shown, clause)
    elif as_json:
        click.echo(_json({"digest": shown.digest, **_full(shown)}))
    else:
        _print_constitution(shown)


@constitution.command("list")
@_json_option
def list_command(as_json: bool) -> None:
    """List the stock constitutions.

    \b
    Examples:
      safehold constitution list
      safehold constitution list --json | jq '.[].name'
    """
    from rich.console import Console
    from rich.table import Table

    from safehold.constitution import load, stock

    all_stock = [load(name) for name in stock()]
    if as_json:
        click.echo(_json([_summary(one) for one in all_stock]))
        return
    table = Table("name", "title", "restricted", "permitted", "generator", "digest")
    for column in (0, 4, 5):
        table.columns[column].no_wrap = True
    for one in all_stock:
        counts = (str(len(one.restricted)), str(len(one.permitted)))
        table.add_row(one.name, one.title, *counts, one.generator, one.digest[:12])
    Console().print(table)


@constitution.command()
@click.argument("name")
@click.option("--title", default="", help="What people call it.")
@click.option(
    "--restricted",
    multiple=True,
    metavar="ID",
    help="A restricted clause; may be repeated.",
)
@click.option(
    "--stage",
    "stages",
    multiple=True,
    default=("preparation", "production", "finishing", "troubleshooting"),
    show_default=True,
    metavar="ID",
    help="A workflow stage; may be repeated.",
)
@click.option(
    "--example",
    is_flag=True,
    help="Write the finished one that the tutorial uses instead: bicycle-repair.",
)
@click.option(
    "-o",
    "--output",
    type=out_file(),
    help="The file to write; an existing one is never overwritten. [default: standard output]",
)
@_json_option
def new(
    name: str,
    *,
    title: str,
    restricted: tuple[str, ...],
    stages: tuple[str, ...],
    example: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Begin a constitution; `lint` then names each text that is still to be written.

    \b
    Examples:
      safehold constitution new glue --restricted glue-making > glue.yaml
      safehold constitution new glue --restricted glue-making --stage cooking -o glue.yaml
      safehold constitution new bicycle-repair --example -o bicycle-repair.yaml
    """
    from safehold.constitution.template import finished, template

    if example and (restricted or title):
        raise UsageError("--example is finished: expected no --restricted and no --title")
    if not example and not restricted:
        raise UsageError("expected --restricted ID, the clause that it is about, or --example")
    text = (
        finished(name)
        if example
        else template(name, title=title, restricted=restricted, stages=stages)
    )
    if output is None:
        click.echo(_json({"yaml": text}) if as_json else text, nl=as_json)
        return
    write_new(output, text)
    if as_json:
        click.echo(_json({"written": str(output)}))
    else:
        click.echo(f"{output} written; next: safehold constitution lint {output}")


@constitution.command()
@click.argument("name", metavar="FILE")
@click.option("--generator", type=Address(), help="Base URL of an OpenAI-compatible model.")
@generator_model_option
@generator_key_option
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1, 50), help="How many.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    type=Finite(min=0.0, min_open=True),
    help="Seconds without any answer; after twice as long the model is given up.",
)
@click.option(
    "--sheet",
    type=out_folder(),
    help="Folder for neighbours.csv and neighbours.html, and for what the model answered.",
)
@click.option(
    "--read",
    "filled",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A sheet with decisions; the constitution with them goes to --out.",
)
@click.option(
    "--out",
    type=out_file(),
    help="With --read: the new file; an existing one is never overwritten.",
)
@_json_option
def neighbours(
    name: str,
    *,
    generator: str | None,
    generator_model: str,
    generator_key: str,
    batch: int,
    timeout_s: float,
    sheet: Path | None,
    filled: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Let a model propose permitted neighbours, and read your decisions about them back.

    \b
    Examples:
      safehold constitution neighbours mine.yaml --generator http://127.0.0.1:8000/v1 --sheet sheet/
      safehold constitution neighbours mine.yaml --read sheet/neighbours.csv --out reviewed.yaml
    """
    # The generator's packages are wanted here only.
    from rich.console import Console

    from safehold.cli._neighbours import ModelAsked, propose_to, read_back
    from safehold.cli._progress_bars import Bars

    if (generator is None) is (filled is None):
        raise UsageError("expected either --generator URL --sheet DIR, or --read FILE --out FILE")
    if generator is not None:
        if sheet is None:
            raise UsageError("--generator needs --sheet DIR")
        asked = ModelAsked(
            url=generator,
            model=generator_model,
            key=generator_key,
            batch=batch,
            timeout_s=timeout_s,
        )
        with Bars(Console(file=sys.stderr)) as bars:
            count = propose_to(name, sheet, asked, bars)
        told = f"{count} proposals in {sheet / 'neighbours.csv'}: decide there, then --read it"
        click.echo(_json({"proposals": count, "sheet": str(sheet)}) if as_json else told)
        return
    if filled is None or out is None:
        raise UsageError("--read needs --out FILE")
    counts = read_back(name, filled, out)
    told = f"{out} written: {counts['accept']} accepted, {counts['relabel']} relabelled"
    click.echo(_json({"written": str(out), **counts}) if as_json else told)


def _findings(name: str, folder: Path | None, *, seeds: bool) -> "tuple[LintFinding, ...]":
    """Lint one constitution; a broken schema is a finding like any other."""
    from safehold.constitution import SchemaError, load_document
    from safehold.constitution.lint import LintFinding, Severity, lint

    try:
        document = load_document(name)
    except SchemaError as error:
        finding = LintFinding("schema", Severity.ERROR, "", error.line, error.column, error.problem)
        return (finding,)
    return lint(document, seeds=_seed_counts(name, document, folder) if seeds else None)


def _seed_counts(name: str, document: "Document", folder: Path | None) -> "tuple[SeedCount, ...]":
    """Count the written seeds: the package's, or those of a folder; empty where there are none."""
    from safehold.constitution import stock
    from safehold.constitution.lint import SeedCount
    from safehold.improve.synthesis import seeds as seed_books

    domain = document.constitution.name
    if folder is None and name not in stock():
        folder = seed_books.folder_beside(Path(name))
    if folder is not None:
        books = list(seed_books.folder_books(folder))
    elif domain in seed_books.domains():
        books = list(seed_books.books(domain))
    else:
        return ()
    counts: Counter[tuple[str, str, str | None]] = Counter()
    for book in books:
        stages = [text.stage for text in book.exchanges] + [text.stage for text in book.prompts]
        counts.update((book.clause, str(book.side), stage) for stage in stages)
    return tuple(SeedCount(*key, texts=count) for key, count in counts.items())


def _print_rules(*, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from safehold.constitution.lint import RULES, Severity

    if as_json:
        rows = [{"rule": r.name, "severity": r.severity, "summary": r.summary} for r in RULES]
        click.echo(_json(rows))
        return
    table = Table("rule", "severity", "found where")
    table.add_row("schema", Severity.ERROR, "the file is no YAML or breaks the schema")
    for rule in RULES:
        table.add_row(rule.name, rule.severity, rule.summary)
    Console().print(table)


def _print_findings(name: str, found: "tuple[LintFinding, ...]") -> None:
    from rich.console import Console
    from rich.text import Text

    from safehold.cli._visible import visible
    from safehold.constitution.lint import Severity

    console = Console(highlight=False)
    for finding in found:
        place = f"{name}:{finding.line}:{finding.column}"
        where = f"{finding.path}: " if finding.path else ""
        line = Text(f"{visible(place)}: ")
        line.append(finding.severity, "red" if finding.severity is Severity.ERROR else "yellow")
        line.append(f" {finding.rule}: {visible(where + finding.message)}")
        console.print(line, soft_wrap=True)
    errors = sum(finding.severity is Severity.ERROR for finding in found)
    console.print(
        Text(f"{visible(name)}: {errors} errors, {len(found) - errors} warnings"), soft_wrap=True
    )


def _print_constitution(shown: "Constitution") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from safehold.cli._visible import visible

    console = Console(highlight=False)
    console.print(Text(f"{visible(shown.title)} ({shown.name}, version {visible(shown.version)})"))
    console.print(Text(f"sha256 {shown.digest}"), soft_wrap=True)
    console.print(Text(f"generator: {shown.generator}"))
    _print_prose(console, shown.principle)
    table = Table("restricted", "tier", "stages", "permitted neighbours")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for clause in shown.restricted:
        stages, near = ", ".join(clause.stages) or "-", ", ".join(clause.neighbours)
        table.add_row(clause.id, clause.tier, stages, near)
    console.print(table)
    table = Table("permitted", "tier", "title")
    table.columns[0].no_wrap = True
    for permitted in shown.permitted:
        table.add_row(permitted.id, permitted.tier, Text(visible(permitted.title)))
    console.print(table)


def _print_clause(shown: "Constitution", clause: "RestrictedClause | PermittedClause") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from safehold.cli._visible import visible
    from safehold.constitution import RestrictedClause

    console = Console(highlight=False)
    side = "restricted" if isinstance(clause, RestrictedClause) else "permitted"
    console.print(Text(f"{visible(clause.title)} ({clause.id}): {side}, {clause.tier}"))
    _print_prose(console, clause.policy)
    if not isinstance(clause, RestrictedClause):
        return
    covers = {stage.id: stage.covers for stage in shown.stages}
    if clause.stages:
        table = Table("stage", "covers")
        for stage in clause.stages:
            table.add_row(stage, Text(visible(covers.get(stage, "(undefined)").strip())))
        console.print(table)
    if clause.commonly_known is not None:
        known = clause.commonly_known
        _print_prose(console, f"Commonly known: {known.statement}")
        for example in known.examples:
            console.print(Text(f"  - {visible(example.strip())}"))
    console.print(Text(f"\nPermitted neighbours: {', '.join(clause.neighbours) or 'none'}"))


def _print_prose(console: "Console", text: str) -> None:
    """Print paragraphs, each reflowed to the width of the terminal."""
    from rich.text import Text

    from safehold.cli._visible import visible

    console.print()
    for paragraph in text.strip().split("\n\n"):
        console.print(Text(" ".join(visible(paragraph).split()) + "\n"))


def _summary(one: "Constitution") -> dict[str, object]:
    return {
        "name": one.name,
        "title": one.title,
        "version": one.version,
        "digest": one.digest,
        "generator": one.generator,
        "restricted": [clause.id for clause in one.restricted],
        "permitted": [clause.id for clause in one.permitted],
    }


def _full(value: msgspec.Struct) -> dict[str, Any]:
    """Return all fields, those with their default value included."""
    return {
        key: [_full(i) if isinstance(i, msgspec.Struct) else i for i in inner]
        if isinstance(inner, tuple)
        else _full(inner)
        if isinstance(inner, msgspec.Struct)
        else inner
        for key, inner in msgspec.structs.asdict(value).items()
    }


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
