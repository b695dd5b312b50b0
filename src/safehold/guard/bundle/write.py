"""Writing a bundle: files first, then the manifest with their digests, then its signature."""

import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safehold.errors import BundleError
from safehold.guard.bundle import signing
from safehold.guard.bundle.interface import MANIFEST, SIGNATURE, FileRecord, HeadRecord, Manifest
from safehold.guard.scorers.ngram import NgramHead
from safehold.guard.scorers.windowed import WINDOW, WindowHead


def write_bundle(
    folder: Path, manifest: Manifest, files: Mapping[str, bytes], key: Ed25519PrivateKey | None
) -> str:
    """Write a new bundle folder in one step and return the manifest's digest.

    The folder appears whole or not at all. The digests in `manifest.files` are filled in here.

    Raises:
        BundleError: The folder exists already, or can't be written.
    """
    refuse_existing(folder)
    encoded, digest = manifest_of_files(manifest, files)
    draft = folder.with_name(f".{folder.name}.draft-{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        for name, content in files.items():
            (draft / name).write_bytes(content)
        (draft / MANIFEST).write_bytes(encoded)
        if key is not None:
            (draft / SIGNATURE).write_bytes(signing.sign(encoded, key))
        draft.rename(folder)
    except OSError as error:
        raise BundleError(f"{folder}: can't be written ({error.strerror})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return digest


def refuse_existing(folder: Path) -> None:
    """Refuse a place for a new bundle where something stands.

    Raises:
        BundleError: Something does.
    """
    if os.path.lexists(folder):
        raise BundleError(f"{folder}: exists already; a bundle is never changed in place")


def manifest_of_files(manifest: Manifest, files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Return the manifest as it is written beside those files, and its digest."""
    records = {
        name: FileRecord(hashlib.sha256(content).hexdigest(), len(content))
        for name, content in sorted(files.items())
    }
    encoded = msgspec.json.format(
        msgspec.json.encode(msgspec.structs.replace(manifest, files=records)), indent=1
    )
    return encoded, hashlib.sha256(encoded).hexdigest()


def head_file(name: str, head: NgramHead) -> tuple[HeadRecord, bytes]:
    """Return an additive head's record and the content of its weight file."""
    record = HeadRecord(
        file=name, bias=head.bias, mix=head.mix, offset=head.offset, floor=head.floor
    )
    return record, array_file(head.table.astype(np.float16))


def window_head_file(name: str, head: WindowHead) -> tuple[HeadRecord, bytes]:
    """Return a head's record and the content of its weight file."""
    record = HeadRecord(file=name, bias=head.bias, floor=head.floor, window=WINDOW)
    return record, array_file(head.table.astype(np.float16))


def array_file(
    values: npt.NDArray[np.float16] | npt.NDArray[np.float32] | npt.NDArray[np.uint8],
) -> bytes:
    """Return the content of a weight file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
