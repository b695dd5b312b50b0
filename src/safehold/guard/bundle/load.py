"""Loading a bundle: whatever is missing, altered, unsigned or unknown refuses."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from safehold.errors import BundleError, ConfigError, TamperError
from safehold.guard.bundle import signing
from safehold.guard.bundle.interface import (
    MANIFEST,
    SCHEMA,
    SIGNATURE,
    Golden,
    HeadRecord,
    Manifest,
    Stage1Record,
)
from safehold.guard.bundle.probes import probed
from safehold.guard.scorers.encoder.multilingual import MultilingualScorer
from safehold.guard.scorers.encoder.onnx import EncoderScorer
from safehold.guard.scorers.encoder.unigram import Unigram
from safehold.guard.scorers.interface import ExchangeScorer, StreamScorer
from safehold.guard.scorers.ngram import NgramHead, NgramScorer
from safehold.guard.scorers.rules import RuleSet
from safehold.guard.scorers.windowed import WINDOW, WindowHead, WindowScorer
from safehold.guard.served.interface import ServedModel
from safehold.guard.session.cascade import Cascade

_MAX_FILE_BYTES = 1 << 30
_MAX_FILES = 64


class SignedBy(msgspec.Struct, frozen=True):
    """Trust a manifest that one of these keys signed."""

    keys: tuple[Ed25519PublicKey, ...]


class PinnedDigest(msgspec.Struct, frozen=True):
    """Trust exactly the manifest with this SHA-256, as the package does for its stock bundles."""

    sha256: str


class UnsafeUnsigned:
    """Trust any manifest whose files fit it. For experiments; the name is meant to be seen."""


Trust = SignedBy | PinnedDigest | UnsafeUnsigned


class Bundle(msgspec.Struct, frozen=True):
    """A verified bundle: its manifest, its cascade, its stage 2 and its golden set."""

    manifest: Manifest
    digest: str
    cascade: Cascade
    stage2: ExchangeScorer | None
    golden: tuple[Golden, ...]


def load_bundle(folder: Path, trust: Trust, *, served: ServedModel | None = None) -> Bundle:
    """Load a bundle after verifying all of it.

    `served` is the model that a bundle's probe reads; without one, a bundle with a probe refuses.

    Raises:
        BundleError: Something is missing, unknown, or made for another model.
        TamperError: A byte differs from its record.
        DependencyError: The bundle needs an extra that is not installed.
    """
    # 1. The manifest is what a trusted key signed, or the pinned one, before it is parsed.
    content = _read(folder / MANIFEST)
    digest = hashlib.sha256(content).hexdigest()
    match trust:
        case SignedBy(keys):
            signing.verify(content, _read(folder / SIGNATURE), keys)
        case PinnedDigest(sha256):
            if digest != sha256:
                raise TamperError("the manifest is not the pinned one")
        case UnsafeUnsigned():
            pass
    # 2. It says only things that this version knows.
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise BundleError(f"the manifest does not follow its schema: {error}") from error
    if manifest.schema != SCHEMA:
        raise BundleError(f"the bundle has schema {manifest.schema}, this version reads {SCHEMA}")
    # 3. It was calibrated for the served model, if it reads one.
    if (manifest.model_digest is None) is not (manifest.probe is None):
        raise BundleError("a probe and the digest of the model it reads come together")
    if manifest.model_digest is not None and (
        served is None or served.digest != manifest.model_digest
    ):
        raise BundleError("the bundle's probe was calibrated on another model than the served one")
    # 4. The files are exactly the recorded ones, byte for byte.
    files = _verified_files(folder, manifest)
    # 5. Only then is anything built from them; a probe repeats its canaries on the served model.
    return Bundle(
        manifest=manifest,
        digest=digest,
        cascade=_cascade(manifest, digest, files, served),
        stage2=_stage2(manifest, files),
        golden=_golden(manifest, files),
    )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise BundleError(f"{path.name}: larger than any bundle file")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path.name}: missing from the bundle or unreadable") from error


def _verified_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    if len(manifest.files) > _MAX_FILES:
        raise BundleError(f"the manifest lists {len(manifest.files)} files, more than {_MAX_FILES}")
    present = {path.name for path in folder.iterdir()} - {MANIFEST, SIGNATURE}
    unknown = sorted(present - manifest.files.keys())
    if unknown:
        raise TamperError(f"{unknown[0]}: not in the manifest")
    contents: dict[str, bytes] = {}
    for name, record in manifest.files.items():
        if name != Path(name).name:
            raise BundleError("a file name in the manifest is not a plain name")
        content = _read(folder / name)
        if len(content) != record.size_bytes:
            raise TamperError(
                f"{name}: {len(content)} bytes, the manifest says {record.size_bytes}"
            )
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise TamperError(f"{name}: its digest differs from the manifest")
        contents[name] = content
    return contents


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    try:
        return files[name]
    except KeyError as error:
        raise BundleError(f"{name}: used by the manifest but not listed in it") from error


def _cascade(
    manifest: Manifest, digest: str, files: Mapping[str, bytes], served: ServedModel | None
) -> Cascade:
    return Cascade(
        digest=digest,
        stage1=None if manifest.stage1 is None else _stage1(manifest.stage1, files),
        has_stage2=manifest.stage2 is not None,
        prompt=manifest.prompt,
        reply=manifest.reply,
        rules=_rules(manifest),
        probe=None if manifest.probe is None else probed(manifest.probe, files, served),
    )


def _rules(manifest: Manifest) -> RuleSet | None:
    if not manifest.rules and not manifest.known_attacks:
        return None
    try:
        return RuleSet(manifest.rules, manifest.known_attacks)
    except ConfigError as error:
        raise BundleError(f"the manifest's rules: {error}") from error


def _stage1(record: Stage1Record, files: Mapping[str, bytes]) -> StreamScorer:
    windows = {record.prompt.window, record.reply.window}
    if windows == {0}:
        return NgramScorer(
            record.name, _head(record.prompt, files), _head(record.reply, files), record.clause
        )
    if windows != {WINDOW}:
        raise BundleError(f"stage 1 with windows of {sorted(windows)} tokens, expected {WINDOW}")
    prompt, reply = (
        WindowHead(table=_table(head, files), bias=head.bias, floor=head.floor)
        for head in (record.prompt, record.reply)
    )
    return WindowScorer(record.name, prompt, reply, record.clause)


def _table(record: HeadRecord, files: Mapping[str, bytes]) -> npt.NDArray[np.float32]:
    table = _array(record.file, files)
    if table.dtype != np.float16 or table.ndim != 1 or not np.isfinite(table).all():
        raise BundleError(f"{record.file}: expected finite float16 weights in one dimension")
    return table.astype(np.float32)


def _head(record: HeadRecord, files: Mapping[str, bytes]) -> NgramHead:
    return NgramHead(
        table=_table(record, files),
        bias=record.bias,
        mix=record.mix,
        offset=record.offset,
        floor=record.floor,
    )


def _array(name: str, files: Mapping[str, bytes]) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(io.BytesIO(_file(files, name)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BundleError(f"{name}: not a NumPy array") from error
    return found


def _stage2(manifest: Manifest, files: Mapping[str, bytes]) -> ExchangeScorer | None:
    record = manifest.stage2
    if record is None:
        return None
    model = _file(files, record.model)
    text = _file(files, record.vocabulary).decode("utf-8")
    try:
        if not record.words:
            return EncoderScorer(record.name, model, text.splitlines(), record.clauses)
        # A piece may be any character that Unicode calls a line break, but "\n".
        lines = text.removesuffix("\n").split("\n")
        pieces, scores = zip(*(line.split("\t") for line in lines), strict=True)
        unigram = Unigram(pieces, [float(score) for score in scores])
    except ValueError as error:
        raise BundleError(f"{record.vocabulary}: {error}") from error
    words = _array(record.words, files)
    if words.dtype != np.uint8 or words.shape[:1] != (len(pieces),):
        raise BundleError(f"{record.words}: expected a row of bytes for each of the pieces")
    return MultilingualScorer(record.name, model, words, unigram, record.clauses)


def _golden(manifest: Manifest, files: Mapping[str, bytes]) -> tuple[Golden, ...]:
    lines = _file(files, manifest.golden).splitlines()
    try:
        golden = tuple(msgspec.json.decode(line, type=Golden) for line in lines)
    except msgspec.DecodeError as error:
        raise BundleError(f"{manifest.golden}: {error}") from error
    if not any(item.blocked for item in golden) or all(item.blocked for item in golden):
        raise BundleError(f"{manifest.golden}: needs exchanges of both kinds")
    return golden
