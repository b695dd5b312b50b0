"""`safehold endpoint attack`: every attack against every engine, in namespaces."""

from pathlib import Path

import click
import msgspec

from safehold.cli._reads import read_text, text_file
from safehold.errors import ConfigError
from safehold.secure.endpoint.attack.bench import ENGINES

BEGIN, END = "<!-- attack table: begin -->", "<!-- attack table: end -->"


@click.command()
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(sorted(ENGINES)),
    help="Only this engine; may be given again.",
)
@click.option(
    "--docs",
    type=text_file(),
    help="Replace the table in this page.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def attack(engines: tuple[str, ...], docs: Path | None, as_json: bool) -> None:
    """Run the attacks on software control, each engine in a root file system of its own (root).

    Nothing of this machine is watched or changed: overlay, disks and namespaces are made and
    thrown away.

    \b
    Examples:
      safehold endpoint attack
      safehold endpoint attack --engine guard --json
      safehold endpoint attack --docs docs/endpoint.md
    """
    from safehold.secure.endpoint.attack.bench import OUTSIDE
    from safehold.secure.endpoint.attack.table import left_over, markdown, measure, stopped_of

    columns = []
    for engine in engines or tuple(one for one in ENGINES if one not in OUTSIDE):
        column = measure(engine)
        columns.append(column)
        if not as_json:
            stopped, count = stopped_of(column)
            click.echo(f"{engine}: stops {stopped} of {count}; ran: {', '.join(left_over(column))}")
    if as_json:
        click.echo(msgspec.json.encode(columns))
    if docs is not None:
        text = read_text(docs)
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ConfigError(f"{docs.name}: expected {BEGIN} and {END}")
        docs.write_text(f"{before}{BEGIN}\n{markdown(columns)}{END}{after}", encoding="utf-8")
