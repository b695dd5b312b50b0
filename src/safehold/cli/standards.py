"""`safehold standards`: capability thresholds, the standards they demand, and the gate."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safehold.cli._reads import json_file, log_folder, read_text, rows_file, text_file
from safehold.cli._trust import json_option, log_options, ssh_key_option
from safehold.cli._values import (
    POSIX_S,
    Finite,
)
from safehold.errors import UsageError
from safehold.trust.demands.records import DECIDED, REPORTED
from safehold.trust.grants.operations import OPERATIONS
from safehold.trust.standing.gate import GatedAction

if TYPE_CHECKING:
    from safehold.trust.standing.interface import StandardsDocument, StandingRecord

STARTER = tuple(
    (row.name, row.stock)
    for row in OPERATIONS.values()
    if row.name.startswith(("standards.", "controls.", "report."))
)
"""Rules of grants to begin with: the operation, and how many persons beside the requester."""


@click.group()
def standards() -> None:
    """Thresholds, determinations and standards in force, computed from the log.

    \b
    Examples:
      safehold standards list
      safehold standards show rsp
      safehold standards check my-standards.toml
      safehold standards status rsp --model SHA256 --compute 1e25 --log DIR --log-keys log.json
      safehold standards rules --team t-everybody >> policy.toml
      safehold standards ask standards.activate --document rsp --record act.json --ssh-key KEY
      safehold standards gate rsp serve --model SHA256 --compute 1e25 --log DIR \\
          --log-keys log.json --controls controls.note --controls-key KEY
    """


_history = click.option(
    "--history",
    type=rows_file(),
    help="JSONL of records (unsigned: a draft).",
)
_log = click.option("--log", "log_dir", type=log_folder(), help="The log, or a copy.")
_keys = click.option("--log-keys", type=json_file(), help="Your pinned log.json.")
_model = click.option("--model", required=True, help="SHA-256 of the model.")
_compute = click.option(
    "--compute", type=Finite(0, min_open=True), required=True, help="Its effective compute."
)
_at = click.option("--at", type=POSIX_S, help="POSIX seconds; now when left out.")


@standards.command("list")
@json_option
def list_standards(as_json: bool) -> None:
    """List the stock documents.

    \b
    Example:
      safehold standards list
    """
    from safehold.cli._trust import emit
    from safehold.govern.standards.library import load_standards, stock_names

    found = [load_standards(name) for name in stock_names()]
    if as_json:
        emit([{"id": one.id, "version": one.version, "title": one.title} for one in found])
        return
    for one in found:
        click.echo(f"{one.id} {one.version}: {one.title}")


@standards.command("show")
@click.argument("document")
@json_option
def show_standards(document: str, as_json: bool) -> None:
    """Show a document: thresholds, what they demand, and the least items of a rule-out.

    \b
    Example:
      safehold standards show rsp
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.standards.library import load_standards
    from safehold.trust.demands.document import document_digest
    from safehold.trust.standing.rule_out import least_items

    found = load_standards(document)
    if as_json:
        emit({**plain(found), "sha256": document_digest(found)})
        return
    click.echo(f"{found.title} ({found.id} {found.version})\nsource: {found.source}")
    for threshold in found.thresholds:
        least = least_items(threshold.below, 0.95)
        click.echo(
            f"  {threshold.id}: {threshold.text}\n    demands {', '.join(threshold.requires)}; "
            f"a rule-out shows a rate below {threshold.below:g} (at least {least} items)"
        )
    for standard in found.standards:
        controls = ", ".join(standard.controls) or "none"
        click.echo(f"  {standard.id} ({standard.kind}): {standard.title}; controls: {controls}")


@standards.command("check")
@click.argument("document")
def check_standards(document: str) -> None:
    """Check a document; a contradiction is an error.

    \b
    Example:
      safehold standards check my-standards.toml
    """
    from safehold.govern.standards.library import load_standards
    from safehold.trust.demands.document import document_digest

    found = load_standards(document)
    click.echo(
        f"{found.id} {found.version}: {len(found.thresholds)} thresholds, "
        f"{len(found.standards)} standards, SHA-256 {document_digest(found)}"
    )


@standards.command("status")
@click.argument("document")
@_model
@_compute
@_history
@_log
@_keys
@_at
@json_option
def show_status(
    document: str,
    model: str,
    compute: float,
    history: Path | None,
    log_dir: Path | None,
    log_keys: Path | None,
    at: int | None,
    as_json: bool,
) -> None:
    """Say where a model stands at every threshold, and which standards it demands.

    \b
    Example:
      safehold standards status rsp --model SHA256 --compute 1e25 --log DIR \\
          --log-keys log.json
    """
    from safehold.cli._trust import emit
    from safehold.govern.standards.library import load_standards
    from safehold.trust.standing.gate import standing_of

    records = _records(history, log_dir, log_keys, load_standards(document))
    found = standing_of(
        load_standards(document), records, model=model, compute=compute, at=_now(at)
    )
    if as_json:
        emit(found)
        return
    for one in found.thresholds:
        why = f" ({'; '.join(one.reasons)})" if one.reasons else ""
        click.echo(f"{one.threshold}: {one.status.value.replace('_', ' ')}{why}")
    click.echo(f"demanded: {', '.join(found.required) or 'nothing'}")
    for force in found.active:
        how = [
            word
            for word, is_so in (
                ("as a precaution", force.precautionary),
                ("provisionally", force.provisional),
                (f"without {', '.join(sorted(force.without))}", bool(force.without)),
            )
            if is_so
        ]
        click.echo(f"in force: {force.standard} {', '.join(how)}".rstrip())


@standards.command("rules")
@click.option("--team", required=True, help="Team whose persons decide, such as t-everybody.")
def rules(team: str) -> None:
    """Print starter rules of the grants' policy: standards, controls and reports.

    \b
    Example:
      safehold standards rules --team t-everybody >> policy.toml
    """
    for operation, count in STARTER:
        click.echo(
            f'[[rule]]\noperation = "{operation}"\n'
            f'thresholds = [{{ team = "{team}", count = {count} }}]\n'
            "max_duration_s = 604800\n"
        )


@standards.command("ask")
@click.argument("act", type=click.Choice([*REPORTED, *DECIDED]))
@click.option("--document", required=True, help="The document that the act is under.")
@click.option("--record", type=json_file(), required=True, help="JSON of the act.")
@ssh_key_option
@log_options
def ask(
    act: str, document: str, record: Path, ssh_key: Path, log_dir: Path, key_dir: Path | None
) -> None:
    """Ask for an act under a document of standards; print the request's id.

    \b
    Example:
      safehold standards ask standards.activate --document rsp --record act.json --ssh-key KEY
    """
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import governing_request
    from safehold.govern.standards.library import load_standards
    from safehold.trust.demands.document import document_digest
    from safehold.trust.demands.records import record_fault
    from safehold.trust.grants.details import StandingAct

    details = StandingAct(document_digest(load_standards(document)), read_text(record))
    fault = record_fault(act, details)
    if fault:
        raise UsageError(fault)
    desk = open_desk(log_dir, key_dir)
    requester = owner_of(ssh_key, desk.state.roster)
    request = governing_request(desk.state, requester, act, details, desk.now())
    click.echo(file_request(desk, request, ssh_key))


@standards.command("gate")
@click.argument("document")
@click.argument("action", type=click.Choice([str(one) for one in GatedAction]))
@_model
@_compute
@_history
@_log
@_keys
@_at
@click.option("--controls", type=text_file(), help="What `controls run --valid` wrote.")
@click.option("--controls-key", help="Its signer's verifier key; without one: plain JSON.")
@json_option
@click.pass_context
def ask_gate(
    context: click.Context,
    document: str,
    action: str,
    model: str,
    compute: float,
    history: Path | None,
    log_dir: Path | None,
    log_keys: Path | None,
    at: int | None,
    controls: Path | None,
    controls_key: str | None,
    as_json: bool,
) -> None:
    """Allow an action (exit 0), or say everything that is missing (exit 1).

    \b
    Example:
      safehold standards gate rsp serve --model SHA256 --compute 1e25 --log DIR \\
          --log-keys log.json --controls controls.note --controls-key KEY
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.standards.library import load_standards, read_controls
    from safehold.trust.standing.gate import GateAllowed, gate

    verdict = gate(
        load_standards(document),
        _records(history, log_dir, log_keys, load_standards(document)),
        GatedAction(action),
        model=model,
        compute=compute,
        at=_now(at),
        controls=read_controls(controls, controls_key) if controls else {},
    )
    allowed = isinstance(verdict, GateAllowed)
    if as_json:
        emit({"allowed": allowed, **plain(verdict)})
    elif isinstance(verdict, GateAllowed):
        click.echo(f"{action}: allowed")
    else:
        for reason in verdict.reasons:
            click.echo(f"{action}: refused: {reason}")
    if not allowed:
        context.exit(1)


def _now(at: int | None) -> int:
    return int(time.time()) if at is None else at


def _records(
    history: Path | None,
    log_dir: Path | None,
    log_keys: Path | None,
    document: "StandardsDocument",
) -> "tuple[StandingRecord, ...]":
    from safehold.govern.standards.library import read_history

    if (history is None) == (log_dir is None) or (log_dir is None) != (log_keys is None):
        raise UsageError("expected --log DIR with --log-keys FILE, or --history FILE alone")
    if history is not None:
        click.echo("warning: --history is unsigned: its approvers are claims", err=True)
        return read_history(history)
    if log_dir is None or log_keys is None:
        raise UsageError("expected --log DIR with --log-keys FILE")
    from safehold.govern.standards.reading import read_log

    found = read_log(log_dir, log_keys, document)
    for void in found.voids:
        click.echo(f"warning: {void}", err=True)
    return found.records
