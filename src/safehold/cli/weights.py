"""`safehold weights`: seal, verify, info, request, load, rewrap, shred, meter."""

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import click

from safehold.cli._places import out_folder
from safehold.cli._reads import in_folder, toml_file
from safehold.cli._trust import log_options, ssh_key_option
from safehold.cli._values import SENTENCE, WholeNumber
from safehold.cli._weights import (
    folder_argument,
    grant_option,
    json_option,
    keyd_option,
    log_keys_option,
    publisher_option,
    signer_option,
)
from safehold.errors import UsageError
from safehold.secure.weights.chunks import DEFAULT_CHUNK_BYTES

_OPERATIONS = ("load", "rewrap", "shred")


@click.group()
def weights() -> None:
    """Seal, check and load model weights.

    \b
    Examples:
      safehold weights keygen publisher/
      safehold weights seal model/ sealed/ --model brewer --version 1 \\
          --signer publisher/ --provider hsm.toml
      safehold weights verify sealed/ --publisher publisher/
      safehold weights request sealed/ --publisher publisher/ --operation load \\
          --host gpu-1 --workload SHA256 --minutes 60 --purpose "serve it" --ticket OPS-1 \\
          --ssh-key ~/.ssh/id_ed25519
      safehold weights load sealed/ --publisher publisher/ --grant ID --log-keys log.json \\
          -- llama-server --model {model.gguf}
    """


@weights.command()
@click.argument("folder", type=out_folder())
def keygen(folder: Path) -> None:
    """Make a publisher's keys: Ed25519 for headers, P-256 for manifests.

    \b
    Example:
      safehold weights keygen publisher/
    """
    from safehold.secure.weights.signer import SealSigner

    signer = SealSigner.generate()
    signer.write(folder)
    click.echo(f"publisher key {signer.verifier.key_id}; give *.pub.pem to whoever verifies")


@weights.command("seal")
@click.argument("source", type=in_folder())
@click.argument("destination", type=out_folder())
@click.option("--model", required=True, help="The model's name, as grants will say it.")
@click.option("--version", required=True, help="Its version.")
@signer_option
@click.option(
    "--provider",
    "providers",
    multiple=True,
    required=True,
    type=toml_file(),
    help="Provider file; several wrap the same key.",
)
@click.option(
    "--digest",
    type=click.Choice(["sha256", "blake3"]),
    default="sha256",
    help="The hash of shards and chunks in the manifest.",
)
@click.option(
    "--chunk-kib",
    type=click.IntRange(64, 1024),
    default=DEFAULT_CHUNK_BYTES // 1024,
    show_default=True,
    help="KiB that are encrypted at once.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted seal.")
@click.option("--discard", "drop", is_flag=True, help="Throw an interrupted seal away first.")
@json_option
def seal_command(
    source: Path,
    destination: Path,
    model: str,
    version: str,
    signer: Path,
    providers: tuple[Path, ...],
    digest: str,
    chunk_kib: int,
    resume: bool,
    drop: bool,
    as_json: bool,
) -> None:
    """Encrypt a folder of weights into a new folder; whole or not at all.

    \b
    Examples:
      safehold weights seal model/ sealed/ --model brewer --version 1 \\
          --signer publisher/ --provider hsm.toml --provider recovery-shares.toml
      safehold weights seal model/ sealed/ --model brewer --version 1 \\
          --signer publisher/ --provider hsm.toml --resume
    """
    from safehold.cli._weights import header_facts, plain_size, progress_bar, providers_of
    from safehold.secure.weights.header import content_id
    from safehold.secure.weights.seal import SealOrder, discard, seal
    from safehold.secure.weights.signer import SealSigner

    if resume and drop:
        raise UsageError("expected --resume or --discard, got both")
    if drop:
        discard(destination)
    order = SealOrder(
        source=source,
        destination=destination,
        model=model,
        version=version,
        created=int(time.time()),
        chunk_bytes=chunk_kib * 1024,
        digest=digest,
        resume=resume,
    )
    opened = providers_of(providers)
    with progress_bar("sealing", plain_size(source), quiet=as_json) as progress:
        header = seal(order, opened, SealSigner.read(signer), progress)
    _print(header_facts(header, content_id(header)), as_json=as_json)


@weights.command()
@folder_argument
@publisher_option
@click.option("--quick", is_flag=True, help="Signatures, names and sizes only.")
@json_option
def verify(folder: Path, publisher: Path, quick: bool, as_json: bool) -> None:
    """Check a sealed model without any decryption key.

    \b
    Examples:
      safehold weights verify sealed/ --publisher publisher/
      safehold weights verify sealed/ --publisher publisher/ --quick --json
    """
    from safehold.cli._weights import plain_size, progress_bar
    from safehold.secure.weights.signer import SealVerifier
    from safehold.secure.weights.verify import verify_sealed

    with progress_bar("verifying", plain_size(folder), quiet=as_json or quick) as progress:
        found = verify_sealed(
            folder, SealVerifier.read(publisher), digests=not quick, progress=progress
        )
    result = {
        "sound": True,
        "depth": "signatures and sizes" if quick else "every sealed byte",
        "model": found.header.model,
        "version": found.header.version,
        "shards": found.shards,
        "sealed_bytes": found.sealed_bytes,
    }
    _print(result, as_json=as_json)


@weights.command()
@folder_argument
@publisher_option
@json_option
def info(folder: Path, publisher: Path, as_json: bool) -> None:
    """Show the verified header: the content id, shards, and who can unwrap.

    \b
    Example:
      safehold weights info sealed/ --publisher publisher/ --json | jq -r .content_sha256
    """
    from safehold.cli._weights import header_facts
    from safehold.secure.weights.header import content_id, open_header, read_header
    from safehold.secure.weights.signer import SealVerifier

    header = open_header(read_header(folder), SealVerifier.read(publisher))
    _print(header_facts(header, content_id(header)), as_json=as_json)


@weights.command()
@folder_argument
@publisher_option
@click.option(
    "--operation",
    type=click.Choice(_OPERATIONS),
    default="load",
    show_default=True,
    help="What may be done with the weights.",
)
@click.option("--part", "parts", multiple=True, help="Only these shards (default: all).")
@click.option("--host", required=True, help="The one host where it may be used.")
@click.option("--workload", required=True, help="What `safehold keyd workload` prints.")
@click.option("--minutes", type=WholeNumber(1), required=True, help="How long it may last.")
@click.option(
    "--uses", type=WholeNumber(1), default=1, show_default=True, help="How often it may be used."
)
@click.option(
    "--purpose", type=SENTENCE, required=True, help="What for, in words that approvers read."
)
@click.option("--ticket", type=SENTENCE, required=True, help="The ticket that this belongs to.")
@click.option("--break-glass", "alone", is_flag=True, help="Ask to act alone, reviewed later.")
@ssh_key_option
@log_options
def request(
    *,
    folder: Path,
    publisher: Path,
    operation: str,
    parts: tuple[str, ...],
    host: str,
    workload: str,
    minutes: int,
    uses: int,
    purpose: str,
    ticket: str,
    alone: bool,
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask for a grant for exactly this sealed content; print the request's id.

    \b
    Example:
      safehold weights request sealed/ --publisher publisher/ --operation shred --host gpu-1 \\
          --workload SHA256 --minutes 60 --purpose "retired" --ticket OPS-9 --ssh-key ada
    """
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import checked
    from safehold.secure.weights.header import content_id, open_header, read_header
    from safehold.secure.weights.keyd.release import CONTENT_FACT
    from safehold.secure.weights.signer import SealVerifier
    from safehold.trust.grants.details import Facts
    from safehold.trust.grants.interface import GrantRequest, Resource

    header = open_header(read_header(folder), SealVerifier.read(publisher))
    named = tuple(header.shard(part).name for part in parts) or ("*",)
    chosen = named if parts else tuple(shard.name for shard in header.shards)
    size = sum(header.shard(name).plain_bytes for name in chosen)
    desk = open_desk(log_dir, key_dir)
    state, now = desk.state, desk.now()
    asked = GrantRequest(
        enclave=state.founding_sha256,
        requester=owner_of(ssh_key, state.roster).id,
        purpose=purpose,
        ticket=ticket,
        operation=f"weights.{operation}",
        resource=Resource(kind="model", name=header.model, version=header.version, parts=named),
        host=host,
        workload_sha256=workload,
        byte_budget=size if operation == "load" else 0,
        uses=uses,
        not_before=now,
        expires=now + minutes * 60,
        nonce=secrets.token_hex(16),
        policy_version=state.policy.version,
        policy_sha256=state.policy.sha256,
        break_glass=alone,
        details=Facts(values={CONTENT_FACT: content_id(header)}),
    )
    if state.policy.rule(asked.operation) is None:
        raise UsageError(f"the policy has no rule for {asked.operation}")
    click.echo(file_request(desk, checked(asked), ssh_key))


@weights.command(context_settings={"ignore_unknown_options": True})
@folder_argument
@publisher_option
@keyd_option
@grant_option
@log_keys_option
@click.option("--part", "parts", multiple=True, help="Only these shards (default: all).")
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Cores that decrypt (default: all, 8 at most)."
)
@click.option("--unsafe-swap", is_flag=True, help="Go on where plaintext could be swapped to disk.")
@json_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def load(
    folder: Path,
    publisher: Path,
    keyd: Path,
    grant: str,
    log_keys: Path,
    parts: tuple[str, ...],
    threads: int | None,
    unsafe_swap: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Decrypt under a grant into locked memory, and run a command on it.

    In the command `{NAME}` becomes the path of shard NAME. When the grant ends the command is
    killed and the memory wiped. Without a command the digests are compared, and that is all.

    \b
    Examples:
      safehold weights load sealed/ --publisher publisher/ --grant ID --log-keys log.json
      safehold weights load sealed/ --publisher publisher/ --grant ID --log-keys log.json \\
          -- llama-server --model {model.gguf} --port 8081
    """
    from safehold.cli._weights import decrypting_threads, plain_size, progress_bar
    from safehold.cli._weights_run import check_command, check_loaded, run_command
    from safehold.secure.weights.header import covers, open_header, read_header
    from safehold.secure.weights.loader import LoadOrder, load_model
    from safehold.secure.weights.signer import SealVerifier
    from safehold.trust.log.keys import read_keys

    order = LoadOrder(
        folder=folder,
        grant=grant,
        keyd=keyd,
        verifier=SealVerifier.read(publisher),
        log_keys=read_keys(log_keys),
        parts=parts or ("*",),
        threads=threads or decrypting_threads(),
        unsafe_swap=unsafe_swap,
    )
    if command:
        header = open_header(read_header(folder), order.verifier)
        check_command(covers(header, order.parts), command)
    began = time.monotonic()
    with progress_bar("loading", plain_size(folder), quiet=as_json) as progress:
        model = load_model(order, progress)
    with model:
        took = time.monotonic() - began
        if command:
            raise SystemExit(run_command(model, command))
        check_loaded(model)
        size = sum(model.header.shard(name).plain_bytes for name in model.names)
        result = {
            "loaded": list(model.names),
            "plain_bytes": size,
            "seconds": round(took, 3),
            "digests": "as published",
            "expires": model.expires,
        }
    _print(result, as_json=as_json)


@weights.command()
@folder_argument
@signer_option
@click.option("--to", "kinds", multiple=True, help="Kinds of keyd's providers to wrap with.")
@keyd_option
@click.option("--grant", help="The request's full id (64 digits).")
@click.option(
    "--unsafe-without-keyd",
    "unsafe",
    multiple=True,
    type=toml_file(),
    help="Unwrap here with this provider file (key files and shares only).",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=toml_file(),
    help="With --unsafe-without-keyd: wrap with this provider file.",
)
@json_option
def rewrap(
    folder: Path,
    signer: Path,
    kinds: tuple[str, ...],
    keyd: Path,
    grant: str | None,
    unsafe: tuple[Path, ...],
    providers: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Wrap the data key anew; only the header changes, however large the model is.

    \b
    Examples:
      safehold weights rewrap sealed/ --signer publisher/ --grant ID --to pkcs11
      safehold weights rewrap sealed/ --signer publisher/ \\
          --unsafe-without-keyd old-shares.toml --provider new-shares.toml
    """
    from safehold.cli._weights import header_facts, providers_of, unsafe_providers
    from safehold.secure.weights.header import content_id, open_header, read_header
    from safehold.secure.weights.keyd.client import ask_once
    from safehold.secure.weights.keyd.interface import Rewrap, Rewrapped
    from safehold.secure.weights.keys import unwrap_data_key
    from safehold.secure.weights.rewrap import rewrapped, store_header, wrap_anew
    from safehold.secure.weights.signer import SealSigner

    keys = SealSigner.read(signer)
    text = read_header(folder)
    header = open_header(text, keys.verifier)
    if unsafe:
        data_key, _ = unwrap_data_key(header, unsafe_providers(unsafe))
        wrapped = wrap_anew(header, data_key, providers_of(providers))
    elif grant is None or not kinds:
        raise UsageError("expected --grant and --to, or --unsafe-without-keyd and --provider")
    else:
        answer: Rewrapped = ask_once(
            keyd, Rewrap(grant=grant, header=text.decode(), to=kinds), Rewrapped
        )
        wrapped = answer.wrapped
    new = rewrapped(header, wrapped)
    store_header(folder, new, keys)
    _print(header_facts(new, content_id(new)), as_json=as_json)
    if not as_json:
        click.echo(
            "copies of the old header still open with the old keys until those are destroyed"
        )


@weights.command()
@folder_argument
@signer_option
@keyd_option
@grant_option
@log_keys_option
@json_option
def shred(
    folder: Path, signer: Path, keyd: Path, grant: str, log_keys: Path, as_json: bool
) -> None:
    """Destroy every key that opens a model, under a two-person grant; sign its tombstone.

    \b
    Example:
      safehold weights shred sealed/ --signer publisher/ --grant ID --log-keys log.json
    """
    from safehold.secure.weights.header import open_header, read_header
    from safehold.secure.weights.keyd.client import ask_once, check_receipt
    from safehold.secure.weights.keyd.interface import Shred, Shredded
    from safehold.secure.weights.rewrap import store_header, tombstone
    from safehold.secure.weights.signer import SealSigner
    from safehold.trust.log.keys import read_keys

    keys = SealSigner.read(signer)
    text = read_header(folder)
    header = open_header(text, keys.verifier)
    answer: Shredded = ask_once(keyd, Shred(grant=grant, header=text.decode()), Shredded)
    check_receipt(answer.receipt, read_keys(log_keys))
    store_header(folder, tombstone(header), keys)
    _print(
        {"shredded": f"{header.model} {header.version}", "report": answer.report}, as_json=as_json
    )


@weights.command()
@folder_argument
@click.option("--budget", help="Bytes that may be read, such as 800GB; 0: none.")
@keyd_option
@click.option("--grant", help="Take budget and end from this grant.")
@json_option
def meter(folder: Path, budget: str | None, keyd: Path, grant: str | None, as_json: bool) -> None:
    """Count reads of the sealed files and refuse them beyond the budget (root, until interrupted).

    It stops readers of these files, root included. A second process keeps the kernel's questions:
    if the meter is killed, readers wait for the next one. It does not stop raw reads of the disk,
    or whoever kills both at once: then everything reads again, and what is read is ciphertext.

    \b
    Examples:
      safehold weights meter sealed/ --budget 0
      safehold weights meter sealed/ --grant ID --json
    """
    from rich.console import Console

    from safehold.cli._weights import parse_size
    from safehold.secure.weights.keyd.client import Lease
    from safehold.secure.weights.keyd.interface import Watching, WatchRequest
    from safehold.secure.weights.meter.budget import Read, Tally
    from safehold.secure.weights.meter.fanotify import open_gate
    from safehold.secure.weights.meter.meter import ReadMeter, sealed_files

    if (budget is None) == (grant is None):
        raise UsageError("expected either --budget or --grant")
    lease = None if grant is None else Lease(keyd, WatchRequest(grant=grant), Watching)
    allowed = parse_size(budget) if budget is not None else lease.answer.byte_budget if lease else 0
    console = Console(stderr=True)

    def report(read: Read, tally: Tally) -> None:
        line = {
            "refused": read.file,
            "pid": read.pid,
            "offset": read.offset,
            "count": read.count,
            "left": tally.left,
        }
        click.echo(json.dumps(line))

    with open_gate(sealed_files(folder)) as gate:
        running = ReadMeter(gate, allowed, on_refusal=report)
        if lease is not None:
            lease.on_end(running.end_grant)

        def ready() -> None:
            if not as_json:
                console.print(f"metering by {running.active.value}, {allowed:,} bytes may be read")
            else:
                click.echo(json.dumps({"active": running.active.value, "budget": allowed}))

        try:
            running.run_held(lambda line: click.echo(f"meter: {line}", err=True), ready)
        finally:
            if lease is not None:
                lease.close()
    done = running.tally
    _print(
        {"charged": done.charged, "allowed": done.allowed, "refused": done.refused},
        as_json=as_json,
    )


def _print(facts: Mapping[str, object], *, as_json: bool) -> None:
    from safehold.cli._visible import visible

    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, list | tuple):
            click.echo(f"{name}:")
            for row in value:
                text = "  ".join(str(one) for one in row.values()) if isinstance(row, dict) else row
                click.echo(f"    {visible(str(text))}")
        else:
            click.echo(f"{name + ':':16} {visible(str(value))}")
