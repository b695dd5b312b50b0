"""`safehold log`: the transparency log."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._places import out_file
from safehold.cli._reads import (
    NamedPlace,
    any_file,
    any_place,
    json_file,
    log_folder,
    read_bytes,
    read_text,
)
from safehold.cli._trust import json_option, keys_option
from safehold.cli._values import KEPT_NUMBER, WholeNumber
from safehold.errors import TrustError, UsageError

if TYPE_CHECKING:
    from safehold.trust.log.note import SigningKey

directory = click.argument("log_dir", type=log_folder())


@click.group()
def log() -> None:
    """The transparency log: append, prove, verify, witness.

    \b
    Examples:
      safehold log init trust-log --origin example.org/enclave
      safehold log append trust-log --kind incident --fact summary="drill"
      safehold log prove trust-log 0 > first.tlog-proof
      safehold log verify COPY --log-keys pinned-log.json
    """


def _write_private(path: Path, key: "SigningKey") -> None:
    from safehold.trust.log.files import write_new
    from safehold.trust.log.interface import LogError
    from safehold.trust.log.key_files import check_key_folder

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except FileExistsError as error:
        raise LogError(
            f"expected a folder for the keys, got another thing: {path.parent}"
        ) from error
    check_key_folder(path.parent)
    try:
        write_new(path, f"{key.text()}\n".encode())
    except FileExistsError as error:
        raise LogError(f"expected no key yet, got {path}") from error
    except OSError as error:
        raise LogError(f"{path}: can't be made ({error.strerror})") from error


@log.command()
@directory
@click.option("--origin", required=True, help="Unique name of the log, such as example.org/log.")
@keys_option
def init(log_dir: Path, origin: str, key_dir: Path | None) -> None:
    """Make an empty log and its keys.

    The private keys go beside the log (LOG.keys), so that a copy of the log holds none.

    \b
    Example:
      safehold log init trust-log --origin example.org/enclave
    """
    from safehold.cli._trust import key_directory
    from safehold.trust.log.interface import LogError
    from safehold.trust.log.keys import LogKeys
    from safehold.trust.log.note import SigningKey
    from safehold.trust.log.store import create_log

    if (log_dir / "checkpoint").exists():
        raise LogError("expected a new directory, got one that holds a log")
    keys = key_directory(log_dir, key_dir)
    key = SigningKey.generate(origin)
    emitter = SigningKey.generate(f"{origin}/desk")
    _write_private(keys / "log.key", key)
    _write_private(keys / "emitter.key", emitter)
    create_log(
        log_dir,
        key,
        LogKeys(origin=origin, key=str(key.verifier), emitters=(str(emitter.verifier),)),
    )
    click.echo(f"made {log_dir}; pin a copy of {log_dir}/log.json wherever you verify")


def _pairs(values: tuple[str, ...], what: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or name in pairs:
            raise UsageError(f"expected {what} as name=value, each name once, got {value[:60]!r}")
        pairs[name] = text
    return pairs


@log.command()
@directory
@click.option("--kind", required=True, help="Kind of record, such as incident or note.")
@click.option("--fact", "facts", multiple=True, help="name=text (public: no secrets).")
@click.option("--digest", "digests", multiple=True, help="name=SHA-256 of what is kept elsewhere.")
@keys_option
def append(
    *,
    log_dir: Path,
    kind: str,
    facts: tuple[str, ...],
    digests: tuple[str, ...],
    key_dir: Path | None,
) -> None:
    """Append a record and publish the tree; print the record's index.

    \b
    Example:
      safehold log append trust-log --kind note --fact text="keys rotated"
    """
    from safehold.cli._trust import open_desk
    from safehold.trust.log.log_entries import Record

    value = {
        "type": "record",
        "time": int(time.time()),
        "kind": kind,
        "facts": _pairs(facts, "a fact"),
        "digests": _pairs(digests, "a digest"),
    }
    try:
        record = msgspec.convert(value, Record)
    except msgspec.ValidationError as error:
        raise UsageError(f"the record: {error}") from error
    click.echo(open_desk(log_dir, key_dir).record(record))


@log.command()
@directory
@keys_option
def checkpoint(log_dir: Path, key_dir: Path | None) -> None:
    """Publish what is pending, and print the signed checkpoint.

    \b
    Example:
      safehold log checkpoint trust-log
    """
    from safehold.cli._trust import open_store

    store = open_store(log_dir, key_dir)
    store.publish()
    click.echo(read_text(log_dir / "checkpoint"), nl=False)


@log.command()
@directory
@click.argument("index", type=KEPT_NUMBER)
@click.option(
    "--witnessed", is_flag=True, help="Prove it in the newest tree that witnesses cosigned."
)
def prove(log_dir: Path, index: int, witnessed: bool) -> None:
    """Print a self-contained proof that entry INDEX is in the log (C2SP tlog-proof).

    Needs no private key: a copy of the log will do. The proof carries the cosignatures of its tree.

    \b
    Examples:
      safehold log prove trust-log 7 > seven.tlog-proof
      safehold log prove trust-log 7 --witnessed > seven.tlog-proof
    """
    from safehold.trust.log.checkpoint import open_checkpoint
    from safehold.trust.log.files import DirectorySource
    from safehold.trust.log.interface import LogError
    from safehold.trust.log.keys import read_keys
    from safehold.trust.log.merkle import prove_inclusion
    from safehold.trust.log.proof import encode_proof
    from safehold.trust.log.tiles import TileReader

    source = DirectorySource(log_dir)
    data = source.read("checkpoint")
    if data is None:
        raise LogError(f"expected a log in {log_dir}")
    key = read_keys(log_dir / "log.json").log_key()
    head, _ = open_checkpoint(data, key)
    cosigned = source.read("witnessed")
    if cosigned is None and witnessed:
        raise LogError("expected a tree that witnesses cosigned: see `safehold log witness`")
    if cosigned is not None:
        seen, _ = open_checkpoint(cosigned, key)
        if witnessed or seen == head:
            head, data = seen, cosigned
    reader = TileReader(source, head)
    click.echo(encode_proof(prove_inclusion(index, head.size, reader.node), data), nl=False)


@log.command()
@directory
@click.argument("index", type=KEPT_NUMBER)
@click.option("--entry", is_flag=True, help="Print the raw entry, as it is hashed.")
def show(log_dir: Path, index: int, entry: bool) -> None:
    """Print one leaf: its statement, after checking its signature.

    \b
    Example:
      safehold log show trust-log 0
    """
    from safehold.cli._trust import emit
    from safehold.trust.log.checkpoint import open_checkpoint
    from safehold.trust.log.dsse import open_envelope
    from safehold.trust.log.files import DirectorySource
    from safehold.trust.log.interface import LogError
    from safehold.trust.log.keys import read_keys
    from safehold.trust.log.tiles import WIDTH, TileReader

    source = DirectorySource(log_dir)
    keys = read_keys(log_dir / "log.json")
    data = source.read("checkpoint")
    if data is None:
        raise LogError(f"expected a log in {log_dir}")
    head, _ = open_checkpoint(data, keys.log_key())
    if not 0 <= index < head.size:
        raise LogError(f"expected an index below {head.size}, got {index}")
    raw = TileReader(source, head).bundle(index // WIDTH)[index % WIDTH]
    if entry:
        click.echo(raw, nl=False)
    else:
        emit(open_envelope(raw, keys.emitter_keys())[0])


@log.command()
@click.argument("target", type=NamedPlace(exists=True))
@click.option(
    "--log-keys",
    "keys_file",
    type=json_file(),
    help="The log.json that you pinned. Without it the copy vouches for itself.",
)
@click.option(
    "--keys", "earlier", type=json_file(), hidden=True, help="The earlier name of --log-keys."
)
@click.option(
    "--witnesses",
    default=0,
    show_default=True,
    type=WholeNumber(0),
    help="Cosignatures that must be there.",
)
@click.option(
    "--at-least", default=0, type=KEPT_NUMBER, help="Number of leaves you have seen before."
)
@click.option(
    "--entry",
    "entry_file",
    type=any_file(),
    help="TARGET is a .tlog-proof: the raw entry it is about.",
)
@json_option
def verify(
    *,
    target: Path,
    keys_file: Path | None,
    earlier: Path | None,
    witnesses: int,
    at_least: int,
    entry_file: Path | None,
    as_json: bool,
) -> None:
    """Verify a copy of a log, or one proof, offline and with public keys only.

    Every leaf's signature and type, every tile, the root, the witnesses, and then the life of
    every grant by the rules: what the rules do not allow is listed as void. Of one proof: the entry
    in its tree, and what --witnesses and --at-least ask of that tree.

    \b
    Examples:
      safehold log verify COPY --log-keys pinned-log.json --witnesses 2 --at-least 1000
      safehold log verify seven.tlog-proof --entry seven.json --log-keys pinned-log.json
    """
    from rich.console import Console
    from rich.progress import Progress

    from safehold.api.logs import verify_log
    from safehold.cli._trust import emit
    from safehold.trust.clock import SKEW_S
    from safehold.trust.log.keys import read_keys
    from safehold.trust.log.proof import check_proof

    if keys_file is not None and earlier is not None:
        raise UsageError("expected --log-keys once: --keys is its earlier name")
    keys_file = keys_file or earlier
    console = Console(stderr=True)
    if keys_file is None and entry_file is None:
        console.print(
            "warning: keys from the copy itself: this shows integrity, not whose log it is",
            style="yellow",
        )
    if entry_file is not None:
        if keys_file is None:
            raise UsageError("expected --log-keys: a proof does not say whose log it must be")
        proved = check_proof(
            read_text(target),
            read_bytes(entry_file),
            read_keys(keys_file),
            need_witnesses=witnesses,
            at_least=at_least,
        )
        head = proved.checkpoint
        if as_json:
            emit(
                {
                    "origin": head.origin,
                    "index": proved.index,
                    "size": head.size,
                    "root": head.root.hex(),
                    "witnesses": proved.witnesses,
                }
            )
            return
        click.echo(f"ok: entry {proved.index} is in {head.origin} at size {head.size}")
        click.echo(f"witnesses: {', '.join(proved.witnesses) or 'none'}")
        return
    with Progress(console=console, transient=True, disable=as_json) as progress:
        task = progress.add_task("verifying leaves", total=None)
        found = verify_log(
            target,
            keys_file or target / "log.json",
            witnesses=witnesses,
            at_least=at_least,
            progress=lambda done: progress.update(task, completed=done),
        )
    if as_json:
        voids = [{"index": index, "reason": reason} for index, reason in found.voids]
        emit({**msgspec.to_builtins(found), "voids": voids})
        return
    click.echo(f"ok: {found.size} leaves of {found.origin}, all as signed")
    click.echo(f"witnesses: {', '.join(found.witnesses) or 'none'} at {found.witnessed_size}")
    for index, reason in found.voids:
        click.echo(f"void: leaf {index} has no effect: {reason}")
    if found.seconds_ahead > SKEW_S:
        click.echo(
            f"ahead: the newest leaf lies {found.seconds_ahead} s ahead of this clock: a fast "
            "clock wrote it; see `safehold grant correct-clock`"
        )


@log.command("add-key")
@directory
@click.argument("vkey")
def add_key(log_dir: Path, vkey: str) -> None:
    """Name another public key in log.json: a witness's (type 4) or an emitter's (type 1).

    Pinned copies of log.json change only when you copy it again.

    \b
    Example:
      safehold log add-key trust-log "witness.example/w1+1a2b3c4d+BA..."
    """
    from safehold.trust.log.interface import LogError
    from safehold.trust.log.keys import read_keys, write_keys
    from safehold.trust.log.note import Algorithm, parse_vkey

    key = parse_vkey(vkey)
    keys = read_keys(log_dir / "log.json")
    if key.algorithm is Algorithm.COSIGNATURE:
        new = msgspec.structs.replace(keys, witnesses=(*keys.witnesses, str(key)))
    else:
        new = msgspec.structs.replace(keys, emitters=(*keys.emitters, str(key)))
    if str(key) in (*keys.witnesses, *keys.emitters):
        raise LogError("expected a new key, got one that log.json names")
    write_keys(log_dir / "log.json", new)
    click.echo(f"added {key.label}")


@log.command("keygen")
@click.argument("path", type=out_file(makes_folders=True))
@click.option("--name", required=True, help="The service's name, such as example.org/keyd.")
def keygen(path: Path, name: str) -> None:
    """Make the private key of another service that emits leaves; print its public key.

    \b
    Examples:
      safehold log keygen keyd.key --name example.org/keyd
      safehold log add-key trust-log "$(safehold log keygen keyd.key --name example.org/keyd)"
    """
    from safehold.trust.log.note import SigningKey

    key = SigningKey.generate(name)
    _write_private(path, key)
    click.echo(str(key.verifier))


@log.command()
@click.argument("target", type=log_folder())
@click.option(
    "--state",
    type=any_place(),
    required=True,
    help="The witness's memory and key: on another machine, kept by other people.",
)
@click.option("--init", "name", default=None, metavar="NAME", help="First make the witness NAME.")
@click.option(
    "--log-keys",
    type=json_file(),
    default=None,
    help="The log.json that the witness pinned.",
)
@click.option("--attach", "attached", is_flag=True, help="Store the cosignature in the log.")
def witness(
    *, target: Path, state: Path, name: str | None, log_keys: Path | None, attached: bool
) -> None:
    """Cosign a log's checkpoint, if it holds everything this witness ever cosigned.

    A smaller or a forked tree is refused; a lost memory refuses to start.

    \b
    Examples:
      safehold log witness trust-log --state w1 --init witness.example/w1
      safehold log witness trust-log --state w1 --attach
    """
    from safehold.cli._trust import read_signing_key
    from safehold.trust.log.files import DirectorySource
    from safehold.trust.log.keys import read_keys
    from safehold.trust.log.note import Algorithm, SigningKey
    from safehold.trust.log.witness import Witness, attach, create_witness

    if name is not None:
        create_witness(state)
        key = SigningKey.generate(name, Algorithm.COSIGNATURE)
        _write_private(state / "witness.key", key)
        click.echo(str(key.verifier))
        return
    key = read_signing_key(state / "witness.key")
    keys = read_keys(log_keys or target / "log.json")
    note = Witness(state, key).cosign_copy(
        DirectorySource(target), keys.log_key(), int(time.time())
    )
    if attached:
        attach(target, str(note).encode(), keys.log_key(), keys.witness_keys())
    click.echo(str(note), nl=False)


@log.command("list")
@directory
@json_option
def list_(log_dir: Path, as_json: bool) -> None:
    """List the log's leaves: index, kind, time.

    \b
    Example:
      safehold log list trust-log
    """
    from safehold.cli._trust import emit
    from safehold.trust.grants.approval_text import utc
    from safehold.trust.grants.interface import GrantError
    from safehold.trust.log.checkpoint import open_checkpoint
    from safehold.trust.log.dsse import open_envelope
    from safehold.trust.log.files import DirectorySource
    from safehold.trust.log.keys import read_keys
    from safehold.trust.log.log_entries import kind_of, read_leaf
    from safehold.trust.log.tiles import TileReader

    source = DirectorySource(log_dir)
    keys = read_keys(log_dir / "log.json")
    data = source.read("checkpoint")
    if data is None:
        raise GrantError(f"expected a log in {log_dir}")
    head, _ = open_checkpoint(data, keys.log_key())
    rows: list[tuple[int, str, int]] = []
    for index, raw in TileReader(source, head).entries():
        try:
            leaf = read_leaf(open_envelope(raw, keys.emitter_keys())[0])
        except TrustError:
            rows.append((index, "void", 0))
        else:
            rows.append((index, kind_of(leaf), leaf.time))
    if as_json:
        emit([{"index": index, "kind": kind, "time": at} for index, kind, at in rows])
        return
    for index, kind, at in rows:
        click.echo(f"{index:>8}  {utc(at)}  {kind}")
