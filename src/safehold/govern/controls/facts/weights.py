"""Facts of weights on disk: headers, file modes, plain files where only sealed ones belong."""

from collections.abc import Iterator

import msgspec

from safehold.canonical import sha256_hex
from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import ClosedError, HostError
from safehold.secure.weights.header import SignedHeader
from safehold.secure.weights.interface import Header

_DEPTH = 4
_HEAD = 16


class WeightFile(msgspec.Struct, frozen=True):
    """A file below a weights folder; `plain` names the plain format that its first bytes show.

    `closed`: nobody may read it now, so its first bytes are not known.
    """

    path: str
    mode: int
    uid: int
    size: int
    plain: str = ""
    closed: bool = False


class SealedModelFacts(msgspec.Struct, frozen=True):
    """A sealed model: its folder, its header, and the digest of the header file."""

    folder: str
    header: Header
    header_sha256: str


class WeightFacts(msgspec.Struct, frozen=True):
    """Everything below the weights folders."""

    files: tuple[WeightFile, ...]
    models: tuple[SealedModelFacts, ...]


def weights(host: ControlledHost, site: Site) -> WeightFacts:
    """Walk the weights folders, a few levels deep."""
    files: list[WeightFile] = []
    models = []
    for root in site.weights:
        for path in _walk(host, root, _DEPTH):
            seen = host.stat(path)
            mode = seen.mode & 0o7777
            try:
                plain = plain_format(host.head(path, _HEAD))
            except ClosedError:
                files.append(WeightFile(path, mode, seen.uid, seen.size, closed=True))
            else:
                files.append(WeightFile(path, mode, seen.uid, seen.size, plain))
            if path.endswith("/header.json"):
                models.append(_model(host, path))
    return WeightFacts(tuple(files), tuple(models))


def _walk(host: ControlledHost, folder: str, depth: int) -> Iterator[str]:
    if depth == 0:
        raise HostError(f"{folder} lies too deep to be walked")
    for name in host.names(folder):
        path = f"{folder}/{name}"
        if host.stat(path).directory:
            yield from _walk(host, path, depth - 1)
        else:
            yield path


def plain_format(head: bytes) -> str:
    """Name the format of a plain file by its first bytes: safetensors is a length, then JSON."""
    if head[:4] == b"GGUF":
        return "gguf"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**30:
        return "safetensors"
    if head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        return "pickle"
    return ""


def _model(host: ControlledHost, path: str) -> SealedModelFacts:
    data = host.read(path)
    try:
        signed = msgspec.json.decode(data, type=SignedHeader)
        header = msgspec.json.decode(signed.header, type=Header)
    except msgspec.DecodeError as error:
        raise HostError(f"{path} is no sealed header") from error
    return SealedModelFacts(path.rsplit("/", 1)[0], header, sha256_hex(data))
