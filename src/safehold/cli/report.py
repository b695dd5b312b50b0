"""`safehold report`: the safeguards report, built from evidence, lowered to a level, signed."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._places import out_folder
from safehold.cli._reads import (
    in_folder,
    json_file,
    log_folder,
    read_bytes,
    read_json,
    read_text,
    text_file,
)
from safehold.cli._trust import json_option
from safehold.cli._values import (
    POSIX_S,
    Finite,
)
from safehold.errors import UsageError
from safehold.govern.report.adapters import ADAPTERS
from safehold.govern.report.interface import Audience

if TYPE_CHECKING:
    from safehold.govern.controls.facts.trust_log import LogReading
    from safehold.govern.report.interface import CaseEvidence, CaseSources, Report

_level = click.option(
    "--level",
    type=click.Choice([str(one) for one in Audience]),
    default=str(Audience.PUBLIC),
    show_default=True,
    help="Who may read it.",
)
_log = click.option("--log", "log_dir", type=log_folder(), help="The log, or a copy.")
_keys = click.option("--log-keys", type=json_file(), help="Your pinned log.json.")
_controls = click.option(
    "--controls",
    type=json_file(made_by="`safehold controls run`"),
    help="A saved run of controls.",
)
_evidence = click.option("--evidence", type=in_folder(), help="Folder of evidence.")
_at = click.option("--at", type=POSIX_S, help="POSIX seconds; now when left out.")


@click.group()
def report() -> None:
    """A case of claims over evidence: what is supported, stale, undermined or unsupported.

    \b
    Examples:
      safehold report lint asl3
      safehold redteam report attacks.jsonl --json > red.json
      safehold report evidence redteam red.json --bundle SHA256 --out evidence/
      safehold report build asl3 --bundle SHA256 --controls controls-run.json \\
          --evidence evidence/ --log DIR --log-keys log.json --level public --out report/
      safehold report verify report/ --log DIR --log-keys log.json
      safehold report diff old/report.json new/report.json
    """


@report.command("lint")
@click.argument("case")
def lint(case: str) -> None:
    """Check a case: its argument, and that no number stands in its prose.

    \b
    Example:
      safehold report lint asl3
    """
    from safehold.govern.report.case import case_sha256, read_case

    found = read_case(case)
    click.echo(f"{found.id}: {len(found.node)} nodes, SHA-256 {case_sha256(found)}")


@report.command("evidence")
@click.argument("kind", type=click.Choice(list(ADAPTERS)))
@click.argument("file", type=json_file())
@click.option("--id", "name", help="Its id in the case (default: the kind).")
@click.option("--bundle", default="", help="SHA-256 of the bundle that it is of.")
@click.option(
    "--days",
    type=click.IntRange(1, 400),
    default=90,
    show_default=True,
    help="The evidence is stale after so many days.",
)
@click.option(
    "--audience",
    type=click.Choice([str(one) for one in Audience]),
    default="internal",
    help="Who may read it: a report shows it at that level or a more closed one.",
)
@click.option("--out", type=out_folder(), required=True, help="Folder of evidence.")
@_at
def evidence(
    kind: str,
    file: Path,
    name: str | None,
    bundle: str,
    days: int,
    audience: str,
    out: Path,
    at: int | None,
) -> None:
    """Turn what a command printed with --json into dated evidence.

    \b
    Examples:
      safehold report evidence redteam red.json --bundle SHA256 --out evidence/
      safehold race --json > race.json
      safehold report evidence race race.json --bundle SHA256 --audience public --out evidence/
      safehold bounty list > bounty.json
      safehold report evidence bounty bounty.json --days 30 --out evidence/
      safehold drill heist --json > heist.json
      safehold report evidence heist heist.json --out evidence/
    """
    from safehold.govern.report.adapters import figures_of
    from safehold.govern.report.interface import CaseEvidence

    made = _now(at)
    one = CaseEvidence(
        id=name or kind,
        kind=kind,
        made=made,
        holds_s=days * 86_400,
        bundle=bundle,
        fields=figures_of(kind, read_bytes(file), Audience(audience)),
    )
    _write(out / f"{one.id}.json", msgspec.json.format(msgspec.json.encode(one), indent=1))
    click.echo(f"{out / one.id}.json: {', '.join(one.fields)}")


@report.command("build")
@click.argument("case")
@click.option("--bundle", default="", help="SHA-256 of the live bundle.")
@_controls
@click.option("--met", type=text_file(), help="The signed file of `controls run --valid`.")
@click.option("--controls-key", help="Its signer's verifier key: then that very run was signed.")
@_evidence
@_log
@_keys
@click.option("--standards", help="The document of standards, as `safehold standards` takes it.")
@click.option("--model", help="SHA-256 of the model.")
@click.option("--compute", type=Finite(0, min_open=True), help="Its effective compute.")
@_level
@_at
@click.option("--pdf", is_flag=True, help="Write a PDF beside the page.")
@click.option("--out", type=out_folder(), required=True, help="A folder.")
@json_option
@click.pass_context
def build(
    context: click.Context,
    case: str,
    bundle: str,
    controls: Path | None,
    met: Path | None,
    controls_key: str | None,
    evidence: Path | None,
    log_dir: Path | None,
    log_keys: Path | None,
    standards: str | None,
    model: str | None,
    compute: float | None,
    level: str,
    at: int | None,
    pdf: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Build a report of one level; exit 1 unless every claim is supported.

    \b
    Example:
      safehold report build asl3 --bundle SHA256 --controls controls-run.json \\
          --evidence evidence/ --log DIR --log-keys log.json --level public --out report/
    """
    from safehold.govern.report.build import build_report, report_sha256
    from safehold.govern.report.case import read_case
    from safehold.govern.report.interface import ClaimState
    from safehold.govern.report.render import report_html, report_pdf
    from safehold.govern.report.signing import signers_of

    now = _now(at)
    _signed_run(controls, met, controls_key)
    sources, log = _gather(
        now, bundle, controls, evidence, log_dir, log_keys, standards, model, compute
    )
    made = build_report(read_case(case), sources, Audience(level))
    signers = signers_of(log, report_sha256(made)) if log is not None else ()
    _write(out / "report.json", msgspec.json.format(msgspec.json.encode(made), indent=1))
    _write(out / "report.html", report_html(made, signers).encode())
    if pdf:
        _write(out / "report.pdf", report_pdf(made, signers))
    _show(made, as_json=as_json)
    if any(one.state is not ClaimState.SUPPORTED for one in made.claims):
        context.exit(1)


@report.command("stale")
@click.argument("saved", type=json_file())
@_controls
@_evidence
@_log
@_keys
@_at
@json_option
@click.pass_context
def stale(
    context: click.Context,
    saved: Path,
    controls: Path | None,
    evidence: Path | None,
    log_dir: Path | None,
    log_keys: Path | None,
    at: int | None,
    as_json: bool,
) -> None:
    """List the evidence of a report that holds no longer, or is older than what there is now.

    What there is now: --evidence, --controls and --log, as for `report build`. Exit 1 when there
    is any.

    \b
    Examples:
      safehold report stale report/report.json
      safehold report stale report/report.json --evidence evidence/ --log DIR --log-keys log.json
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.report.currency import outdated

    now = _now(at)
    log = _log_of(log_dir, log_keys)
    late = outdated(_load(saved), now, _found(now, controls, evidence, log))
    if as_json:
        emit([plain(one) for one in late])
    for one in () if as_json else late:
        click.echo(one.words())
    if late:
        context.exit(1)
    if not as_json:
        click.echo("all evidence of the report still holds")


@report.command("verify")
@click.argument("folder", type=in_folder())
@_controls
@_evidence
@_log
@_keys
@_at
@click.pass_context
def verify(
    context: click.Context,
    folder: Path,
    controls: Path | None,
    evidence: Path | None,
    log_dir: Path | None,
    log_keys: Path | None,
    at: int | None,
) -> None:
    """Check that the page is that of the report, who signed it, and that it is not out of date.

    Exit 1 when the log holds no sign-off, or evidence holds no longer or is older than what
    --evidence, --controls and --log have now.

    \b
    Examples:
      safehold report verify report/ --log DIR --log-keys log.json
      safehold report verify report/ --evidence evidence/ --controls controls-run.json
    """
    from safehold.govern.report.build import report_sha256
    from safehold.govern.report.currency import outdated
    from safehold.govern.report.interface import ReportError
    from safehold.govern.report.render import report_html
    from safehold.govern.report.signing import signers_of

    made = _load(folder / "report.json")
    log = _log_of(log_dir, log_keys)
    signers = signers_of(log, report_sha256(made)) if log is not None else ()
    page = read_text(folder / "report.html")
    if page not in {report_html(made, signers), report_html(made)}:
        raise ReportError("the page is not that of report.json, or names signers of its own")
    click.echo(f"SHA-256 {report_sha256(made)}; signed by: {', '.join(signers) or 'nobody'}")
    now = _now(at)
    late = outdated(made, now, _found(now, controls, evidence, log))
    for one in late:
        click.echo(f"out of date: {one.words()}")
    if late or (log is not None and not signers):
        context.exit(1)


@report.command("render")
@click.argument("folder", type=in_folder())
@_log
@_keys
@click.option("--pdf", is_flag=True, help="Write a PDF beside the page.")
def render(folder: Path, log_dir: Path | None, log_keys: Path | None, pdf: bool) -> None:
    """Write the pages of a report.json again, now with the names of who signed it.

    \b
    Example:
      safehold report render report/ --log DIR --log-keys log.json
    """
    from safehold.govern.report.build import report_sha256
    from safehold.govern.report.render import report_html, report_pdf
    from safehold.govern.report.signing import signers_of

    made = _load(folder / "report.json")
    log = _log_of(log_dir, log_keys)
    signers = signers_of(log, report_sha256(made)) if log is not None else ()
    _write(folder / "report.html", report_html(made, signers).encode())
    if pdf:
        _write(folder / "report.pdf", report_pdf(made, signers))
    click.echo(f"signed by: {', '.join(signers) or 'nobody'}")


@report.command("diff")
@click.argument("old", type=json_file())
@click.argument("new", type=json_file())
@json_option
@click.pass_context
def diff(context: click.Context, old: Path, new: Path, as_json: bool) -> None:
    """Say what changed between two reports; exit 1 when anything makes the later one weaker.

    \b
    Example:
      safehold report diff old/report.json new/report.json
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.report.difference import differences

    found = differences(_load(old), _load(new))
    if as_json:
        emit([plain(one) for one in found])
    for one in () if as_json else found:
        click.echo(f"{one.id}: {one.what}{' (weaker)' if one.weakening else ''}")
    if any(one.weakening for one in found):
        context.exit(1)
    if not found and not as_json:
        click.echo("nothing changed")


def _signed_run(controls: Path | None, met: Path | None, key: str | None) -> None:
    """Refuse a saved run that is not the one whose met controls were signed."""
    from safehold.canonical import sha256_hex
    from safehold.govern.report.interface import ReportError
    from safehold.trust.demands.met import read_met
    from safehold.trust.log.note import parse_vkey

    if met is None and key is None:
        return
    if met is None or key is None or controls is None:
        raise UsageError("expected --controls, --met and --controls-key together")
    signed = read_met(read_bytes(met), parse_vkey(key))
    if signed.run_sha256 != sha256_hex(read_bytes(controls)):
        raise ReportError(f"{controls.name} is not the run whose met controls were signed")


def _show(made: "Report", *, as_json: bool) -> None:
    from safehold.cli._trust import emit
    from safehold.govern.report.build import report_sha256

    if as_json:
        emit(made)
        return
    for one in made.claims:
        why = f" ({'; '.join(one.why)})" if one.why else ""
        click.echo(f"{one.id}: {one.state.value}{why}")
    click.echo(f"SHA-256 {report_sha256(made)}")


def _gather(
    at: int,
    bundle: str,
    controls: Path | None,
    folder: Path | None,
    log_dir: Path | None,
    log_keys: Path | None,
    standards: str | None,
    model: str | None,
    compute: float | None,
) -> "tuple[CaseSources, LogReading | None]":
    from safehold.govern.report.gather import doubts_of, of_standing
    from safehold.govern.report.interface import CaseSources
    from safehold.trust.standing.gate import ModelStanding
    from safehold.trust.standing.interface import StandingRecord

    log = _log_of(log_dir, log_keys)
    found = _found(at, controls, folder, log)
    standing: ModelStanding | None = None
    records: tuple[StandingRecord, ...] = ()
    if standards is not None:
        from safehold.govern.standards.library import load_standards
        from safehold.govern.standards.reading import read_log as read_standing
        from safehold.trust.standing.gate import standing_of

        if log_dir is None or log_keys is None or model is None or compute is None:
            raise UsageError("--standards needs --log, --log-keys, --model and --compute")
        document = load_standards(standards)
        records = read_standing(log_dir, log_keys, document).records
        standing = standing_of(document, records, model=model, compute=compute, at=at)
        found += of_standing(standing)
    sources = CaseSources(
        at=at,
        bundle=bundle,
        evidence={one.id: one for one in found},
        doubts=doubts_of(log, standing, records),
    )
    return sources, log


def _found(
    at: int, controls: Path | None, folder: Path | None, log: "LogReading | None"
) -> "list[CaseEvidence]":
    """Return the evidence that a folder, a saved run and a log have now."""
    from safehold.govern.controls.engine import read_again
    from safehold.govern.controls.interface import ControlRun
    from safehold.govern.controls.library import stock_catalogue
    from safehold.govern.report.gather import of_controls, of_log, read_folder

    found = [] if folder is None else list(read_folder(folder))
    if controls is not None:
        run = read_json(controls, ControlRun, "a run that `safehold controls run` saved")
        found += of_controls(read_again(run, stock_catalogue(), at))
    if log is not None:
        found += of_log(log, at)
    return found


def _log_of(log_dir: Path | None, log_keys: Path | None) -> "LogReading | None":
    from safehold.govern.controls.facts.trust_log import read_log

    if (log_dir is None) != (log_keys is None):
        raise UsageError("expected --log DIR with --log-keys FILE, or neither")
    return None if log_dir is None or log_keys is None else read_log(log_dir, log_keys)


def _now(at: int | None) -> int:
    return int(time.time()) if at is None else at


def _load(path: Path) -> "Report":
    from safehold.govern.report.interface import Report

    return read_json(path, Report, "a report of `safehold report build`")


def _write(path: Path, data: bytes) -> None:
    from safehold.govern.report.interface import ReportError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ReportError(f"can't write {path}: {error.strerror}") from error
