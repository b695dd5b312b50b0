"""`safehold controls`: the catalogue, a run over this host, and what it shows."""

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._controls_accept import (
    accept,
    attest,
    except_command,
    named_owner,
    owner_option,
)
from safehold.cli._places import out_file, out_folder
from safehold.cli._reads import in_folder, json_file, log_folder, read_json, secret_file, toml_file
from safehold.cli._trust import json_option, keys_option, log_options
from safehold.cli._values import POSIX_S
from safehold.errors import UsageError

if TYPE_CHECKING:
    from safehold.govern.controls.interface import ControlResult, ControlRun

_SAVED = "controls-run.json"


@click.group()
def controls() -> None:
    """Safeguards of the enclave, each checked on this host and on the product's own records.

    \b
    Examples:
      safehold controls list --family egr
      safehold controls show egr-03
      safehold controls collect --site controls.toml
      safehold controls run --site controls.toml --out controls-run.json
      safehold controls new-key controls.key
      safehold controls run --site controls.toml --valid controls.note --valid-key controls.key
      safehold controls report controls-run.json --html controls.html
      safehold controls attest iam-01 --owner ana --evidence review.pdf --log trust-log \\
          --ssh-key ~/.ssh/id_ed25519
      safehold controls oscal controls-run.json --out oscal/
      safehold controls drill egress-kill-switch --owner Ada --log trust-log -- \\
          safehold egress drill
    """


for _command in (attest, except_command, accept):
    controls.add_command(_command)


@controls.command("list")
@click.option("--family", help="One family of ids, such as egr.")
@json_option
def list_controls(family: str | None, as_json: bool) -> None:
    """List the catalogue.

    \b
    Example:
      safehold controls list --family egr
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.controls.interface import Assurance
    from safehold.govern.controls.library import stock_catalogue
    from safehold.govern.controls.matrix import gaps

    catalogue = stock_catalogue()
    known = [one.id for one in catalogue.families]
    if family is not None and family.lower() not in known:
        raise UsageError(f"expected a family of {', '.join(known)}; came {family!r}")
    rows = [
        one
        for group in catalogue.families
        if family is None or group.id == family.lower()
        for one in group.control
    ]
    if as_json:
        emit([plain(one) for one in rows])
        return
    for one in rows:
        click.echo(f"{one.id}  {one.kind.value:<10}  {one.way.value:<9}  {one.title}")
    automatic = sum(one.way is Assurance.AUTOMATIC for one in rows)
    click.echo(f"{len(rows)} controls, {automatic} automatic")
    for stage, kind in gaps(catalogue) if family is None else ():
        click.echo(f"gap: no {kind} control at {stage.value}")


@controls.command("show")
@click.argument("control")
@json_option
def show_control(control: str, as_json: bool) -> None:
    """Show one control: what it demands, and what it maps to.

    \b
    Example:
      safehold controls show egr-03
    """
    from safehold.cli._trust import emit
    from safehold.govern.controls.library import stock_catalogue

    one = stock_catalogue().control(control)
    if as_json:
        emit(one)
        return
    click.echo(f"{one.id}: {one.title}\n  {one.kind}, {one.way}, at {one.stage}")
    click.echo(f"  how: {one.how}\n  holds for {one.period_s} s")
    for name in ("nist", "attack", "atlas", "safeguards"):
        click.echo(f"  {name}: {', '.join(getattr(one, name)) or 'none'}")
    click.echo(f"  sl5: {one.sl5}")


@controls.command("collect")
@click.argument("documents", nargs=-1)
@click.option("--site", type=toml_file(), help="controls.toml: paths and lists.")
@json_option
@click.pass_context
def collect(
    context: click.Context, documents: tuple[str, ...], site: Path | None, as_json: bool
) -> None:
    """Write the documents that checks read, from what the parts have; exit 1 if one is missing.

    DOCUMENTS are names such as endpoint or staff; all, when none is given.

    \b
    Examples:
      safehold controls collect --site controls.toml
      safehold controls collect endpoint staff --site controls.toml
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.controls.exports.table import EXPORTERS, export_all
    from safehold.govern.controls.library import read_site

    known = [one.file for one in EXPORTERS]
    unknown = sorted(set(documents) - set(known))
    if unknown:
        raise UsageError(f"expected documents of {', '.join(known)}; came {unknown[0]!r}")
    found = list(export_all(read_site(site), int(time.time()), frozenset(documents)))
    if as_json:
        emit([plain(one) for one in found])
    for one in () if as_json else found:
        click.echo(f"{one.document}: {'not written: ' + one.fault if one.fault else 'written'}")
    if any(one.fault for one in found):
        context.exit(1)


@controls.command("baseline")
@click.option("--site", type=toml_file(), help="controls.toml: paths and lists.")
def baseline(site: Path | None) -> None:
    """Declare what starts by itself now: units, timers and start scripts, by their digests.

    \b
    Example:
      safehold controls baseline --site controls.toml
    """
    from safehold.govern.controls.exports.host import units
    from safehold.govern.controls.library import read_site

    at = read_site(site).export
    found = units(at.units)
    _write(Path(at.baseline), msgspec.json.format(msgspec.json.encode(found), indent=1))
    click.echo(f"{len(found)} files declared in {at.baseline}")


@controls.command("run")
@click.option("--site", type=toml_file(), help="controls.toml: paths and lists.")
@click.option("--family", help="Print one family only; all are judged.")
@click.option(
    "--out", type=out_file(makes_folders=True), default=_SAVED, show_default=True,
    help="Where the run is saved.",
)  # fmt: skip
@click.option(
    "--valid", type=out_file(makes_folders=True), help="Write until when each holds, signed."
)
@click.option(
    "--valid-key",
    type=secret_file(),
    help="The key that signs it (controls new-key).",
)
@click.option(
    "--log",
    "log_dir",
    type=log_folder(),
    envvar="SAFEHOLD_LOG",
    help="Record the run in this log: one leaf with the root of all results.",
)
@keys_option
@json_option
@click.pass_context
def run(
    context: click.Context,
    *,
    site: Path | None,
    family: str | None,
    out: Path,
    valid: Path | None,
    valid_key: Path | None,
    log_dir: Path | None,
    key_dir: Path | None,
    as_json: bool,
) -> None:
    """Read this host once and judge every control; exit 1 unless all are satisfied.

    \b
    Example:
      safehold controls run --site controls.toml --out controls-run.json
    """
    from safehold.canonical import sha256_hex
    from safehold.cli._trust import open_desk, read_signing_key
    from safehold.govern.controls.engine import run_controls
    from safehold.govern.controls.facts.host import LocalHost
    from safehold.govern.controls.library import read_site, stock_catalogue
    from safehold.govern.controls.record import run_record
    from safehold.trust.demands.met import MetControls, met_note

    if (valid is None) != (valid_key is None):
        raise UsageError("expected --valid and --valid-key together: the file is signed")
    signer = None if valid_key is None else read_signing_key(valid_key)
    found = run_controls(stock_catalogue(), LocalHost(), read_site(site))
    if log_dir is not None:
        desk = open_desk(log_dir, key_dir)
        index = desk.record(run_record(found, desk.now()))
        click.echo(f"recorded as leaf {index}", err=True)
    saved = msgspec.json.format(msgspec.json.encode(found), indent=1)
    _write(out, saved)
    if valid is not None and signer is not None:
        until = {one.control: one.until for one in found.results if one.satisfied}
        _write(valid, met_note(MetControls(until, sha256_hex(saved)), signer))
    _print(found.results, family, as_json=as_json)
    if not as_json:
        click.echo(f"read in {found.seconds:g} s; saved as {out}")
    if not all(one.satisfied for one in found.results):
        context.exit(1)


@controls.command("new-key")
@click.argument("path", type=out_file())
@click.option("--name", default="controls", show_default=True, help="Who signs: a host's name.")
def new_key(path: Path, name: str) -> None:
    """Make the key that signs which controls are met; print its verifier key for `standing`.

    \b
    Example:
      safehold controls new-key /etc/safehold/controls.key --name gpu-1.controls
    """
    from safehold.govern.controls.interface import ControlError
    from safehold.trust.log.files import write_new
    from safehold.trust.log.note import SigningKey

    key = SigningKey.generate(name)
    try:
        write_new(path, f"{key.text()}\n".encode())
    except OSError as error:
        raise ControlError(f"{path}: can't be made ({error.strerror})") from error
    click.echo(str(key.verifier))


@controls.command("report")
@click.argument("saved", type=json_file(made_by="`safehold controls run`"), default=_SAVED)
@click.option("--html", "page", type=out_file(makes_folders=True), help="Write the matrix.")
@click.option("--family", help="Print one family only.")
@click.option("--at", type=POSIX_S, help="POSIX seconds; now when left out.")
@click.option(
    "--log",
    "log_dir",
    type=in_folder(),
    help="Refuse a run whose results no leaf of this log holds.",
)
@click.option(
    "--log-keys",
    type=json_file(),
    help="Your pinned copy of the log's log.json (default: the log's own).",
)
@json_option
@click.pass_context
def report(
    context: click.Context,
    *,
    saved: Path,
    page: Path | None,
    family: str | None,
    at: int | None,
    log_dir: Path | None,
    log_keys: Path | None,
    as_json: bool,
) -> None:
    """Read a saved run as it stands now; an old result is stale. Exit 1 unless all hold.

    \b
    Example:
      safehold controls report controls-run.json --html controls.html
    """
    from safehold.govern.controls.engine import read_again
    from safehold.govern.controls.facts.trust_log import read_log
    from safehold.govern.controls.library import stock_catalogue
    from safehold.govern.controls.matrix import matrix_html
    from safehold.govern.controls.record import require_recorded

    found = _read(saved)
    if log_dir is not None:
        require_recorded(found, read_log(log_dir, log_keys or log_dir / "log.json"))
    now = int(time.time()) if at is None else at
    results = read_again(found, stock_catalogue(), now)
    if page is not None:
        text = matrix_html(stock_catalogue(), results, host=found.host, at=now)
        _write(page, text.encode())
    _print(results, family, as_json=as_json)
    if not all(one.satisfied for one in results):
        context.exit(1)


@controls.command("oscal")
@click.argument("saved", type=json_file(made_by="`safehold controls run`"), default=_SAVED)
@click.option("--out", type=out_folder(), required=True, help="A folder.")
def oscal(saved: Path, out: Path) -> None:
    """Write a saved run as OSCAL: catalog, profile and assessment results, checked together.

    \b
    Example:
      safehold controls oscal controls-run.json --out oscal/
    """
    from safehold.govern.controls.engine import read_again
    from safehold.govern.controls.interface import ControlError
    from safehold.govern.controls.library import stock_catalogue
    from safehold.govern.controls.oscal import assessment, catalog, oscal_faults, profile

    found, catalogue = _read(saved), stock_catalogue()
    results = read_again(found, catalogue, found.at)
    documents: dict[str, dict[str, Any]] = {
        "catalog": catalog(catalogue),
        "profile": profile(catalogue, "trestle://catalogs/safehold/catalog.json"),
        "assessment-results": assessment(catalogue, results, host=found.host, at=found.at),
    }
    faults = oscal_faults(*documents.values())
    if faults:
        raise ControlError(f"OSCAL: {faults[0]}")
    for name, document in documents.items():
        _write(out / f"{name}.json", json.dumps(document, indent=1).encode())
        click.echo(f"{out / name}.json")


@controls.command("drill", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True)
@owner_option
@log_options
@click.pass_context
def drill(
    context: click.Context,
    name: str,
    command: tuple[str, ...],
    owner: str,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Run a drill's COMMAND, and append a leaf with its result, how long it took, and who ran it.

    The drill's own result is what COMMAND prints: the leaf has the digests of that and of the
    command line, so that another person can hold a kept copy against it. A command that ends well
    and prints nothing has shown nothing, and its drill has failed.

    \b
    Example:
      safehold controls drill egress-kill-switch --owner Ada --log trust-log -- \\
          safehold egress drill
    """
    from safehold.canonical import canonical
    from safehold.cli._trust import open_desk
    from safehold.trust.log.log_entries import Record

    # Before the drill: what can't be recorded is not drilled.
    desk = open_desk(log_dir, key_dir)
    person = named_owner(desk, owner)
    begun = time.monotonic()
    status, printed, said = _run_and_show(command)
    passed = status == 0 and said
    facts = {
        "drill": name,
        "outcome": "passed" if passed else "failed",
        "seconds": f"{time.monotonic() - begun:.3f}",
        "owner": person.id,
    }
    digests = {"result": printed, "command": hashlib.sha256(canonical(command)).hexdigest()}
    index = desk.record(Record(time=desk.now(), kind="drill", facts=facts, digests=digests))
    why = "" if said else " (it printed nothing)"
    click.echo(f"drill {name} {facts['outcome']} in {facts['seconds']} s: leaf {index}{why}")
    if not passed:
        context.exit(1)


def _run_and_show(command: tuple[str, ...]) -> tuple[int, str, bool]:
    """Run a command, pass on what it prints, and return status, SHA-256 of that, whether any."""
    digest, said = hashlib.sha256(), False
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            if running.stdout is not None:
                while part := os.read(running.stdout.fileno(), 1 << 16):
                    digest.update(part)
                    said = said or bool(part.strip())
                    click.echo(part, nl=False)
            status = running.wait()
    except OSError as error:
        raise UsageError(f"can't run {command[0]}: {error.strerror}") from error
    return status, digest.hexdigest(), said


def _print(results: "tuple[ControlResult, ...]", family: str | None, *, as_json: bool) -> None:
    from safehold.cli._trust import emit, plain
    from safehold.govern.controls.matrix import closing_line

    rows = [one for one in results if family is None or one.control.startswith(family.lower())]
    if as_json:
        emit([plain(one) | {"satisfied": one.satisfied} for one in rows])
        return
    for one in rows:
        why = f": {one.reasons[0]}" if one.reasons else ""
        click.echo(f"{one.control}  {one.status.value}{why}")
    click.echo(closing_line(results))


def _read(path: Path) -> "ControlRun":
    from safehold.govern.controls.interface import ControlRun

    return read_json(path, ControlRun, "a run that `safehold controls run` saved")


def _write(path: Path, data: bytes) -> None:
    from safehold.govern.controls.interface import ControlError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ControlError(f"can't write {path}: {error.strerror}") from error
