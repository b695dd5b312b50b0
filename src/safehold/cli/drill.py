"""`safehold drill`: attacks on a miniature enclave that the drill makes and removes."""

from pathlib import Path

import click

from safehold.cli._trust import json_option
from safehold.errors import UsageError


@click.group()
def drill() -> None:
    """Try the controls against a thief.

    \b
    Examples:
      sudo safehold drill heist
      sudo safehold drill heist --out heist.md
      sudo safehold drill enclave --out controls-run.json
    """


@drill.command("heist")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table as Markdown.")
@json_option
@click.pass_context
def heist_command(context: click.Context, out: Path | None, as_json: bool) -> None:
    """Play a heist in network namespaces; exit 1 unless every step is real and held."""
    from safehold.demo.heist.steps import as_json as in_json
    from safehold.demo.heist.steps import heist
    from safehold.demo.heist.table import markdown, rows

    tries = heist(lambda line: click.echo(line, err=True))
    table = rows(tries)
    if as_json:
        click.echo(in_json(tries).decode())
    else:
        click.echo(markdown(table))
    if out is not None:
        try:
            out.write_text(markdown(table))
        except OSError as error:
            raise UsageError(f"can't write {out}: {error.strerror}") from error
    if not all(one.held and not one.not_counted for one in table):
        context.exit(1)


@drill.command("enclave")
@click.option("--out", type=click.Path(path_type=Path), help="Save the run of the controls.")
@json_option
def enclave_command(out: Path | None, as_json: bool) -> None:
    """Run the product in an enclave of namespaces, and judge its controls on live facts.

    Gateway, read meter, execution guard, decoys, egress and log are the real ones; the people and
    what they did are a script. What fails there fails for a reason that is printed.
    """
    import msgspec

    from safehold.demo.enclave.run import enclave
    from safehold.govern.controls.matrix import closing_line

    found = enclave(lambda line: click.echo(line, err=True))
    if out is not None:
        try:
            out.write_bytes(msgspec.json.format(msgspec.json.encode(found.run), indent=1))
        except OSError as error:
            raise UsageError(f"can't write {out}: {error.strerror}") from error
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for one in found.documents:
        if one.fault:
            click.echo(f"document {one.document} not written: {one.fault}")
    for result in found.run.results:
        if not result.satisfied:
            why = result.reasons[0] if result.reasons else ""
            click.echo(f"{result.control}  {result.status.value}: {why}")
    judged = found.judged
    click.echo(f"{judged.live} of {judged.automatic} automatic controls judged on live facts")
    click.echo(closing_line(found.run.results))
