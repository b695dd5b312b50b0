"""`safehold govern`: what falls due, and the clocks of an incident."""

import time
from pathlib import Path

import click

from safehold.cli._reads import json_file, log_folder, read_json
from safehold.cli._trust import json_option
from safehold.cli._values import POSIX_S
from safehold.errors import UsageError
from safehold.govern.cadence.incidents import incident_kinds


@click.group()
def govern() -> None:
    """The calendar of governance.

    \b
    Examples:
      safehold govern due --log DIR --log-keys log.json --controls controls-run.json
      safehold govern clocks
      safehold govern incident inc-7 --kind weights-theft --aware 1800000000 > inc-7.md
    """


@govern.command("due")
@click.option("--log", "log_dir", type=log_folder(), help="The log, or a copy.")
@click.option("--log-keys", type=json_file(), help="Your pinned log.json.")
@click.option("--standards", help="The document of standards, for its reviews.")
@click.option(
    "--controls", type=json_file(made_by="`safehold controls run`"), help="A saved run of controls."
)
@click.option(
    "--report", "saved", type=json_file(made_by="`safehold report build`"), help="A report.json."
)
@click.option(
    "--days",
    type=click.IntRange(0, 400),
    default=30,
    show_default=True,
    help="List what falls due within so many days.",
)
@click.option("--at", type=POSIX_S, help="POSIX seconds; now when left out.")
@json_option
@click.pass_context
def due(  # noqa: C901 - one branch for each source
    context: click.Context,
    log_dir: Path | None,
    log_keys: Path | None,
    standards: str | None,
    controls: Path | None,
    saved: Path | None,
    days: int,
    at: int | None,
    as_json: bool,
) -> None:
    """List what is overdue or falls due soon; exit 1 when anything is overdue.

    \b
    Example:
      safehold govern due --log DIR --log-keys log.json --controls controls-run.json
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.cadence.due import (
        DueItem,
        agenda,
        of_acceptances,
        of_incidents,
        of_records,
        of_report,
        of_results,
    )
    from safehold.govern.cadence.incidents import when

    now = int(time.time()) if at is None else at
    items: list[DueItem] = []
    if (log_dir is None) != (log_keys is None):
        raise UsageError("expected --log DIR with --log-keys FILE, or neither")
    if log_dir is not None and log_keys is not None:
        from safehold.govern.controls.facts.trust_log import read_log
        from safehold.govern.standards.library import load_standards
        from safehold.govern.standards.reading import read_log as read_standing

        log = read_log(log_dir, log_keys)
        items += [*of_acceptances(log, now), *of_incidents(log)]
        if standards is not None:
            document = load_standards(standards)
            items += of_records(read_standing(log_dir, log_keys, document).records)
    if controls is not None:
        from safehold.govern.controls.interface import ControlRun

        items += of_results(read_json(controls, ControlRun, "a run of the controls").results)
    if saved is not None:
        from safehold.govern.report.interface import Report

        items += of_report(read_json(saved, Report, "a report"))
    if log_dir is None and controls is None and saved is None:
        raise UsageError("expected at least one of --log, --controls and --report")
    found = agenda(items, at=now, days=days)
    if as_json:
        emit([plain(one) | {"overdue": one.overdue(now)} for one in found])
    for one in () if as_json else found:
        mark = "OVERDUE  " if one.overdue(now) else ""
        click.echo(f"{when(one.due)}  {mark}{one.what}")
    if not as_json:
        late = sum(one.overdue(now) for one in found)
        click.echo(f"{late} overdue, {len(found) - late} within {days} days")
    if any(one.overdue(now) for one in found):
        context.exit(1)


@govern.command("clocks")
@json_option
def clocks(as_json: bool) -> None:
    """List the clocks that an incident may start, each with its source.

    \b
    Example:
      safehold govern clocks
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.cadence.incidents import stock_clocks

    if as_json:
        emit([plain(one) for one in stock_clocks()])
        return
    for one in stock_clocks():
        click.echo(
            f"{one.id}: {one.what}, {one.hours:g} h from {one.starts.value}, to {one.to}\n"
            f"  {one.law}\n  kinds: {', '.join(one.kinds)}"
        )
    click.echo("Ask counsel which of them bind you.")


@govern.command("incident")
@click.argument("name")
@click.option(
    "--kind",
    multiple=True,
    type=click.Choice(incident_kinds()),
    required=True,
    help="What happened; may be repeated.",
)
@click.option("--aware", type=POSIX_S, help="When somebody became aware (POSIX seconds; now).")
@click.option("--notified", type=POSIX_S, help="When an authority was notified.")
@click.option("--resolved", type=POSIX_S, help="When it was over.")
def incident(
    name: str, kind: tuple[str, ...], aware: int | None, notified: int | None, resolved: int | None
) -> None:
    """Print the page of an incident, with every clock that it starts.

    \b
    Example:
      safehold govern incident inc-7 --kind weights-theft --aware 1800000000 > inc-7.md
    """
    from safehold.govern.cadence.incidents import Moment, template

    moments = {Moment.AWARE: int(time.time()) if aware is None else aware}
    if notified is not None:
        moments[Moment.NOTIFIED] = notified
    if resolved is not None:
        moments[Moment.RESOLVED] = resolved
    click.echo(template(name, kind, moments))
