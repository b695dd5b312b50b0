"""Sealing: whole or not at all, resumable, no plaintext beside the ciphertext."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.errors import WeightsError
from safehold.secure.weights.interface import (
    ProviderError,
    SealedFormatError,
    SealTamperError,
    StorageError,
    WrongKeyError,
)
from safehold.secure.weights.opened import SealedModel
from safehold.secure.weights.providers.local import UnsafeLocalProvider
from safehold.secure.weights.seal import seal, work_folder
from safehold.secure.weights.verify import verify_sealed
from safehold.testing.weights import MemoryProvider, Publisher, write_model


def _plain(publisher: Publisher) -> dict[str, bytes]:
    folder = publisher.root / "plain"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_sealed_model_opens_to_the_same_bytes(publisher: Publisher) -> None:
    """What was sealed comes out again, file for file."""
    header = publisher.seal()
    with SealedModel(publisher.root / "sealed", header, publisher.keys(header)) as model:
        for name, data in _plain(publisher).items():
            assert model.reader(name).read(0, len(data)) == data


def test_sealed_folder_holds_no_plaintext(publisher: Publisher) -> None:
    """No 24 bytes of any source file appear in the sealed folder."""
    publisher.seal()
    sealed = b"".join(
        path.read_bytes() for path in (publisher.root / "sealed").rglob("*") if path.is_file()
    )
    for data in _plain(publisher).values():
        for start in range(0, len(data) - 24, 997):
            assert data[start : start + 24] not in sealed


def test_two_seals_share_no_key(publisher: Publisher) -> None:
    """Sealing the same files twice gives other salts, keys and ciphertexts."""
    one, two = publisher.seal("one"), publisher.seal("two")
    assert {shard.salt for shard in one.shards}.isdisjoint(shard.salt for shard in two.shards)
    assert one.key_check != two.key_check
    assert [s.plain_digest for s in one.shards] == [s.plain_digest for s in two.shards]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"anything"),
        ("model.pt", b"PK\x03\x04"),
        ("config.json", b"\x80\x04\x95pickled"),
        ("model.safetensors", b"\xff" * 64),
        ("model.gguf", b"not a model"),
    ],
)
def test_formats_that_run_code_are_refused(publisher: Publisher, name: str, content: bytes) -> None:
    """Pickle, under whatever name, and damaged model files are not sealed."""
    folder = write_model(publisher.root / "plain")
    (folder / name).write_bytes(content)
    with pytest.raises(SealedFormatError):
        publisher.seal()
    assert not work_folder(publisher.root / "sealed").exists()


def test_existing_destination_is_never_replaced(publisher: Publisher) -> None:
    """Sealing onto a folder that exists is refused."""
    publisher.seal()
    with pytest.raises(StorageError, match="exists"):
        publisher.seal()


def test_no_provider_is_refused(publisher: Publisher) -> None:
    """An empty list of providers is an error, not a model that nobody can open."""
    write_model(publisher.root / "plain")
    with pytest.raises(WeightsError, match="at least one key provider"):
        seal(publisher.order(), [], publisher.signer)


class _Killed(Exception):  # noqa: N818 - it stands for a signal
    pass


def _interrupt(publisher: Publisher, after: int) -> None:
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if done > after:
            raise _Killed

    with pytest.raises(_Killed):
        seal(publisher.order(), [publisher.provider], publisher.signer, progress)


def test_interrupted_seal_leaves_nothing_that_looks_finished(publisher: Publisher) -> None:
    """After an interruption there is no destination and no header, only ciphertext to go on."""
    write_model(publisher.root / "plain")
    _interrupt(publisher, 80_000)
    assert not (publisher.root / "sealed").exists()
    work = work_folder(publisher.root / "sealed")
    assert not (work / "header.json").exists()
    with pytest.raises(StorageError, match="--resume"):
        seal(publisher.order(), [publisher.provider], publisher.signer)


def test_resumed_seal_finishes(publisher: Publisher) -> None:
    """A resumed seal keeps the finished shards and gives a sound model."""
    write_model(publisher.root / "plain")
    _interrupt(publisher, 80_000)
    work = work_folder(publisher.root / "sealed")
    kept = {path.name: path.stat().st_mtime_ns for path in work.glob("*.sealed")}
    header = seal(publisher.order(resume=True), [publisher.provider], publisher.signer)
    verify_sealed(publisher.root / "sealed", publisher.signer.verifier)
    unchanged = [
        name
        for name, time in kept.items()
        if (publisher.root / "sealed" / name).stat().st_mtime_ns == time
    ]
    assert unchanged
    with SealedModel(publisher.root / "sealed", header, publisher.keys(header)) as model:
        for name, data in _plain(publisher).items():
            assert model.reader(name).read(0, len(data)) == data


def test_source_that_changed_since_is_not_resumed(publisher: Publisher) -> None:
    """A source file that changed after the interruption stops the resumed seal."""
    write_model(publisher.root / "plain")
    _interrupt(publisher, 80_000)
    (publisher.root / "plain" / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(StorageError, match="changed"):
        seal(publisher.order(resume=True), [publisher.provider], publisher.signer)


def test_planted_shard_is_not_resumed(publisher: Publisher) -> None:
    """A finished shard that somebody changed meanwhile does not get into a signed header."""
    write_model(publisher.root / "plain")
    _interrupt(publisher, 80_000)
    work = work_folder(publisher.root / "sealed")
    state = msgspec.json.decode((work / "state.json").read_bytes())
    victim = work / f"{state['done'][-1]['shard']['name']}.sealed"
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    with pytest.raises(SealTamperError):
        seal(publisher.order(resume=True), [publisher.provider], publisher.signer)


def test_resume_with_another_provider_is_refused(publisher: Publisher) -> None:
    """Only the provider that wrapped the data key can go on."""
    write_model(publisher.root / "plain")
    _interrupt(publisher, 80_000)
    with pytest.raises(WrongKeyError):
        seal(publisher.order(resume=True), [MemoryProvider("other")], publisher.signer)


def test_provider_that_refuses_writes_nothing(publisher: Publisher) -> None:
    """If the data key can't be wrapped, no byte was encrypted."""
    write_model(publisher.root / "plain")
    publisher.provider.broken = True
    with pytest.raises(ProviderError):
        seal(publisher.order(), [publisher.provider], publisher.signer)
    assert not list(work_folder(publisher.root / "sealed").glob("*.sealed"))


_KILLED_SEAL = """
import sys, time
from pathlib import Path
from safehold.testing.weights import Publisher
from safehold.secure.weights.providers.local import UnsafeLocalProvider
from safehold.secure.weights.seal import seal
from safehold.secure.weights.signer import SealSigner
root = Path(sys.argv[1])
publisher = Publisher(root)
def slow(count):
    print("progress", flush=True)
    time.sleep(0.05)
signer = SealSigner.read(root / "signer")
seal(publisher.order(), [UnsafeLocalProvider(root / "keys")], signer, slow)
"""


@pytest.mark.filterwarnings("ignore:key files")
def test_sigkill_leaves_a_seal_that_resumes(publisher: Publisher) -> None:
    """A real SIGKILL in the middle leaves no half-done model, and the seal can be finished."""
    write_model(publisher.root / "plain", shards=4)
    publisher.signer.write(publisher.root / "signer")
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED_SEAL, str(publisher.root)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    with child.stdout:
        for _ in range(3):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (publisher.root / "sealed").exists()
    provider = UnsafeLocalProvider(publisher.root / "keys")
    seal(publisher.order(resume=True), [provider], publisher.signer)
    verify_sealed(publisher.root / "sealed", publisher.signer.verifier)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "safehold-test", str(mount)], check=False
    )
    if done.returncode != 0:
        pytest.skip("can't mount a small file system here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_without_room_is_seen_before_anything_is_written(
    publisher: Publisher, small_disk: Path
) -> None:
    """The seal says what is missing and leaves nothing; with room it goes on from the start."""
    write_model(publisher.root / "plain", rows=3000)
    order = msgspec.structs.replace(publisher.order(), destination=small_disk / "sealed")
    with pytest.raises(StorageError, match="bytes free"):
        seal(order, [publisher.provider], publisher.signer)
    assert list(small_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    seal(order, [publisher.provider], publisher.signer)
    verify_sealed(small_disk / "sealed", publisher.signer.verifier)


def test_full_disk_is_one_clear_error(publisher: Publisher, small_disk: Path) -> None:
    """A disk that fills up meanwhile ends the seal cleanly; with room it resumes."""
    write_model(publisher.root / "plain", rows=3000)
    order = msgspec.structs.replace(publisher.order(), destination=small_disk / "sealed")
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    filler = small_disk / "filler"

    def fill(_: int) -> None:
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            for size in (2**16, 1):
                while file.write(bytes(size)) == size:
                    pass

    with pytest.raises(StorageError, match="No space left"):
        seal(order, [publisher.provider], publisher.signer, fill)
    assert not (small_disk / "sealed").exists()
    filler.unlink()
    order = msgspec.structs.replace(order, resume=True)
    seal(order, [publisher.provider], publisher.signer)
    verify_sealed(small_disk / "sealed", publisher.signer.verifier)
