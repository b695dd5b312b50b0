"""The senders file: who may explain bytes of which flow, with which key, in which file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from safehold.secure.egress.declare.register import Register
from safehold.secure.egress.enforcement.state import write_durably
from safehold.secure.egress.explain.accounting import MAX_OVERHEAD, Overhead
from safehold.secure.egress.explain.ledger import (
    Ed25519Signer,
    Ed25519Verifier,
    ExplainedReader,
    HmacKey,
    Sender,
    Verifier,
)
from safehold.secure.egress.interface import ExplainedRowError, RegisterError
from safehold.toml_text import parse_toml
from safehold.trust.log.key_files import read_secret

MAX_PER_ITEM = 16_384.0
"""More than any handshake, header and close of one reply."""


class _Sender(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    rows: str
    flows: tuple[str, ...]
    public_key: str = ""
    secret_file: str = ""


class _SendersFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    sender: tuple[_Sender, ...]
    overhead: dict[str, Overhead] = {}


class ExplainedSources(msgspec.Struct, frozen=True):
    """Where the rows of explained bytes come from, by sender, and the learned overheads."""

    reader: ExplainedReader | None = None
    files: Mapping[str, Path] = {}
    sender_flows: Mapping[str, frozenset[str]] = {}
    overheads: Mapping[str, Overhead] = {}


def load_sources(path: Path, register: Register) -> ExplainedSources:
    """Read a senders file; its paths are relative to it.

    Raises:
        RegisterError: The file is malformed, or names a flow that is not reconciled.
        ExplainedRowError: A key can't be used.
    """
    raw = _read_senders(path)
    reconciled = {flow.id for flow in register.flows if flow.reconciled}
    senders: dict[str, Sender] = {}
    for item in raw.sender:
        if item.name in senders or not item.flows or set(item.flows) - reconciled:
            raise RegisterError(
                f"{path.name}: expected distinct senders of reconciled flows, at {item.name[:40]!r}"
            )
        senders[item.name] = Sender(_verifier(item, path.parent), frozenset(item.flows))
    for flow, overhead in raw.overhead.items():
        fits = 0 <= overhead.per_byte <= MAX_OVERHEAD and 0 <= overhead.per_item <= MAX_PER_ITEM
        if flow not in reconciled or not fits or not overhead.sigma >= 0:
            raise RegisterError(f"{path.name}: overhead of {flow[:40]!r} is out of bounds")
    return ExplainedSources(
        reader=ExplainedReader(senders),
        files={item.name: path.parent / item.rows for item in raw.sender},
        sender_flows={item.name: frozenset(item.flows) for item in raw.sender},
        overheads=raw.overhead,
    )


def key_files(path: Path) -> tuple[Path, ...]:
    """The key files that a senders file names, in its order.

    Raises:
        RegisterError: The file is malformed.
    """
    names = [item.public_key or item.secret_file for item in _read_senders(path).sender]
    return tuple(path.parent / name for name in names if name)


def _read_senders(path: Path) -> _SendersFile:
    try:
        return msgspec.convert(parse_toml(path.read_text("utf-8")), _SendersFile)
    except OSError as error:
        raise RegisterError(f"{path.name}: can't be read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise RegisterError(f"{path.name}: {str(error)[:120]}") from error


def _verifier(item: _Sender, folder: Path) -> Verifier:
    if bool(item.public_key) == bool(item.secret_file):
        raise ExplainedRowError("a sender has either a public_key or a secret_file")
    if item.secret_file:
        return HmacKey(_read(folder / item.secret_file))
    return load_verifier(folder / item.public_key)


def load_verifier(path: Path) -> Ed25519Verifier:
    """Read a public key; raises ExplainedRowError unless it is Ed25519 in PEM."""
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ExplainedRowError(f"{path.name}: expected a PEM public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ExplainedRowError(f"{path.name}: expected an Ed25519 key")
    return Ed25519Verifier(key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExplainedRowError(f"{path.name}: can't be read ({error.strerror})") from error


def load_signer(path: Path) -> Ed25519Signer:
    """Read a sender's private key; raises ExplainedRowError unless it is Ed25519 in PEM."""
    try:
        key = load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ExplainedRowError(f"{path.name}: expected a PEM private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ExplainedRowError(f"{path.name}: expected an Ed25519 key")
    return Ed25519Signer(key)


def new_key(path: Path) -> Path:
    """Write a new private key, and its public half beside it; return the latter's path."""
    if path.exists():
        raise ExplainedRowError(f"{path.name} exists; keys are not overwritten")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_durably(path, private)
    public = path.with_suffix(".pub.pem")
    form = PublicFormat.SubjectPublicKeyInfo
    write_durably(public, key.public_key().public_bytes(Encoding.PEM, form))
    return public
