"""`safehold endpoint floor`, `compile` and `decoy`: what is put on a host beside the guard."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._endpoint_options import json_option, keys_option, log_option
from safehold.cli._places import out_file, out_folder
from safehold.cli._reads import any_place, toml_file
from safehold.errors import ConfigError, UsageError
from safehold.secure.endpoint.decoys import Lure
from safehold.secure.endpoint.engines.table import ENGINES

if TYPE_CHECKING:
    from safehold.trust.log.log_entries import Record

_Command = Callable[..., Any]
_Tell = Callable[[str, bytes, "Record"], None]
_BOOK = Path("/var/lib/safehold/endpoint/decoys.json")


@click.command("floor")
@click.option("--apply", "names", multiple=True, help="Close this part now; may be given again.")
@click.option("--sysctl", is_flag=True, help="Print lines for /etc/sysctl.d and end.")
@json_option
def floor_command(names: tuple[str, ...], sysctl: bool, as_json: bool) -> None:
    """Check the kernel's settings and mounts under every engine; exit 1 while one is open.

    \b
    Examples:
      safehold endpoint floor
      safehold endpoint floor --apply vm.memfd_noexec --apply /dev/shm
      safehold endpoint floor --sysctl > /etc/sysctl.d/50-safehold.conf
    """
    from safehold.secure.endpoint.floor import FloorState, apply, check, persistent
    from safehold.secure.fanotify.mounts import parse_mountinfo

    for name in names:
        apply(name)
    parts = check(parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8")))
    if sysctl:
        click.echo(persistent(parts), nl=False)
        return
    if as_json:
        click.echo(msgspec.json.encode(parts))
    for part in () if as_json else parts:
        click.echo(f"{part.state:6} {part.name} ({part.found})")
        click.echo(f"       closes: {part.closes}; costs: {part.cost}")
    if any(part.state is FloorState.OPEN for part in parts):
        raise SystemExit(1)


@click.command("compile")
@click.argument("engine", type=click.Choice([one.name for one in ENGINES]))
@click.argument("folder", type=out_folder())
@click.option(
    "--policy",
    "policy_file",
    type=toml_file(),
    default="endpoint.toml",
    show_default=True,
    help="The software policy.",
)
@json_option
def compile_command(engine: str, folder: Path, policy_file: Path, as_json: bool) -> None:
    """Write the policy as another engine's own files, and say what that engine does not see.

    \b
    Examples:
      safehold endpoint compile fapolicyd out/
      safehold endpoint compile systemd out/ --policy /etc/safehold/endpoint.toml
    """
    from safehold.secure.endpoint.inventory.book import read_inventory
    from safehold.secure.endpoint.policy import read_policy

    policy = read_policy(policy_file)
    base, now = policy_file.absolute().parent, int(time.time())
    items = [
        item
        for source in policy.inventory
        for item in read_inventory(base / source.file, source, policy.host, now)
    ]
    (chosen,) = [one for one in ENGINES if one.name == engine]
    files = chosen.compile(policy, items)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't write {folder.name}: {error.strerror}") from error
    blind = {one.name: one.reason for one in chosen.blind}
    if as_json:
        click.echo(json.dumps({"files": sorted(files), "blind": blind}))
        return
    for name in sorted(files):
        click.echo(f"wrote {folder / name}")
    for name, reason in blind.items():
        click.echo(f"not seen by {engine}: {name}: {reason}")


@click.group("decoy")
def decoy_group() -> None:
    """Place, rotate and watch false weights, keys, credentials and services.

    \b
    Examples:
      safehold endpoint decoy place weights /srv/models/next/model.safetensors
      safehold endpoint decoy rotate
      safehold endpoint decoy watch --host gpu-1 --cases cases/ --log log/ --keys keys/
      safehold endpoint decoy serve --service admin=2222 --host gpu-1 --cases cases/
    """


_book = click.option(
    "--book",
    type=any_place(),
    default=_BOOK,
    show_default=True,
    help="The list of decoys: it tells which files are false.",
)


@decoy_group.command("place")
@click.argument("lure", type=click.Choice([one.value for one in Lure]))
@click.argument("path", type=out_file(makes_folders=True))
@_book
def place(lure: str, path: Path, book: Path) -> None:
    """Write one decoy; never over something that is there.

    \b
    Example:
      safehold endpoint decoy place key /srv/backup/release.key
    """
    from safehold.secure.endpoint.decoys import read_book, store_book, write

    known = read_book(book)
    made = write(path, Lure(lure), int(time.time()))
    store_book(book, (*known, made))
    click.echo(f"placed {lure}")


@decoy_group.command("rotate")
@_book
def rotate(book: Path) -> None:
    """Write every decoy anew; restart `watch` afterwards: it watches files, not names.

    \b
    Example:
      safehold endpoint decoy rotate
    """
    from safehold.secure.endpoint.decoys import Decoy, read_book, store_book, write

    now = int(time.time())
    fresh: list[Decoy] = [write(Path(one.path), one.lure, now, one) for one in read_book(book)]
    store_book(book, fresh)
    click.echo(f"rotated {len(fresh)}")


def _telling(command: _Command) -> _Command:
    """Add the options that say where touches are told."""
    host = click.option("--host", required=True, help="The host's name.")
    cases = click.option(
        "--cases",
        type=out_folder(),
        required=True,
        help="Folder that gets one file for each touch.",
    )
    return host(cases(log_option(keys_option(command))))


def _teller(cases: Path, log_dir: Path | None, key_dir: Path | None) -> "_Tell":
    """Return what writes a case and its leaf."""
    from safehold.cli._trust import open_desk

    desk = open_desk(log_dir, key_dir) if log_dir is not None else None
    try:
        cases.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't make {cases}: {error.strerror}") from error

    def tell(name: str, data: bytes, leaf: "Record") -> None:
        click.echo(data)
        handle = os.open(cases / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, data + b"\n")
        os.close(handle)
        if desk is not None:
            desk.record(leaf)

    return tell


@decoy_group.command("watch")
@_telling
@_book
def watch(host: str, cases: Path, log_dir: Path | None, key_dir: Path | None, book: Path) -> None:
    """Tell every touch of a decoy (root, until SIGTERM): a case, and a leaf in the log.

    \b
    Example:
      safehold endpoint decoy watch --host gpu-1 --cases cases/ --log log/ --keys keys/
    """
    from safehold.secure.endpoint.decoys import DecoyWatch, Touch, leaf, read_book
    from safehold.secure.fanotify.group import Group
    from safehold.secure.fanotify.hold import Holder

    tell = _teller(cases, log_dir, key_dir)

    def told(touch: Touch) -> None:
        name = f"decoy-{touch.time}-{touch.pid}.json"
        tell(name, msgspec.json.encode(touch), leaf(touch, host))

    watching = DecoyWatch(read_book(book), told, lambda: int(time.time()))
    with Group() as group:
        holder = Holder(group, watching.work, note=lambda line: click.echo(line, err=True))
        holder.take_signals()
        watching.mark(group)
        holder.run()


@decoy_group.command("serve")
@click.option(
    "--service", "services", multiple=True, required=True, metavar="NAME=PORT",
    help="A decoy service and its port; may be given again.",
)  # fmt: skip
@_telling
def serve(
    services: tuple[str, ...],
    host: str,
    cases: Path,
    log_dir: Path | None,
    key_dir: Path | None,
) -> None:
    """Listen where nobody has business, until SIGTERM; each visit is a case, and a leaf in the log.

    \b
    Example:
      safehold endpoint decoy serve --service admin=2222 --host gpu-1 --cases cases/ --log log/
    """
    from safehold.secure.endpoint.decoy_service import (
        DecoyListener,
        DecoyService,
        Visit,
        visit_leaf,
    )

    tell = _teller(cases, log_dir, key_dir)

    def told(visit: Visit) -> None:
        name = f"decoy-{visit.time}-{visit.service}-{visit.said_sha256[:8]}.json"
        tell(name, msgspec.json.encode(visit), visit_leaf(visit, host))

    found = []
    for one in services:
        name, _, port = one.partition("=")
        try:
            found.append(msgspec.convert({"name": name, "port": int(port)}, DecoyService))
        except (ValueError, msgspec.ValidationError) as error:
            raise UsageError(f"--service {one!r}: expected NAME=PORT") from error
    listener = DecoyListener(found, told, lambda: int(time.time()))
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    try:
        while not ended.is_set():
            listener.answer(0.5)
    finally:
        listener.close()
