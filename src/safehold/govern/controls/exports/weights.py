"""Copies of weights elsewhere, and what software and models are made of."""

import configparser
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import msgspec

from safehold.canonical import sha256_hex
from safehold.errors import BundleError, SafeholdError
from safehold.govern.controls.facts.documents import Copies, Copy, Supply
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.sources import CopySource
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.facts.weights import plain_format
from safehold.govern.controls.interface import ControlError
from safehold.guard.bundle import signing
from safehold.guard.bundle.interface import MANIFEST, SIGNATURE

_HEADER = "header.json"
_LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(==)?")
_PIP = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
_DEFAULT_INDEX = "pypi.org"


def copies(site: Site, log: LogReading, now: int) -> Copies:
    """Look at every copy that the site names: sealed, logged, and whole.

    Raises:
        ControlError: a folder can't be read.
    """
    known = {
        digest
        for kind in ("seal", "rewrap")
        for one in log.of_kind(kind)
        for digest in one.digests.values()
    }
    return Copies(written=now, copies=tuple(_copy(one, known) for one in site.export.copies))


def _copy(one: CopySource, known: set[str]) -> Copy:
    here = _digests(Path(one.folder))
    there = _digests(Path(one.source)) if one.source else here
    plain = any(_format(path) for path in _walk(Path(one.folder)))
    return Copy(
        name=one.name,
        kind=one.kind,
        sealed=_HEADER in here and not plain,
        logged=here.get(_HEADER, ("", 0))[0] in known,
        sent=sum(size for _, size in there.values()),
        received=sum(size for name, (digest, size) in here.items() if _same(there, name, digest)),
    )


def _same(there: dict[str, tuple[str, int]], name: str, digest: str) -> bool:
    return there.get(name, ("", 0))[0] == digest


def _digests(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (sha256_hex(data), len(data))
        for path in _walk(folder)
        for data in [_read(path)]
    }


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise ControlError(f"{folder} is no folder")
    yield from sorted(one for one in folder.rglob("*") if one.is_file())


def _format(path: Path) -> str:
    """Name a file's plain format; what the read meter closes shows none."""
    try:
        with path.open("rb") as file:
            return plain_format(file.read(16))
    except PermissionError:
        return ""
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error


def _read(path: Path, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error


def supply(site: Site, log: LogReading, now: int) -> Supply:
    """Export what software is made of: locks, indexes, advisories, and models by format.

    Raises:
        ControlError: a lock or the advisories can't be read.
    """
    del log
    at = site.export
    pinned: list[str] = []
    unpinned: list[str] = []
    indexes = set(at.indexes) | _configured()
    for lock in at.locks:
        text = _read(Path(lock)).decode("utf-8", "replace")
        for name, held in requirements(text):
            (pinned if held else unpinned).append(name)
        named = re.findall(r"^--(?:extra-)?index-url[= ](\S+)", text, re.MULTILINE)
        indexes |= {urlparse(one).hostname or one for one in named}
    open_since, written = _advisories(at.advisories, Path(site.state) / "supply.json", now)
    models = [one for root in (*at.models, *site.weights) for one in _models(Path(root))]
    return Supply(
        written=now,
        unpinned=tuple(sorted(set(unpinned))),
        pinned=len(set(pinned)),
        indexes=tuple(sorted(indexes or {_DEFAULT_INDEX})),
        advisories=open_since,
        advisories_written=written,
        pickles=tuple(
            str(path) for model in models for path in _walk(model) if _format(path) == "pickle"
        ),
        models_unsigned=tuple(str(one) for one in models if not _signed(one, at.bundle_keys)),
        models=len(models),
    )


def requirements(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each requirement of a lock, and whether it is pinned by version and digest."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        found = _LINE.match(line.strip())
        if found:
            yield found.group(1), bool(found.group(2)) and "--hash=sha256:" in line


def _configured() -> set[str]:
    found = {
        os.environ[one] for one in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") if one in os.environ
    }
    for name in _PIP:
        config = configparser.ConfigParser(interpolation=None)
        try:
            config.read(Path(name).expanduser())
        except configparser.Error as error:
            raise ControlError(f"{name}: expected pip's configuration") from error
        for key in ("index-url", "extra-index-url"):
            found |= set(config.get("global", key, fallback="").split())
    return {urlparse(one).hostname or one for one in found}


def _advisories(path: str, before: Path, now: int) -> tuple[dict[str, int], int]:
    """Read `pip-audit --format json`; a fault keeps the time at which it was seen first."""
    if not path:
        return {}, 0
    try:
        told = json.loads(_read(Path(path)))
        known: dict[str, int] = (
            json.loads(before.read_bytes())["advisories"] if before.exists() else {}
        )
        names = {fault["id"] for one in told["dependencies"] for fault in one.get("vulns", ())}
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError(f"{path}: expected what pip-audit writes as JSON") from error
    return {one: known.get(one, now) for one in names}, int(Path(path).stat().st_mtime)


def _models(root: Path) -> Iterator[Path]:
    """Yield the folders that hold a sealed model, a bundle, or plain weights."""
    if not root.is_dir():
        raise ControlError(f"{root} is no folder")
    for folder in (root, *sorted(one for one in root.rglob("*") if one.is_dir())):
        names = [one for one in folder.iterdir() if one.is_file()]
        known = any(one.name in {_HEADER, MANIFEST} for one in names)
        if known or any(_format(one) for one in names):
            yield folder


def _signed(model: Path, keys: tuple[str, ...]) -> bool:
    """Whether a known key signed a bundle; a sealed model has its signature in its header."""
    if (model / _HEADER).exists():
        try:
            return bool(msgspec.json.decode(_read(model / _HEADER))["signature"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return False
    if not (model / SIGNATURE).exists():
        return False
    try:
        trusted = tuple(signing.load_public_key(Path(one)) for one in keys)
        signing.verify(_read(model / MANIFEST), _read(model / SIGNATURE), trusted)
    except BundleError:
        return False
    except SafeholdError as error:
        raise ControlError(f"{model.name}: {error}") from error
    return True
