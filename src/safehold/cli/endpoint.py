"""`safehold endpoint`: only what was allowed runs on this host."""

import datetime as dt
import json
import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec

from safehold.cli._endpoint_attack import attack
from safehold.cli._endpoint_floor import compile_command, decoy_group, floor_command
from safehold.cli._endpoint_lsm import lsm_group
from safehold.cli._endpoint_options import json_option, keys_option, log_option
from safehold.cli._places import out_file
from safehold.cli._reads import any_place, json_file, read_text, secret_file, toml_file
from safehold.cli._values import Words
from safehold.errors import ConfigError

_FOLDER = Path("/var/lib/safehold/endpoint")
_LINE = Words(200)
"""As long as a row of the policy holds."""
Command = Callable[..., Any]
# What the guard's own command loads beside its service: it is among what the host needs.
_GUARD_LOADS = ("safehold.trust.release.interface", "safehold.trust.released.follow")

policy_option = click.option(
    "--policy",
    "policy_file",
    type=toml_file(),
    default="endpoint.toml",
    show_default=True,
    help="The software policy.",
)
records_option = click.option(
    "--records",
    type=any_place(),
    default=_FOLDER / "denials.jsonl",
    show_default=True,
    help="Where refusals are written.",
)
socket_option = click.option(
    "--socket",
    "socket_path",
    type=any_place(),
    default="/run/safehold/endpoint.sock",
    show_default=True,
    help="The guard's heartbeat.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def endpoint() -> None:
    """Let only allowed software run where the weights are.

    \b
    Examples:
      safehold endpoint keygen platform platform.key
      safehold endpoint scan inventory.jsonl --host gpu-1 --signer platform.key
      safehold endpoint lint --policy endpoint.toml
      safehold endpoint guard --policy endpoint.toml --dry-run
      safehold endpoint run -- llama-server --model model.gguf
      safehold endpoint attack                  what each engine stops, on this kernel
    """


for _command in (attack, compile_command, decoy_group, floor_command, lsm_group):
    endpoint.add_command(_command)


@endpoint.command()
@click.argument("name")
@click.argument("file", type=out_file())
def keygen(name: str, file: Path) -> None:
    """Make a key that signs inventories; print its public half for the policy.

    \b
    Example:
      safehold endpoint keygen platform platform.key
    """
    from safehold.trust.log.files import write_new
    from safehold.trust.log.note import SigningKey

    key = SigningKey.generate(name)
    try:
        write_new(file, f"{key.text()}\n".encode())
    except OSError as error:
        raise ConfigError(f"can't write {file.name}: {error.strerror}") from error
    click.echo(str(key.verifier))


@endpoint.command("scan")
@click.argument("file", type=out_file(makes_folders=True))
@click.option("--host", required=True, help="The host's name, as its policy has it.")
@click.option(
    "--signer",
    type=secret_file(),
    required=True,
    help="The key that signs the inventory.",
)
@click.option("--root", "roots", multiple=True, help="Folder to scan; may be given again.")
@json_option
def scan_command(
    file: Path, host: str, signer: Path, roots: tuple[str, ...], as_json: bool
) -> None:
    """List what can run on this host, with digests and packages, and sign the list.

    A file is hashed again only when its change time, size or place differ from the last scan.

    \b
    Examples:
      safehold endpoint scan inventory.jsonl --host gpu-1 --signer platform.key
      safehold endpoint scan models.jsonl --host gpu-1 --signer ml.key --root /opt/models
    """
    from safehold.secure.endpoint.inventory.book import write_inventory
    from safehold.secure.endpoint.inventory.scan import (
        ROOTS,
        load_cache,
        packages,
        scan,
        store_cache,
    )
    from safehold.trust.log.key_files import read_private_key

    key = read_private_key(signer)
    memory = file.with_name(file.name + ".cache")
    began = time.monotonic()
    before = load_cache(memory)
    items, cache, missed = scan(roots or ROOTS, before, packages())
    store_cache(memory, cache)
    count = write_inventory(file, items, host, int(time.time()), key)
    kept = sum(1 for path, seen in cache.items() if before.get(path) == seen)
    facts = {
        "files": count,
        "hashed": count - kept,
        "missed": missed,
        "seconds": round(time.monotonic() - began, 1),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{count} files, {count - kept} hashed, in {facts['seconds']} s: {file.name}")
    for line in missed:
        click.echo(f"  not read: {line}", err=True)


@endpoint.command("lint")
@policy_option
@click.option("--elsewhere", is_flag=True, help="This is not the policy's host: look up no paths.")
@json_option
def lint_command(policy_file: Path, elsewhere: bool, as_json: bool) -> None:
    """Name rows that do not do what their author meant; exit 1 for serious ones.

    \b
    Example:
      safehold endpoint lint --policy endpoint.toml
    """
    from safehold.secure.endpoint.inventory.book import read_inventory
    from safehold.secure.endpoint.lint import lint as find
    from safehold.secure.endpoint.service import load

    now = int(time.time())
    loaded = load(policy_file, now)
    base = policy_file.absolute().parent
    policy = loaded.policy
    items = [
        item
        for source in policy.inventory
        for item in read_inventory(base / source.file, source, policy.host, now)
    ]
    found = find(policy, items, _today(), host=not elsewhere)
    if as_json:
        click.echo(msgspec.json.encode(found))
    for one in () if as_json else found:
        mark = "error" if one.serious else "note"
        click.echo(f"{mark}: {one.row or 'policy'}: {one.code}: {one.message}")
    if not found and not as_json:
        click.echo("nothing found")
    if any(one.serious for one in found):
        raise SystemExit(1)


@endpoint.command("guard")
@policy_option
@records_option
@socket_option
@click.option(
    "--leave", multiple=True, help="A path whose file system is left alone; may be given again."
)
@click.option("--dry-run", is_flag=True, help="Say what the policy would stop, and end.")
@click.option(
    "--releases",
    "releases_file",
    type=toml_file(),
    default=None,
    envvar="SAFEHOLD_RELEASES",
    help="TOML file that names the log of releases: only the policy that it released is guarded.",
)
@json_option
def guard_command(
    policy_file: Path,
    records: Path,
    socket_path: Path,
    leave: tuple[str, ...],
    dry_run: bool,
    releases_file: Path | None,
    as_json: bool,
) -> None:
    """Answer the kernel before each program runs (root, until SIGTERM).

    A policy that would stop the guard itself, the shell or the boot is refused, with the row named.
    A second process keeps the kernel's questions: a killed guard means waiting, not running.
    SIGHUP has the policy read again; one that does not hold, or was not released, is told, and the
    old one stays.

    \b
    Examples:
      safehold endpoint guard --policy endpoint.toml --dry-run
      safehold endpoint guard --policy /etc/safehold/endpoint.toml
    """
    from safehold.secure.endpoint.essentials import essentials, stopped, target_of
    from safehold.secure.endpoint.interface import EndpointPolicyError
    from safehold.secure.endpoint.service import PolicyInForce, load, run_guard
    from safehold.trust.release.interface import ArtefactKind
    from safehold.trust.released.follow import ReleaseLog
    from safehold.trust.released.interface import read_release_settings

    loaded = load(policy_file, int(time.time()))
    if dry_run:
        lines = stopped(
            loaded.policy, essentials(), lambda one: target_of(one, loaded.catalogue), _today()
        )
        if as_json:
            click.echo(json.dumps({"stopped": lines, "policy": loaded.sha256}))
        for line in () if as_json else lines:
            click.echo(f"would stop {line}")
        if not lines and not as_json:
            click.echo(f"nothing that the host needs would be stopped; policy {loaded.sha256}")
        if lines:
            raise SystemExit(EndpointPolicyError.exit_status)
        return
    log = None
    if releases_file is not None:
        log = ReleaseLog(read_release_settings(releases_file), time.time)
        log.admit_settings(ArtefactKind.ENDPOINT, loaded.policy)

    def again() -> PolicyInForce:
        found = load(policy_file, int(time.time()))
        if log is not None:
            log.admit_settings(ArtefactKind.ENDPOINT, found.policy)
        return found

    started = {"guarding": loaded.policy.host, "mode": loaded.policy.mode, "policy": loaded.sha256}

    def ready() -> None:
        text = f"{loaded.policy.host}: mode {loaded.policy.mode}, policy {loaded.sha256}"
        click.echo(json.dumps(started) if as_json else text)

    run_guard(
        loaded,
        records=records,
        socket_path=socket_path,
        leave=frozenset(_device(path) for path in leave),
        ready=ready,
        note=lambda said: click.echo(f"guard: {said}", err=True),
        again=again,
    )


@endpoint.command("suggest")
@policy_option
@records_option
@click.option("--owner", type=_LINE, required=True, help="Who answers for the rows.")
@click.option("--reason", type=_LINE, required=True, help="Why they are allowed.")
@click.option("--ticket", type=_LINE, required=True, help="Where it was decided.")
@click.option(
    "--essentials", "needed", is_flag=True, help="Add what this host needs: guard, shell and boot."
)
def suggest_command(
    policy_file: Path, records: Path, owner: str, reason: str, ticket: str, needed: bool
) -> None:
    """Print rows for what learn or audit mode saw: package before digest before path.

    What ran before the guard was never asked about. `--essentials` adds it, so that the policy is
    not refused for stopping the guard itself.

    \b
    Examples:
      safehold endpoint suggest --owner platform --reason "learned in staging" --ticket OPS-7
      safehold endpoint suggest --essentials --owner ops --reason "learned" --ticket OPS-7
    """
    from safehold.secure.endpoint.essentials import needed_records
    from safehold.secure.endpoint.records import read_records
    from safehold.secure.endpoint.service import load
    from safehold.secure.endpoint.suggest import Duty, rows_text, suggested

    loaded = load(policy_file, int(time.time()))
    policy = loaded.policy
    names = frozenset(row.name for row in (*policy.allow, *policy.deny))
    duty = Duty(owner, reason, ticket)
    seen = list(read_records(records))
    if needed:
        for name in _GUARD_LOADS:
            import_module(name)
        seen += needed_records(policy, loaded.catalogue)
    click.echo(rows_text(suggested(seen, duty, names)), nl=False)


@endpoint.command("install")
@click.argument("file", type=toml_file())
@click.option(
    "--place",
    type=any_place(),
    default="/etc/safehold/endpoint.toml",
    show_default=True,
    help="The installed policy.",
)
@log_option
@keys_option
@json_option
def install_command(
    file: Path, place: Path, log_dir: Path | None, key_dir: Path | None, as_json: bool
) -> None:
    """Install a policy; a weaker one (a new allow row, a lower mode) needs a two-party grant.

    The grant counts in the log that `endpoint memory` pinned, and in no other.

    \b
    Examples:
      safehold endpoint install endpoint.toml
      safehold endpoint install endpoint.toml --log trust-log
    """
    from safehold.cli._trust import open_desk
    from safehold.secure.endpoint.changing import (
        DeskLoosener,
        Loosener,
        NoLoosening,
        install,
        memory_of,
    )

    loosener: Loosener = NoLoosening()
    if log_dir is not None:
        loosener = DeskLoosener(open_desk(log_dir, key_dir), memory_of(place))
    grant, found = install(read_text(file), place, loosener)
    facts = {"installed": str(place), "grant": grant, "weaker": [one.path for one in found]}
    if as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo(f"installed {place}" + (f" by grant {grant}" if grant else ""))


@endpoint.command("memory")
@click.option(
    "--log-keys",
    type=json_file(),
    required=True,
    help="Your pinned copy of the founded log's log.json.",
)
@click.option(
    "--place",
    type=any_place(),
    default="/etc/safehold/endpoint.toml",
    show_default=True,
    help="The installed policy: the memory is kept beside it.",
)
def memory_command(log_keys: Path, place: Path) -> None:
    """Pin the log whose grants may loosen the policy: once, when the host is set up.

    \b
    Example:
      safehold endpoint memory --log-keys pinned-log.json
    """
    from safehold.secure.endpoint.changing import memory_of
    from safehold.trust.log.keys import read_keys
    from safehold.trust.log.memory import begin_log_memory

    keys = read_keys(log_keys)
    begin_log_memory(memory_of(place), keys)
    click.echo(f"memory made: {memory_of(place)}; it pins {keys.origin}, and is made once")


@endpoint.command("status")
@socket_option
@json_option
def status_command(socket_path: Path, as_json: bool) -> None:
    """Say what the guard says of itself: mode, policy, marks, refusals; exit 6 if it is silent.

    \b
    Example:
      safehold endpoint status --json
    """
    from safehold.secure.endpoint.heartbeat import read_pulse

    pulse = read_pulse(socket_path)
    if as_json:
        click.echo(msgspec.json.encode(pulse))
        return
    click.echo(f"{pulse.host}: mode {pulse.mode}, policy {pulse.policy}")
    click.echo(
        f"{pulse.asked} asked, {pulse.refused} refused, {pulse.hashed} hashed, "
        f"{pulse.marks} marks, last round {pulse.age_s:.1f} s ago"
    )
    for line in pulse.unmarked:
        click.echo(f"  not marked: {line}")


@endpoint.command("metrics")
@socket_option
def metrics_command(socket_path: Path) -> None:
    """Print the guard's figures in the text form that Prometheus reads.

    \b
    Example:
      safehold endpoint metrics > /var/lib/node_exporter/endpoint.prom
    """
    from safehold.secure.endpoint.heartbeat import read_pulse

    pulse = read_pulse(socket_path)
    figures = {
        "asked_total": pulse.asked,
        "refused_total": pulse.refused,
        "hashed_total": pulse.hashed,
        "marks": pulse.marks,
        "unmarked": len(pulse.unmarked),
        "lost_total": pulse.lost,
        "age_seconds": round(pulse.age_s, 3),
        "enforcing": int(pulse.mode == "enforce"),
    }
    for name, value in figures.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        click.echo(f"# TYPE safehold_endpoint_{name} {kind}")
        click.echo(f"safehold_endpoint_{name} {value}")


@endpoint.command("drift")
@policy_option
@json_option
def drift_command(policy_file: Path, as_json: bool) -> None:
    """Compare this host with its signed inventories; exit 1 if something differs.

    \b
    Example:
      safehold endpoint drift --policy /etc/safehold/endpoint.toml
    """
    from safehold.secure.endpoint.drift import drift as compare
    from safehold.secure.endpoint.inventory.book import read_inventory
    from safehold.secure.endpoint.inventory.scan import load_cache, scan
    from safehold.secure.endpoint.policy import read_policy

    policy = read_policy(policy_file)
    base = policy_file.absolute().parent
    now = int(time.time())
    differs = False
    for source in policy.inventory:
        signed = read_inventory(base / source.file, source, policy.host, now)
        roots = tuple(sorted({"/" + item.path.split("/")[1] for item in signed}))
        items, _, _ = scan(roots, load_cache(base / f"{source.file}.cache"), {})
        found = compare(signed, items)
        differs = differs or found.any
        if as_json:
            click.echo(msgspec.json.encode({"inventory": source.file, "drift": found}))
            continue
        for what in ("new", "changed", "gone"):
            for path in getattr(found, what):
                click.echo(f"{what}: {path}")
    if differs:
        raise SystemExit(1)


@endpoint.command("publish")
@records_option
@click.option("--host", required=True, help="The host's name.")
@log_option
@keys_option
@json_option
def publish_command(
    records: Path, host: str, log_dir: Path | None, key_dir: Path | None, as_json: bool
) -> None:
    """Log what was refused since the last batch: one leaf with its digest, at most one a minute.

    \b
    Example:
      safehold endpoint publish --host gpu-1 --log log/ --keys keys/
    """
    from safehold.cli._trust import open_desk
    from safehold.secure.endpoint.publish import publish as publish_batch

    if log_dir is None:
        raise ConfigError("expected --log: where refusals are published")
    desk = open_desk(log_dir, key_dir)
    memory = records.with_name(records.name + ".published")
    index = publish_batch(records, memory, host, desk.now(), desk.record)
    if as_json:
        click.echo(json.dumps({"leaf": index}))
    else:
        click.echo("nothing is due" if index is None else f"leaf {index}")


@endpoint.command("run", context_settings={"ignore_unknown_options": True})
@click.option("--executable", multiple=True, help="A folder of programs; may be given again.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(executable: tuple[str, ...], command: tuple[str, ...]) -> None:
    """Run a command on the floor: Landlock, seccomp, no memory both writable and executable.

    It holds for the command and everything it starts, for ever, and needs no root and no daemon.

    \b
    Examples:
      safehold endpoint run -- llama-server --model model.gguf
      safehold endpoint run --executable /usr --executable /opt/serve -- /opt/serve/bin/serve
    """
    from safehold.secure.endpoint.engines.confine import confine

    confine(executable or ("/usr", "/bin", "/sbin", "/lib", "/lib64"))
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - this is what the command is for
    except OSError as error:
        raise ConfigError(f"can't run {command[0]}: {error.strerror}") from error


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _device(path: str) -> str:
    try:
        found = Path(path).stat().st_dev
    except OSError as error:
        raise ConfigError(f"can't look at {path}: {error.strerror}") from error
    return f"{os.major(found)}:{os.minor(found)}"
