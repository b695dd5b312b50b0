"""How each kind of artefact is read from disk, as whoever enforces its release reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from safehold.cli._reads import Form, check, read_bytes, read_text
from safehold.errors import ConfigError, UsageError
from safehold.toml_text import parse_toml
from safehold.trust.release.interface import ArtefactKind

if TYPE_CHECKING:
    from safehold.trust.release.interface import Artefact

PROPOSED = ".next"
"""How the file of a trial's step ends before it is in force."""


def read_artefact(kind: ArtefactKind, path: Path) -> "Artefact":
    """Return the artefact that a file or folder is now.

    Raises:
        SafeholdError: it can't be read, or is not of its kind.
    """
    from safehold.canonical import canonical, sha256_hex
    from safehold.trust.release.interface import Artefact
    from safehold.trust.release.weaker import settings_document

    if kind is ArtefactKind.GOLDEN:
        return _golden(path)
    if kind in {ArtefactKind.BUNDLE, ArtefactKind.RULES, ArtefactKind.PRODUCT}:
        return _by_bytes(kind, path)
    if kind in _FORMS:
        check(path, _FORMS[kind])
    settings = _READERS[kind](path)
    document: Any = settings_document(settings)
    name = _name(path)
    if kind is ArtefactKind.TRIAL:
        name = name.removesuffix(PROPOSED)  # the step that is signed follows the one in force
    return Artefact(path=name, kind=kind, sha256=sha256_hex(canonical(document)), document=document)


def parse_artefact(text: str) -> "Artefact":
    """Return the artefact of KIND=PATH.

    Raises:
        UsageError: another form, or an unknown kind.
    """
    name, separator, path = text.partition("=")
    if not separator or name not in list(ArtefactKind):
        kinds = ", ".join(ArtefactKind)
        raise UsageError(f"expected KIND=PATH with a kind of {kinds}, got {text[:60]!r}")
    return read_artefact(ArtefactKind(name), Path(path))


def _name(path: Path) -> str:
    return path.resolve().name


def _golden(path: Path) -> "Artefact":
    from safehold.canonical import sha256_hex
    from safehold.trust.release.comparison import golden_digest
    from safehold.trust.release.interface import Artefact

    files = [path] if path.is_file() else sorted(path.glob("*.jsonl"))
    if not files:
        raise ConfigError(f"{path}: expected .jsonl files, or one, for a golden set")
    digests = {one.name: sha256_hex(read_bytes(one, most=None)) for one in files}
    return Artefact(path=_name(path), kind=ArtefactKind.GOLDEN, sha256=golden_digest(digests))


def _by_bytes(kind: ArtefactKind, path: Path) -> "Artefact":
    from safehold.canonical import sha256_hex
    from safehold.trust.release.interface import Artefact
    from safehold.trust.release.weaker import settings_document

    file = path / "manifest.json" if kind is ArtefactKind.BUNDLE else path
    data = read_bytes(file, most=None)
    document: Any = None
    if kind is ArtefactKind.RULES:
        from safehold.guard.gateway.bundles.loading import RulesFile

        try:
            document = settings_document(msgspec.yaml.decode(data, type=RulesFile))
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path.name}: expected a file of rules: {error}") from error
    return Artefact(path=_name(path), kind=kind, sha256=sha256_hex(data), document=document)


def _gateway(path: Path) -> object:
    from safehold.cli.serve import read_settings

    return read_settings(path, {})


def _constitution(path: Path) -> object:
    from safehold.constitution import library

    return library.load(path)


def _egress_plan(path: Path) -> object:
    from safehold.secure.egress.declare.plan import load_plan

    return load_plan(path)


def _endpoint(path: Path) -> object:
    from safehold.secure.endpoint.policy import read_policy

    return read_policy(path)


def _egress_register(path: Path) -> object:
    from safehold.secure.egress.declare.register import load_register

    return load_register(path)


def _key_service(path: Path) -> object:
    from safehold.secure.weights.keyd.config import declared

    return declared(path)


def _grants_policy(path: Path) -> object:
    from safehold.trust.grants.policy import load_policy

    text = read_text(path)
    load_policy(text)
    return parse_toml(text)


def _trial(path: Path) -> object:
    from safehold.guard.gateway.bundles.trial_file import decoded, read_plan

    return read_plan(decoded(read_bytes(path)))


_READERS: dict[ArtefactKind, Callable[[Path], object]] = {
    ArtefactKind.GATEWAY: _gateway,
    ArtefactKind.CONSTITUTION: _constitution,
    ArtefactKind.EGRESS_PLAN: _egress_plan,
    ArtefactKind.EGRESS_REGISTER: _egress_register,
    ArtefactKind.ENDPOINT: _endpoint,
    ArtefactKind.KEY_SERVICE: _key_service,
    ArtefactKind.GRANTS_POLICY: _grants_policy,
    ArtefactKind.TRIAL: _trial,
}
_FORMS = {
    ArtefactKind.GATEWAY: Form.TEXT,
    ArtefactKind.EGRESS_PLAN: Form.TOML,
    ArtefactKind.EGRESS_REGISTER: Form.TOML,
    ArtefactKind.ENDPOINT: Form.TOML,
    ArtefactKind.KEY_SERVICE: Form.TOML,
    ArtefactKind.GRANTS_POLICY: Form.TOML,
}
"""What a kind of settings must be like, before its reader sees it."""
