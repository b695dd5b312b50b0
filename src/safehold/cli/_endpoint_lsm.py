"""`safehold endpoint lsm`: the BPF LSM program, which goes on refusing when its loader is dead."""

import signal
import time
from pathlib import Path

import click
import msgspec

from safehold.cli._endpoint_options import json_option, keys_option, log_option
from safehold.cli._reads import NamedPlace, any_place, in_folder, rows_file

_ANEW_S = 60.0
_pins = click.option(
    "--pins",
    type=NamedPlace(folder=True),
    default="/sys/fs/bpf/safehold",
    show_default=True,
    help="Where the program is pinned.",
)


@click.group("lsm")
def lsm_group() -> None:
    """Refuse in the kernel itself what is not listed: a BPF LSM program.

    It needs `bpf` in the kernel's `lsm=`, and Debian's libbpf1.

    \b
    Examples:
      safehold endpoint compile bpf-lsm rows/ --policy endpoint.toml
      safehold endpoint lsm start rows/allow.jsonl
      safehold endpoint lsm status --json
    """


@lsm_group.command("start")
@click.argument("rows", type=rows_file())
@click.option("--audit", is_flag=True, help="Count what would be refused; refuse nothing.")
@click.option(
    "--cgroup",
    type=in_folder(),
    help="Only for this control group of the first level (none: the whole host).",
)
@click.option(
    "--nameless/--no-nameless",
    default=True,
    show_default=True,
    help="Refuse memory without a file that is made executable (no just-in-time compilers).",
)
@_pins
@json_option
def start(
    rows: Path, audit: bool, cgroup: Path | None, nameless: bool, pins: Path, as_json: bool
) -> None:
    """Load and pin the program, then keep its list true until SIGTERM (root).

    When this command ends, however it ends, the program stays in force: what is listed and
    unchanged runs, everything else is refused. ROWS is what `compile bpf-lsm` wrote.

    \b
    Examples:
      safehold endpoint lsm start rows/allow.jsonl --audit
      safehold endpoint lsm start rows/allow.jsonl --cgroup /sys/fs/cgroup/serving
    """
    from safehold.secure.endpoint.lsm.keys import FileKeys, read_rows
    from safehold.secure.endpoint.lsm.program import AUDIT, ENFORCE, LsmMiss, LsmProgram

    def told(miss: LsmMiss) -> None:
        line = f"refused: {miss.hook} of {miss.device}:{miss.inode} by {miss.name} ({miss.pid})"
        click.echo(msgspec.json.encode(miss) if as_json else line)

    keys = FileKeys(read_rows(rows))
    program = LsmProgram(told)
    count = program.update(keys)
    program.configure(AUDIT if audit else ENFORCE, nameless=nameless, cgroup=cgroup)
    program.pin(pins)
    refused = keys.refused
    facts = {"mode": "audit" if audit else "enforce", "keys": count, "without_key": len(refused)}
    text = f"{facts['mode']}: {count} files listed, {len(refused)} rows without a file as listed"
    click.echo(msgspec.json.encode(facts) if as_json else text)
    ended: list[int] = []
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, _: ended.append(number))
    last = time.monotonic()
    while not ended:
        # A refused file may be a listed one that an update replaced; else once a minute.
        if program.poll() or time.monotonic() - last > _ANEW_S:
            program.update(keys)
            last = time.monotonic()


@lsm_group.command("status")
@_pins
@json_option
def status(pins: Path, as_json: bool) -> None:
    """Say what the program in force counts; an error if none is pinned.

    \b
    Example:
      safehold endpoint lsm status --json
    """
    from safehold.secure.endpoint.lsm.program import state

    found = state(pins)
    mode = ("off", "audit", "enforce")[found.mode % 3]
    text = f"{mode}: {found.asked} asked, {found.refused} refused"
    click.echo(
        msgspec.json.encode({**msgspec.structs.asdict(found), "mode": mode}) if as_json else text
    )


@lsm_group.command("stop")
@click.option("--host", required=True, help="The host's name.")
@_pins
@click.option(
    "--place",
    type=any_place(),
    default="/etc/safehold/endpoint.toml",
    show_default=True,
    help="The installed policy: the memory of the log is beside it.",
)
@log_option
@keys_option
def stop(host: str, pins: Path, place: Path, log_dir: Path | None, key_dir: Path | None) -> None:
    """Take the program out of force: a weakening, which needs a grant of `endpoint.loosen`.

    The grant's resource is `endpoint`, named by the SHA-256 of the word `lsm-stop`. It counts in
    the log that `endpoint memory` pinned, and in no other.

    \b
    Example:
      safehold endpoint lsm stop --host gpu-1 --log log/ --keys keys/
    """
    from safehold.cli._trust import open_desk
    from safehold.secure.endpoint.changing import (
        DeskLoosener,
        Loosener,
        NoLoosening,
        memory_of,
    )
    from safehold.secure.endpoint.lsm.program import STOP_SHA256, remove

    loosener: Loosener = NoLoosening()
    if log_dir is not None:
        loosener = DeskLoosener(open_desk(log_dir, key_dir), memory_of(place))
    grant = loosener.require(STOP_SHA256, host)
    remove(pins)
    click.echo(f"out of force by grant {grant}")
