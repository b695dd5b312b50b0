"""Small models to seal, and a key provider in memory."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from safehold.secure.weights.interface import Header, ProviderError
from safehold.secure.weights.keys import ReleasedKeys, derive_keys, unwrap_data_key
from safehold.secure.weights.providers.envelope import unwrap_with, wrap_with
from safehold.secure.weights.seal import SealOrder, seal
from safehold.secure.weights.signer import SealSigner


class MemoryProvider:
    """Keeps its keys in memory; the test holds it."""

    def __init__(self, kind: str = "memory") -> None:
        self.kind = kind
        self.keys: dict[str, bytes] = {}
        self.broken = False

    def create(self, name: str) -> str:
        """Make a key."""
        if name in self.keys:
            raise ProviderError(f"{name} exists")
        self.keys[name] = os.urandom(32)
        return name

    def wrap(self, reference: str, key: bytes, context: Mapping[str, str]) -> str:
        """Wrap."""
        return wrap_with(self._key(reference), key, context)

    def unwrap(self, reference: str, blob: str, context: Mapping[str, str]) -> bytes:
        """Unwrap."""
        return unwrap_with(self._key(reference), blob, context)

    def destroy(self, reference: str) -> str:
        """Forget a key."""
        self._key(reference)
        del self.keys[reference]
        return f"key {reference} forgotten"

    def _key(self, reference: str) -> bytes:
        if self.broken:
            raise ProviderError("the provider is out of reach")
        if reference not in self.keys:
            raise ProviderError("the provider has no such key")
        return self.keys[reference]


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file of float32 tensors, without the safetensors package."""
    table: dict[str, object] = {}
    at = 0
    for name, tensor in tensors.items():
        size = tensor.astype("<f4").nbytes
        table[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            file.write(tensor.astype("<f4").tobytes())


def write_model(folder: Path, *, shards: int = 2, seed: int = 0, rows: int = 300) -> Path:
    """Make a folder with safetensors shards and a configuration; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(1, shards + 1):
        write_safetensors(
            folder / f"model-{number:05}-of-{shards:05}.safetensors",
            {
                f"layer.{number}.weight": random.normal(size=(rows, 64)),
                f"layer.{number}.bias": random.normal(size=(64,)),
            },
        )
    (folder / "config.json").write_text('{"model_type": "brewer"}\n')
    return folder


class Publisher:
    """Seals small models with one signer and one provider."""

    def __init__(self, root: Path, *, chunk_bytes: int = 4096) -> None:
        self.root = root
        self.signer = SealSigner.generate()
        self.provider = MemoryProvider()
        self.chunk_bytes = chunk_bytes

    def order(self, name: str = "sealed", *, version: str = "1", resume: bool = False) -> SealOrder:
        """Return the order to seal `root/plain` into `root/NAME`."""
        return SealOrder(
            source=self.root / "plain",
            destination=self.root / name,
            model="brewer",
            version=version,
            created=1_800_000_000,
            chunk_bytes=self.chunk_bytes,
            resume=resume,
        )

    def seal(self, name: str = "sealed", *, version: str = "1") -> Header:
        """Seal `root/plain`, made if it is not there."""
        if not (self.root / "plain").exists():
            write_model(self.root / "plain")
        return seal(self.order(name, version=version), [self.provider], self.signer)

    def keys(self, header: Header) -> ReleasedKeys:
        """Return the keys of every shard."""
        data_key, _ = unwrap_data_key(header, [self.provider])
        return derive_keys(data_key, header, [shard.name for shard in header.shards])
