"""keyd's own file: TOML, read strictly; every path is meant beside the file."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from safehold.errors import ConfigError
from safehold.secure.endpoint.heartbeat import StaleGuardError, require_guard
from safehold.secure.weights.interface import Hex32, Title
from safehold.secure.weights.keyd.host import measure_host
from safehold.secure.weights.keyd.interface import KeydError
from safehold.secure.weights.keyd.peer import check_code
from safehold.secure.weights.keyd.release import Releaser
from safehold.secure.weights.keyd.service import KeyService
from safehold.secure.weights.providers.config import nobody, open_provider, read_provider
from safehold.secure.weights.signer import SealVerifier
from safehold.secure.weights.storage import replace_file
from safehold.toml_text import parse_toml
from safehold.trust.demands.ask import StandingQuestion, demand
from safehold.trust.grants.grant_service import Desk
from safehold.trust.log.key_files import read_private_key
from safehold.trust.log.keys import read_keys
from safehold.trust.log.note import Algorithm, SigningKey
from safehold.trust.log.store import LogStore
from safehold.trust.log.witness import Witness, create_witness
from safehold.trust.release.interface import ArtefactKind
from safehold.trust.released.follow import ReleaseLog
from safehold.trust.released.interface import ReleaseSettings, beside
from safehold.trust.standing.gate import GatedAction

MEMORY_KEY = "memory.key"
UNRELEASED = "UnsafeUnreleased"
"""The mode of a key service whose configuration no release was asked for."""


class KeydConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one key service is made of."""

    socket: str
    log: str
    """The log's directory."""
    log_keys: str
    """keyd's own copy of `log.json`: never the one in the log's directory."""
    log_key: str
    """File with the log's private key: a release is published before it happens."""
    emitter_key: str
    """File with keyd's own emitter key, which `log.json` must name."""
    memory: str
    """Folder where keyd remembers the largest tree that it has seen."""
    publisher: str
    """Folder with `header.pub.pem` and `manifest.pub.pem`."""
    providers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Provider files."""
    host: Title
    """This host's name, as requests give it."""
    host_sha256: Hex32
    """What `safehold keyd host` printed here."""
    loaders: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)]
    """User ids that may ask."""
    code: tuple[str, ...]
    """Folders whose content is part of every loader's workload."""
    socket_mode: Annotated[int, msgspec.Meta(ge=0, le=0o777)] = 0o660
    endpoint_socket: str = ""
    """The endpoint guard's heartbeat; while it is stale, no key is released. Empty: not asked."""
    endpoint_policy: str = ""
    """SHA-256 of the software policy that the guard must enforce."""
    releases: ReleaseSettings | None = None
    """Where releases come from; with this part, only the released configuration starts."""
    standing: StandingQuestion | None = None
    """The standards whose gate is asked before a key is released. None: not asked."""


def read_config(path: Path) -> KeydConfig:
    """Return the checked configuration, its paths made absolute.

    Raises:
        ConfigError: unreadable, an unknown member, or a value of another kind.
    """
    config = declared(path)
    if bool(config.endpoint_socket) != bool(config.endpoint_policy):
        raise ConfigError(f"{path.name}: expected endpoint_socket and endpoint_policy, or neither")
    base = path.absolute().parent
    socket_path = str(base / config.endpoint_socket) if config.endpoint_socket else ""
    fields = ("socket", "log", "log_keys", "log_key", "emitter_key", "memory", "publisher")
    return msgspec.structs.replace(
        config,
        endpoint_socket=socket_path,
        standing=_placed(config.standing, base),
        **{name: str(base / getattr(config, name)) for name in fields},
        providers=tuple(str(base / name) for name in config.providers),
        code=tuple(str(base / name) for name in config.code),
        releases=None if config.releases is None else beside(config.releases, base),
    )


def declared(path: Path) -> KeydConfig:
    """Return the configuration as the file has it: this is what a release holds.

    Raises:
        ConfigError: unreadable, an unknown member, or a value of another kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return msgspec.convert(parse_toml(text), KeydConfig)
    except OSError as error:
        raise ConfigError(f"can't read {path.name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path.name}: {error}") from error


def admit(path: Path, clock: Callable[[], int]) -> str:
    """Refuse a configuration that is not the released one; return the mode in words.

    Raises:
        ConfigError: the file is malformed.
        TrustError: it names a log of releases, and its settings are not in force there.
    """
    config, placed = declared(path), read_config(path)
    if placed.releases is None:
        return UNRELEASED
    ReleaseLog(placed.releases, clock).admit_settings(ArtefactKind.KEY_SERVICE, config)
    return f"enforcing, channel {placed.releases.channel}"


def _placed(question: StandingQuestion | None, base: Path) -> StandingQuestion | None:
    if question is None:
        return None
    paths = ("document", "log", "log_keys", "controls")
    placed = {name: str(base / getattr(question, name)) for name in paths}
    return msgspec.structs.replace(question, **placed)


def prepare_memory(folder: Path) -> None:
    """Make keyd's memory of the log: once, when the service is set up.

    Raises:
        TrustError: there is one already; a second beginning would forget a rollback.
        StorageError: the disk refused.
    """
    create_witness(folder)
    key = SigningKey.generate("keyd-memory", Algorithm.COSIGNATURE)
    replace_file(folder / MEMORY_KEY, key.text().encode() + b"\n", mode=0o600)


def build_service(config: KeydConfig, clock: Callable[[], int]) -> KeyService:
    """Put the service together and listen.

    Raises:
        ConfigError: keyd runs as a loader's user, or a file is not what it must be.
        TrustError: the log or keyd's memory of it is not sound.
        WeightsError: a provider, the host or the socket is not as it must be.
    """
    # 1. A user of its own: whoever is keyd's user can read keyd's memory.
    if os.geteuid() in config.loaders:
        raise ConfigError(f"expected a user of its own for keyd, got loader {os.geteuid()}")
    # 2. The code that is measured can't be changed by those it measures.
    code = [Path(root) for root in config.code]
    check_code(code, config.loaders)
    # 3. The host is the pinned one, from the first moment.
    found = measure_host().sha256
    if found != config.host_sha256:
        raise KeydError(f"this host measures {found[:16]}, expected {config.host_sha256[:16]}")
    # 4. The log, by the pinned keys.
    pinned = read_keys(Path(config.log_keys))
    store = LogStore(Path(config.log), _key(config.log_key))
    memory = Path(config.memory)
    desk = Desk(store, _key(config.emitter_key), clock, memory=memory / "state.snapshot")
    providers = [open_provider(read_provider(Path(one)), nobody) for one in config.providers]
    releaser = Releaser(
        desk=desk,
        pinned=pinned,
        memory=Witness(memory, _key(str(memory / MEMORY_KEY))),
        providers=providers,
        verifier=SealVerifier.read(Path(config.publisher)),
        host=(config.host, config.host_sha256),
        measure=measure_host,
        loaders=config.loaders,
        endpoint=_endpoint(config),
        standing=_standing(config.standing, clock),
    )
    return KeyService(Path(config.socket), releaser, code, config.socket_mode)


def _endpoint(config: KeydConfig) -> Callable[[], None]:
    """Return what refuses while the endpoint guard does not enforce the pinned policy."""
    path, policy = Path(config.endpoint_socket), config.endpoint_policy

    def check() -> None:
        try:
            require_guard(path, policy)
        except StaleGuardError as error:
            raise KeydError(str(error)) from error

    return check if config.endpoint_socket else lambda: None


def _standing(question: StandingQuestion | None, clock: Callable[[], int]) -> Callable[[str], None]:
    """Return what refuses while the standards in force do not allow a model to be loaded."""

    def check(model: str) -> None:
        if question is not None:
            demand(question, GatedAction.LOAD, at=clock(), model=model)

    return check


def _key(path: str) -> SigningKey:
    return read_private_key(Path(path))
