"""Provider files: which provider, where, and where its secret is read from. TOML, read strictly."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

import msgspec

from safehold.errors import ConfigError, DependencyError
from safehold.secure.weights.interface import KeyProvider
from safehold.secure.weights.providers.local import UnsafeLocalProvider
from safehold.secure.weights.providers.shares import Ask, ShareProvider
from safehold.toml_text import parse_toml
from safehold.trust.log.key_files import read_secret


class UnsafeLocal(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="unsafe-local"
):
    """Key files in a folder."""

    folder: str


class Shares(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="shares"
):
    """Share files in a folder, and how new keys are split."""

    folder: str
    shares: int = 1
    threshold: int = 1


class Pkcs11(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pkcs11"
):
    """A PKCS#11 token; its PIN is in a file."""

    module: str
    token: str
    pin_file: str


class Vault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="vault"):
    """A transit engine; its token is in a file."""

    url: str
    token_file: str
    mount: str = "transit"


class AwsKms(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="aws-kms"
):
    """AWS KMS; boto3 finds the credentials."""

    region: str
    endpoint: str | None = None


ProviderConfig = UnsafeLocal | Shares | Pkcs11 | Vault | AwsKms
KINDS = ("unsafe-local", "shares", "pkcs11", "vault", "aws-kms")


def read_provider(path: Path) -> ProviderConfig:
    """Return the provider that a file describes; relative paths are meant beside the file.

    Raises:
        ConfigError: unreadable, an unknown kind, or an unknown member.
    """
    try:
        found: ProviderConfig = msgspec.convert(
            parse_toml(path.read_text(encoding="utf-8")), ProviderConfig
        )
    except OSError as error:
        raise ConfigError(f"can't read {path.name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path.name}: {error} (kinds: {', '.join(KINDS)})") from error
    base = path.parent
    match found:
        case UnsafeLocal() | Shares():
            return msgspec.structs.replace(found, folder=str(base / found.folder))
        case Pkcs11():
            return msgspec.structs.replace(found, pin_file=str(base / found.pin_file))
        case Vault():
            return msgspec.structs.replace(found, token_file=str(base / found.token_file))
        case AwsKms():
            return found
        case _:
            assert_never(found)


def open_provider(config: ProviderConfig, ask: Ask) -> KeyProvider:
    """Return the provider.

    Raises:
        ConfigError: its secret can't be read.
        DependencyError: its extra is not installed.
    """
    match config:
        case UnsafeLocal():
            return UnsafeLocalProvider(Path(config.folder))
        case Shares():
            return ShareProvider(
                Path(config.folder), ask, shares=config.shares, threshold=config.threshold
            )
        case Pkcs11():
            with _extra("pkcs11"):
                from safehold.secure.weights.providers.hsm import Pkcs11Provider

            return Pkcs11Provider(config.module, config.token, _secret(config.pin_file))
        case Vault():
            with _extra("vault"):
                from safehold.secure.weights.providers.vault import VaultProvider

            return VaultProvider(config.url, _secret(config.token_file), mount=config.mount)
        case AwsKms():
            with _extra("aws"):
                from safehold.secure.weights.providers.kms import KmsProvider

            return KmsProvider(config.region, endpoint=config.endpoint)
        case _:
            assert_never(config)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DependencyError(f"expected `pip install safehold[{name}]`") from error


def nobody(question: str) -> str:
    """Ask nobody: for services, where no person sits.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"expected a person for this provider: {question}")


def _secret(path: str) -> str:
    file = Path(path)
    try:
        secret = read_secret(file).decode().strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"can't read the secret in {file.name}") from error
    if not secret:
        raise ConfigError(f"{file.name}: expected a secret, got an empty file")
    return secret
