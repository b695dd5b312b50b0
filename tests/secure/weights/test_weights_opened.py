"""Opening: attacks on sealed files, random access, no plaintext from a bad chunk."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from safehold.errors import WeightsError
from safehold.secure.weights.header import covers
from safehold.secure.weights.interface import Header, SealTamperError, WrongKeyError
from safehold.secure.weights.keys import derive_keys, unwrap_data_key
from safehold.secure.weights.opened import SealedModel
from safehold.secure.weights.verify import verify_sealed
from safehold.testing.weights import MemoryProvider, Publisher

ONE = "model-00001-of-00002.safetensors"
TWO = "model-00002-of-00002.safetensors"


def _open_all(publisher: Publisher, header: Header) -> None:
    with SealedModel(publisher.root / "sealed", header, publisher.keys(header)) as model:
        for shard in header.shards:
            model.reader(shard.name).read(0, shard.plain_bytes)


def _file(publisher: Publisher, name: str = ONE) -> Path:
    return publisher.root / "sealed" / f"{name}.sealed"


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x20
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 9, 13, 32, 5000, -1, -16, -17])
def test_flipped_bit_is_refused(publisher: Publisher, at: int) -> None:
    """A bit flipped anywhere (preamble, ciphertext, tag) is found by opening and by verifying."""
    header = publisher.seal()
    _flip(_file(publisher), at)
    with pytest.raises(WeightsError):
        _open_all(publisher, header)
    with pytest.raises(WeightsError):
        verify_sealed(publisher.root / "sealed", publisher.signer.verifier)


@pytest.mark.parametrize("keep", [0, 10, 32, 4144, -1, -16, -4112])
def test_truncated_shard_is_refused(publisher: Publisher, keep: int) -> None:
    """A shard cut anywhere, chunk boundaries included, is refused."""
    header = publisher.seal()
    data = _file(publisher).read_bytes()
    _file(publisher).write_bytes(data[:keep])
    with pytest.raises(WeightsError):
        _open_all(publisher, header)


def test_extended_shard_is_refused(publisher: Publisher) -> None:
    """Bytes after the last chunk are refused."""
    header = publisher.seal()
    with _file(publisher).open("ab") as file:
        file.write(b"\0" * 4112)
    with pytest.raises(SealTamperError, match="sealed bytes"):
        _open_all(publisher, header)


def test_reordered_chunks_are_refused(publisher: Publisher) -> None:
    """Two chunks that changed places are refused."""
    header = publisher.seal()
    data = bytearray(_file(publisher).read_bytes())
    size = 4096 + 16
    first, second = slice(32, 32 + size), slice(32 + size, 32 + 2 * size)
    data[first], data[second] = data[second], data[first]
    _file(publisher).write_bytes(data)
    with pytest.raises(SealTamperError, match="chunk 0"):
        _open_all(publisher, header)


def test_renamed_shards_are_refused(publisher: Publisher) -> None:
    """Two shards of equal size that changed names are refused."""
    header = publisher.seal()
    one, two = _file(publisher, ONE).read_bytes(), _file(publisher, TWO).read_bytes()
    _file(publisher, ONE).write_bytes(two)
    _file(publisher, TWO).write_bytes(one)
    with pytest.raises(SealTamperError):
        _open_all(publisher, header)


def test_missing_shard_is_refused(publisher: Publisher) -> None:
    """A shard that was moved away is an error that says so."""
    header = publisher.seal()
    _file(publisher).rename(publisher.root / "sealed" / "elsewhere.sealed")
    with pytest.raises(SealTamperError, match="missing or was renamed"):
        _open_all(publisher, header)


def test_shard_of_another_version_is_refused(publisher: Publisher) -> None:
    """A shard of another sealing of the same files is named as such."""
    header = publisher.seal()
    publisher.seal("later", version="2")
    _file(publisher).write_bytes((publisher.root / "later" / f"{ONE}.sealed").read_bytes())
    with pytest.raises(SealTamperError, match="another sealing"):
        _open_all(publisher, header)


def test_shard_of_another_version_with_a_forged_preamble_is_refused(publisher: Publisher) -> None:
    """The preamble is only words: a forged one does not make the chunks open."""
    header = publisher.seal()
    publisher.seal("later", version="2")
    other = (publisher.root / "later" / f"{ONE}.sealed").read_bytes()
    _file(publisher).write_bytes(_file(publisher).read_bytes()[:32] + other[32:])
    with pytest.raises(SealTamperError, match="chunk 0"):
        _open_all(publisher, header)


def test_link_in_place_of_a_shard_is_refused(publisher: Publisher) -> None:
    """A symbolic link is not followed out of the sealed folder."""
    header = publisher.seal()
    moved = publisher.root / "moved"
    _file(publisher).rename(moved)
    _file(publisher).symlink_to(moved)
    with pytest.raises(SealTamperError):
        _open_all(publisher, header)


def test_bad_chunk_leaves_no_plaintext(publisher: Publisher) -> None:
    """When a later chunk is bad, what was already decrypted into the caller's memory is wiped."""
    header = publisher.seal()
    _flip(_file(publisher), -1)
    out = memoryview(bytearray(b"\xaa" * header.shard(ONE).plain_bytes))
    model = SealedModel(publisher.root / "sealed", header, publisher.keys(header))
    with model, pytest.raises(SealTamperError):
        model.reader(ONE).read_into(0, out)
    assert not any(out)


def test_key_of_one_shard_opens_no_other(publisher: Publisher) -> None:
    """Keys released for one shard are worthless for the next."""
    header = publisher.seal()
    data_key, _ = unwrap_data_key(header, [publisher.provider])
    keys = derive_keys(data_key, header, covers(header, (ONE,)))
    with SealedModel(publisher.root / "sealed", header, keys) as model:
        assert model.reader(ONE).read(0, 8)
        with pytest.raises(WeightsError, match="released"):
            model.reader(TWO)


def test_wrong_provider_is_a_clear_error(publisher: Publisher) -> None:
    """A provider that the header does not name is refused, with both names."""
    header = publisher.seal()
    with pytest.raises(WrongKeyError, match="expected a provider of kind memory, got other"):
        unwrap_data_key(header, [MemoryProvider("other")])


def test_provider_with_another_key_is_a_clear_error(publisher: Publisher) -> None:
    """The right kind of provider with another key under the same name does not open it."""
    header = publisher.seal()
    stranger = MemoryProvider()
    stranger.create(header.wrapped[0].reference)
    with pytest.raises(WrongKeyError):
        unwrap_data_key(header, [stranger])


def test_another_data_key_is_refused_before_any_chunk(publisher: Publisher) -> None:
    """The header commits to the data key."""
    header = publisher.seal()
    with pytest.raises(WrongKeyError, match="data key"):
        derive_keys(b"\1" * 32, header, [ONE])


def test_one_tensor_opens_alone(publisher: Publisher) -> None:
    """A tensor equals what the safetensors package reads from the plain file."""
    header = publisher.seal()
    with SealedModel(publisher.root / "sealed", header, publisher.keys(header)) as model:
        assert model.tensors()["layer.2.bias"] == TWO
        found = model.tensor("layer.2.weight")
    assert np.array_equal(found, load_file(publisher.root / "plain" / TWO)["layer.2.weight"])


def test_one_tensor_survives_damage_elsewhere(publisher: Publisher) -> None:
    """Random access touches only the chunks of its tensor: damage far away does not matter."""
    header = publisher.seal()
    _flip(_file(publisher, ONE), 32 + 5 * 4112 + 3)
    with SealedModel(publisher.root / "sealed", header, publisher.keys(header)) as model:
        assert model.tensor("layer.1.bias").shape == (64,)
        with pytest.raises(SealTamperError):
            model.tensor("layer.1.weight")


def test_unknown_tensor_is_an_error(publisher: Publisher) -> None:
    """A name that no shard has is an error."""
    header = publisher.seal()
    model = SealedModel(publisher.root / "sealed", header, publisher.keys(header))
    with model, pytest.raises(WeightsError, match="name of a tensor"):
        model.tensor("layer.9.weight")


@given(data=st.data())
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_range_reads_like_the_plain_file(publisher: Publisher, data: st.DataObject) -> None:
    """Every range, across or at chunk boundaries and empty ones, equals the plain bytes."""
    folder = publisher.root / "sealed"
    if not folder.exists():
        publisher.header = publisher.seal()  # type: ignore[attr-defined]
    header: Header = publisher.header  # type: ignore[attr-defined]
    plain = (publisher.root / "plain" / ONE).read_bytes()
    near = st.integers(0, len(plain) // 4096).map(lambda n: n * 4096)
    edge = st.builds(lambda base, by: max(0, min(base + by, len(plain))), near, st.integers(-2, 2))
    begin, end = sorted((data.draw(edge), data.draw(edge)))
    with SealedModel(folder, header, publisher.keys(header)) as model:
        assert model.reader(ONE).read(begin, end - begin) == plain[begin:end]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 10**9), (77_000, 1000), (0, -1)])
def test_range_outside_the_shard_is_refused(publisher: Publisher, offset: int, length: int) -> None:
    """A range that leaves the shard is an error, not a short read."""
    header = publisher.seal()
    model = SealedModel(publisher.root / "sealed", header, publisher.keys(header))
    with model, pytest.raises(WeightsError):
        model.reader(ONE).read(offset, length)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192])
def test_sizes_around_a_chunk_open(publisher: Publisher, size: int) -> None:
    """Empty files and files of exactly one chunk seal and open."""
    (publisher.root / "plain").mkdir()
    (publisher.root / "plain" / "notes.txt").write_bytes(b"z" * size)
    header = publisher.seal()
    with SealedModel(publisher.root / "sealed", header, publisher.keys(header)) as model:
        assert model.reader("notes.txt").read(0, size) == b"z" * size
