"""What the commands about trust share: opening the log, and signing with ssh-keygen."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from safehold.cli._reads import log_folder, read_text, text_file
from safehold.errors import DataError, DependencyError, TrustError, UsageError

if TYPE_CHECKING:
    from safehold.trust.grants.approval_text import Words
    from safehold.trust.grants.grant_service import Desk, Pager
    from safehold.trust.grants.interface import GrantRequest
    from safehold.trust.log.note import SigningKey
    from safehold.trust.log.store import LogStore
    from safehold.trust.people.interface import Person, Roster, SshProof
    from safehold.trust.people.statement import Act

Command = TypeVar("Command", bound=Callable[..., Any])
_TEXTS_BEGIN = 28
_COLUMNS = 80
_PREFIX_BYTES = 10  # SSHSIG and its version, before the public key

log_option = click.option(
    "--log",
    "log_dir",
    type=log_folder(),
    default="trust-log",
    envvar="SAFEHOLD_LOG",
    show_default=True,
    help="Directory of the transparency log.",
)
keys_option = click.option(
    "--keys",
    "key_dir",
    type=log_folder(),
    default=None,
    envvar="SAFEHOLD_LOG_KEYS",
    help="Directory of the log's private keys (default: the log's name with .keys).",
)
ssh_key_option = click.option(
    "--ssh-key",
    type=text_file(),
    required=True,
    envvar="SAFEHOLD_SSH_KEY",
    help="Your SSH key file (ssh-ed25519 or sk-ssh-ed25519; the .pub of an agent's key works).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def log_options(command: Command) -> Command:
    """Add --log and --keys."""
    return log_option(keys_option(command))


def key_directory(log_dir: Path, key_dir: Path | None) -> Path:
    """Return where the log's private keys are.

    Raises:
        UsageError: the log is the root of the file system: nothing is beside it.
    """
    if key_dir is not None:
        return key_dir
    named = log_dir if log_dir.name not in {"", ".."} else log_dir.resolve()
    if not named.name:
        raise UsageError(f"expected --keys: beside {log_dir} there is no place for the log's keys")
    return named.with_name(f"{named.name}.keys")


def read_signing_key(path: Path) -> "SigningKey":
    """Return a private key file's key; see `read_private_key`.

    Raises:
        ConfigError: it can't be read, or others can read or replace it.
    """
    from safehold.trust.log.key_files import read_private_key

    return read_private_key(path)


def open_store(log_dir: Path, key_dir: Path | None) -> "LogStore":
    """Return the log, with its private key."""
    from safehold.trust.log.store import LogStore

    return LogStore(log_dir, read_signing_key(key_directory(log_dir, key_dir) / "log.key"))


def open_desk(log_dir: Path, key_dir: Path | None, pager: "Pager | None" = None) -> "Desk":
    """Return the desk of a log, with its private keys and the system's clock."""
    from safehold.trust.grants.grant_service import Desk

    emitter = read_signing_key(key_directory(log_dir, key_dir) / "emitter.key")
    memory = key_directory(log_dir, key_dir) / "state.snapshot"
    store = open_store(log_dir, key_dir)
    return Desk(store, emitter, lambda: int(time.time()), pager, memory=memory)


def sign(ssh_key: Path, act: "Act", document: object) -> "SshProof":
    """Have ssh-keygen sign an act; it asks for passphrase, PIN or touch by itself.

    Raises:
        DependencyError: OpenSSH is not installed.
        TrustError: ssh-keygen refused.
    """
    from safehold.trust.people.statement import NAMESPACE, ssh_message

    return proof_of(sign_text(ssh_key, ssh_message(act, document), NAMESPACE))


def sign_text(ssh_key: Path, message: bytes, namespace: str) -> str:
    """Have ssh-keygen sign bytes in a namespace, and return the armoured signature.

    Raises:
        DependencyError: OpenSSH is not installed.
        TrustError: ssh-keygen refused.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise DependencyError("signing needs ssh-keygen: install the OpenSSH client")
    with tempfile.TemporaryDirectory(prefix="safehold-") as folder:
        path = Path(folder) / "statement"
        path.write_bytes(message)
        done = subprocess.run(
            [program, "-Y", "sign", "-q", "-n", namespace, "-f", str(ssh_key), str(path)],
            check=False,
            stdout=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise TrustError(f"ssh-keygen did not sign with {ssh_key.name}")
        return path.with_suffix(".sig").read_text()


def proof_of(armoured: str) -> "SshProof":
    """Return the proof of an SSHSIG; the key it names is found out, not believed."""
    from safehold.trust.people.interface import SshProof
    from safehold.trust.people.sshsig import dearmour, fingerprint

    signature = dearmour(armoured)
    try:
        blob = base64.b64decode(signature, validate=True)
    except ValueError as error:
        raise TrustError("expected an armoured SSH signature") from error
    length = int.from_bytes(blob[_PREFIX_BYTES : _PREFIX_BYTES + 4], "big")
    key = blob[_PREFIX_BYTES + 4 : _PREFIX_BYTES + 4 + length]
    return SshProof(key_id=fingerprint(key), signature=signature)


def public_half(ssh_key: Path) -> Path:
    """Return the file of an SSH key's public half: `.pub` beside the private one."""
    return ssh_key if ssh_key.suffix == ".pub" else ssh_key.with_name(ssh_key.name + ".pub")


def owner_of(ssh_key: Path, roster: "Roster") -> "Person":
    """Return the enrolled person whose key this is, from the key file's public half.

    Raises:
        TrustError: nobody's, or there is no public half beside it.
    """
    from safehold.trust.people.sshsig import fingerprint

    public = public_half(ssh_key)
    try:
        blob = base64.b64decode(read_text(public).split()[1])
    except (DataError, IndexError, ValueError) as error:
        raise TrustError(f"expected the public key {public.name} beside the private one") from error
    owned = roster.owner(fingerprint(blob))
    if owned is None:
        raise TrustError(f"the key {public.name} belongs to no enrolled person")
    return owned[0]


def file_request(
    desk: "Desk", request: "GrantRequest", ssh_key: Path, told: tuple[str, ...] | None = None
) -> str:
    """Sign and record a request, tell its approvers, and return its SHA-256.

    Args:
        desk: Where it is recorded.
        request: The request.
        ssh_key: Its requester's key.
        told: Programs and webhooks that tell the approvers (None: those of SAFEHOLD_NOTIFY).
    """
    from safehold.cli._notify import tell_approvers
    from safehold.trust.grants.interface import SignedRequest
    from safehold.trust.people.statement import Act

    digest = desk.request(SignedRequest(request, sign(ssh_key, Act.REQUEST, request)))
    targets = tuple(os.environ.get("SAFEHOLD_NOTIFY", "").split()) if told is None else told
    tell_approvers(request, desk.state, targets)
    return digest


def show_words(words: "Words") -> None:
    """Print label and text of what somebody is to sign, so that no text draws outside its place."""
    from safehold.trust.grants.approval_text import laid_out

    # The terminal's own answer: COLUMNS in the environment may be of another one.
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        columns = _COLUMNS
    for label, text in words:
        click.echo(laid_out(label, text, indent=_TEXTS_BEGIN, columns=columns))


def emit(value: object) -> None:
    """Print a value as JSON."""
    from safehold.canonical import canonical

    click.echo(json.dumps(json.loads(canonical(value)), indent=2, ensure_ascii=False))


def plain(value: object) -> Any:
    """Return the JSON form of a value."""
    return msgspec.to_builtins(value, str_keys=True, order="sorted")
