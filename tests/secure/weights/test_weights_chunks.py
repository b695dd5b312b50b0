"""Chunks: published AES-GCM vectors through the same calls, chunk boundaries, misplaced chunks."""

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.secure.weights.chunks import Layout, ShardCipher, identity, preamble
from safehold.secure.weights.interface import SealTamperError
from safehold.secure.weights.keys import shard_key

KEY = bytes(range(32)) + b"prefix7"

# The Galois/Counter Mode of Operation (McGrew, Viega), appendix B, test cases 13 to 16 (AES-256):
# key, nonce, plaintext, associated data, ciphertext, tag.
_K = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
_P = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e24"
    "49a6b525b16aedf5aa0de657ba637b391aafd255"
)
_C = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b10"
    "56828838c5f61e6393ba7a0abcc9f662898015ad"
)
_A = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
VECTORS = [
    ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    (
        "00" * 32,
        "00" * 12,
        "00" * 16,
        "",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (_K, "cafebabefacedbaddecaf888", _P, "", _C, "b094dac5d93471bdec1a502270e3cc6c"),
    (
        _K,
        "cafebabefacedbaddecaf888",
        _P[:120],
        _A,
        _C[:120],
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]


@pytest.mark.parametrize(("key", "nonce", "plain", "aad", "sealed", "tag"), VECTORS)
def test_published_vectors_open_and_seal(
    key: str, nonce: str, plain: str, aad: str, sealed: str, tag: str
) -> None:
    """The `into` calls that sealing uses give the published ciphertexts and tags."""
    aead = AESGCM(bytes.fromhex(key))
    data = bytes.fromhex(plain)
    out = bytearray(len(data) + 16)
    aead.encrypt_into(bytes.fromhex(nonce), data, bytes.fromhex(aad), out)
    assert out.hex() == sealed + tag
    back = bytearray(len(data))
    aead.decrypt_into(bytes.fromhex(nonce), bytes(out), bytes.fromhex(aad), back)
    assert back == data


@pytest.mark.parametrize(("key", "nonce", "plain", "aad", "sealed", "tag"), VECTORS)
@pytest.mark.parametrize("bit", [0, 1, 7, 31, 63, 64, 71, 96, 120, 126, 127])
def test_every_modified_tag_is_refused(
    key: str, nonce: str, plain: str, aad: str, sealed: str, tag: str, bit: int
) -> None:
    """A tag with one bit flipped, as in Wycheproof's `ModifiedTag` cases, never opens."""
    bad = bytearray.fromhex(tag)
    bad[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(InvalidTag):
        AESGCM(bytes.fromhex(key)).decrypt_into(
            bytes.fromhex(nonce),
            bytes.fromhex(sealed) + bytes(bad),
            bytes.fromhex(aad),
            bytearray(len(plain) // 2),
        )


def test_format_is_the_documented_one() -> None:
    """A shard of two chunks has the bytes that the documented format gives, computed without us."""
    seal, plain = "ab" * 16, bytes(range(20))
    key = shard_key(bytes(range(32)), seal, "s", "cd" * 32)
    bound = identity(
        seal_id=seal, model="m", version="1", shard="s", plain_bytes=20, chunk_bytes=16
    )
    cipher = ShardCipher(key, bound, Layout(20, 16), "s")
    chunks = _sealed(cipher, 0, plain[:16]) + _sealed(cipher, 1, plain[16:])
    assert (preamble(seal, 16) + chunks).hex() == (
        "53485345414c303100000010abababababababababababababababab00000000"  # preamble
        "b05f2f0422bd3dcd241c71f0e8f5aa33e82282be11245a68d14dd76941c720cb"  # chunk 0 and its tag
        "459a19911cbe0f3d917fea891116bf746d3269a1"  # chunk 1 and its tag
    )


def _cipher(size: int, chunk: int, *, shard: str = "s", version: str = "1") -> ShardCipher:
    bound = identity(
        seal_id="ab" * 16,
        model="m",
        version=version,
        shard=shard,
        plain_bytes=size,
        chunk_bytes=chunk,
    )
    return ShardCipher(KEY, bound, Layout(size, chunk), shard)


def _sealed(cipher: ShardCipher, index: int, plain: bytes) -> bytes:
    out = bytearray(len(plain) + 16)
    cipher.seal_into(index, plain, out)
    return bytes(out)


@given(size=st.integers(0, 5000), chunk=st.sampled_from([1, 7, 16, 64, 1000]))
@settings(deadline=None)
def test_layout_covers_every_byte_once(size: int, chunk: int) -> None:
    """Chunks tile the plaintext and the sealed file without gap or overlap, at any size."""
    layout = Layout(size, chunk)
    plain = sealed = 0
    for index in range(layout.count):
        offset, length = layout.plain(index)
        at, taken = layout.sealed(index)
        assert (offset, at) == (plain, 32 + sealed)
        plain, sealed = plain + length, sealed + taken
    assert plain == size
    assert 32 + sealed == layout.sealed_bytes


@pytest.mark.parametrize("place", [0, 2])
def test_moved_chunk_is_refused(place: int) -> None:
    """A chunk opens at its own index only."""
    cipher = _cipher(40, 10)
    with pytest.raises(SealTamperError):
        cipher.open_into(place, _sealed(cipher, 1, b"x" * 10), bytearray(10))


def test_shortened_shard_is_refused() -> None:
    """A middle chunk can't pose as the last one: its nonce says that more follows."""
    long, short = _cipher(40, 10), _cipher(20, 10)
    with pytest.raises(SealTamperError):
        short.open_into(1, _sealed(long, 1, b"x" * 10), bytearray(10))


@pytest.mark.parametrize("change", [{"shard": "other"}, {"version": "2"}])
def test_chunk_of_another_identity_is_refused(change: dict[str, str]) -> None:
    """The same key does not open a chunk as part of another shard or version."""
    sealed = _sealed(_cipher(40, 10), 1, b"x" * 10)
    with pytest.raises(SealTamperError):
        _cipher(40, 10, **change).open_into(1, sealed, bytearray(10))


def test_nonces_differ_within_a_shard() -> None:
    """No two chunks of a shard share a nonce, the last one included."""
    cipher = _cipher(300, 1)
    nonces = {cipher._nonce(index) for index in range(300)}
    assert len(nonces) == 300
    assert {len(nonce) for nonce in nonces} == {12}
