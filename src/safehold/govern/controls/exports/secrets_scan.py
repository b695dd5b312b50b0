"""Secrets that lie where they should not, certificates, and services that speak without TLS."""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from safehold.canonical import sha256_hex
from safehold.govern.controls.facts.documents import Secrets
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import ControlError

_PATTERNS = tuple(
    re.compile(one)
    for one in (
        rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[A-Za-z0-9+/=\s]{40,}",
        rb"\bAKIA[0-9A-Z]{16}\b",
        rb"\b(?:ghp|gho|glpat|xox[abp]|sk)[-_][A-Za-z0-9_-]{20,}",
        rb"(?i)\b(?:password|passwd|secret|token|api_?key)\b[\"']?\s*[:=]\s*[\"']?[^\s\"']{12,}",
        rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    )
)
_MOST_BYTES = 2**20
_MOST_FILES = 20_000
_HISTORIES = (".bash_history", ".zsh_history", ".python_history", ".netrc", ".pypirc")
_TLS_S = 3.0


def secrets(site: Site, log: LogReading, now: int) -> Secrets:
    """Scan the zones' folders, environments and histories; read certificates; try TLS.

    A secret is known by the beginning of its digest. It may lie in a zone, in a file for its owner
    alone; readable by others, in an environment or in a history it is exposed.

    Raises:
        ControlError: no zone is given, or a folder can't be read.
    """
    del log
    at = site.export
    if not at.secret_zones:
        raise ControlError("controls.toml: expected export.secret_zones")
    zones: dict[str, tuple[str, ...]] = {}
    exposed: list[str] = []
    count = 0
    for zone, folders in at.secret_zones.items():
        prints: set[str] = set()
        for path in (one for folder in folders for one in _files(Path(folder))):
            count += 1
            found = set(fingerprints(_head(path)))
            prints |= found
            if found and path.stat().st_mode & 0o077:
                exposed.append(str(path))
        zones[zone] = tuple(sorted(prints))
    for place, data in (*_environments(), *_histories()):
        count += 1
        if set(fingerprints(data)):
            exposed.append(place)
    return Secrets(
        written=now,
        zones=zones,
        exposed=tuple(exposed),
        scanned_files=count,
        certificates=dict(_certificates(at.certificates)),
        plaintext_services=tuple(name for name, to in at.tls.items() if not _speaks_tls(to)),
    )


def fingerprints(data: bytes) -> Iterator[str]:
    """Yield the beginning of the digest of each thing that looks like a secret."""
    for pattern in _PATTERNS:
        for match in pattern.finditer(data):
            yield sha256_hex(match.group(0))[:16]


def _files(folder: Path) -> Iterator[Path]:
    seen = 0
    try:
        for root, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                path = Path(root) / name
                if path.is_file() and not path.is_symlink():
                    seen += 1
                    if seen > _MOST_FILES:
                        raise ControlError(f"{folder} holds more than {_MOST_FILES} files")
                    yield path
    except OSError as error:
        raise ControlError(f"{folder}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error


def _environments() -> Iterator[tuple[str, bytes]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                yield f"the environment of process {folder.name}", (folder / "environ").read_bytes()
            except OSError:
                continue  # it ended


def _histories() -> Iterator[tuple[str, bytes]]:
    for home in (Path("/root"), *sorted(Path("/home").glob("*"))):
        for name in _HISTORIES:
            path = home / name
            if path.is_file():
                yield str(path), _head(path)


def _certificates(patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for pattern in patterns:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            try:
                found = x509.load_pem_x509_certificate(path.read_bytes())
            except (OSError, ValueError) as error:
                raise ControlError(f"{path}: expected a certificate in PEM") from error
            lifetime = found.not_valid_after_utc - found.not_valid_before_utc
            yield path.stem, int(lifetime.total_seconds())


def _speaks_tls(address: str) -> bool:
    """Whether a TLS handshake ends well; whose certificate it is, is another question."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, int(port)), timeout=_TLS_S) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            return wrapped.version() is not None
    except (OSError, ValueError):
        return False
