"""`safehold drill`: attacks on a miniature enclave that the drill makes and removes."""

import time
from pathlib import Path

import click

from safehold.cli._places import out_file
from safehold.cli._reads import log_folder, read_text, text_file
from safehold.cli._trust import json_option, keys_option
from safehold.errors import UsageError

BEGIN, END = "<!-- heist table: begin -->", "<!-- heist table: end -->"


@click.group()
def drill() -> None:
    """Try the controls against a thief.

    \b
    Examples:
      sudo safehold drill heist
      sudo safehold drill heist --docs docs/controls.md
      sudo safehold drill enclave --out controls-run.json
      safehold drill judges --log log/ --keys keys/
    """


@drill.command("heist")
@click.option("--out", type=out_file(makes_folders=True), help="Write the table as Markdown.")
@click.option(
    "--docs",
    type=text_file(),
    help="Replace the table in this page.",
)
@click.option(
    "--log",
    "log_dir",
    type=log_folder(),
    envvar="SAFEHOLD_LOG",
    help="Append a leaf that names the controls which held.",
)
@keys_option
@json_option
@click.pass_context
def heist_command(
    context: click.Context,
    out: Path | None,
    docs: Path | None,
    log_dir: Path | None,
    key_dir: Path | None,
    as_json: bool,
) -> None:
    """Play a heist in network namespaces; exit 1 unless every step is real and held.

    \b
    Examples:
      sudo safehold drill heist
      sudo safehold drill heist --docs docs/controls.md
    """
    from safehold.cli._trust import open_desk
    from safehold.demo.heist.steps import as_json as in_json
    from safehold.demo.heist.steps import heist
    from safehold.demo.heist.table import markdown, rows
    from safehold.trust.log.log_entries import Record

    begun = time.monotonic()
    tries = heist(lambda line: click.echo(line, err=True))
    seconds = time.monotonic() - begun
    table = rows(tries)
    held = all(one.held and not one.not_counted for one in table)
    click.echo(in_json(tries).decode() if as_json else markdown(table))
    try:
        if out is not None:
            out.write_text(markdown(table))
        if docs is not None:
            docs.write_text(replaced(read_text(docs), markdown(table)))
    except OSError as error:
        raise UsageError(f"can't write {out or docs}: {error.strerror}") from error
    if log_dir is not None:
        counted = sorted({one.control for row in table for one in row.counted})
        facts = {
            "drill": "heist",
            "outcome": "passed" if held else "failed",
            "seconds": f"{seconds:.3f}",
            "controls": " ".join(counted),
        }
        leaf = Record(time=int(time.time()), kind="drill", facts=facts, digests={})
        click.echo(f"leaf {open_desk(log_dir, key_dir).record(leaf)}", err=True)
    if not held:
        context.exit(1)


def replaced(page: str, table: str) -> str:
    """Return a page with another table between its markers.

    Raises:
        UsageError: it has none.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"expected {BEGIN} and {END} in the page")
    return f"{before}{BEGIN}\n{table}{END}{after}"


@drill.command("judges")
@click.option(
    "--log",
    "log_dir",
    type=log_folder(),
    envvar="SAFEHOLD_LOG",
    help="Append a leaf that names the detections which were tried and found their faults.",
)
@keys_option
@json_option
@click.pass_context
def judges_command(
    context: click.Context, log_dir: Path | None, key_dir: Path | None, as_json: bool
) -> None:
    """Try the judge of each automatic control by planted faults; exit 1 unless all find theirs.

    The host is a recording: a healthy one, and the same with one fault. It is the test of each
    detection that the control mon-06 asks for. `drill heist` and `drill enclave` try live ones.

    \b
    Example:
      safehold drill judges --log log/ --keys keys/
    """
    import json

    from safehold.cli._trust import open_desk
    from safehold.demo.enclave.drills import try_judges
    from safehold.testing.planted import tried_judges
    from safehold.trust.log.log_entries import Record

    begun = time.monotonic()
    tried, result = tried_judges(), try_judges()
    deaf = sorted(name for name, found in tried.items() if not found)
    if as_json:
        click.echo(json.dumps({"tried": len(tried), "deaf": deaf, "named": result.controls}))
    else:
        click.echo(f"{len(tried) - len(deaf)} of {len(tried)} judges find exactly their faults")
        for name in deaf:
            click.echo(f"{name} does not find a fault that it claims")
    if log_dir is not None:
        facts = {
            "drill": "judges",
            "outcome": "passed" if result.held else "failed",
            "seconds": f"{time.monotonic() - begun:.3f}",
            "controls": " ".join(result.controls),
        }
        leaf = Record(time=int(time.time()), kind="drill", facts=facts, digests={})
        click.echo(f"leaf {open_desk(log_dir, key_dir).record(leaf)}", err=True)
    if not result.held:
        context.exit(1)


@drill.command("enclave")
@click.option("--out", type=out_file(makes_folders=True), help="Save the run of the controls.")
@click.option("--faults", is_flag=True, help="Plant faults afterwards; exit 1 if one is not found.")
@json_option
@click.pass_context
def enclave_command(
    context: click.Context, *, out: Path | None, faults: bool, as_json: bool
) -> None:
    """Run the product in an enclave of namespaces, and judge its controls on live facts.

    Gateway, read meter, execution guard, decoys, egress and log are the real ones; the people and
    what they did are a script. What fails there fails for a reason that is printed.

    \b
    Example:
      sudo safehold drill enclave --out controls-run.json
    """
    import msgspec

    from safehold.demo.enclave.run import enclave
    from safehold.govern.controls.matrix import closing_line

    found = enclave(lambda line: click.echo(line, err=True), faults=faults)
    if out is not None:
        try:
            out.write_bytes(msgspec.json.format(msgspec.json.encode(found.run), indent=1))
        except OSError as error:
            raise UsageError(f"can't write {out}: {error.strerror}") from error
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        context.exit(0 if all(one.exact for one in found.faults) else 1)
    for one in found.documents:
        if one.fault:
            click.echo(f"document {one.document} not written: {one.fault}")
    for result in found.run.results:
        if not result.satisfied:
            why = result.reasons[0] if result.reasons else ""
            click.echo(f"{result.control}  {result.status.value}: {why}")
    judged = found.judged
    click.echo(f"{judged.live} of {judged.automatic} automatic controls judged on live facts")
    for fault in found.faults:
        said = "found by" if fault.exact else f"expected {', '.join(fault.claims)}, got"
        click.echo(f"fault {fault.fault}: {said} {', '.join(fault.red) or 'nothing'}")
    click.echo(closing_line(found.run.results))
    context.exit(0 if all(one.exact for one in found.faults) else 1)
