"""What breaks while keys and weights are handled is told in one sentence, and nothing opens."""

import base64
import contextlib
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.errors import DependencyError, TrustError
from safehold.secure.weights import memory as memory_module
from safehold.secure.weights.interface import (
    ProviderError,
    SealedFormatError,
    SealTamperError,
    StorageError,
    WeightsError,
    WrongKeyError,
)
from safehold.secure.weights.keyd.client import GrantRefusedError, Lease, check_receipt
from safehold.secure.weights.keyd.config import build_service, prepare_memory, read_config
from safehold.secure.weights.keyd.host import measure_host
from safehold.secure.weights.keyd.interface import (
    Alive,
    GrantRevoked,
    KeydError,
    KeyRefusal,
    Load,
    Receipt,
    Watching,
    WatchRequest,
    receive,
    send,
)
from safehold.secure.weights.keyd.peer import Image, tree_sha256, workload_sha256
from safehold.secure.weights.keys import ReleasedKeys
from safehold.secure.weights.loader import only_shard
from safehold.secure.weights.memory import SealedMemory, has_swap
from safehold.secure.weights.meter.fanotify import MeterError
from safehold.secure.weights.meter.meter import sealed_files
from safehold.secure.weights.providers.local import UnsafeLocalProvider
from safehold.secure.weights.providers.shares import ShareProvider
from safehold.secure.weights.seal import STATE_NAME, discard, find_sources, seal, work_folder
from safehold.secure.weights.signer import SealSigner
from safehold.secure.weights.storage import replace_file, sole_owner
from safehold.secure.weights.verify import verify_sealed
from safehold.testing.weights import Publisher, write_model
from safehold.trust.log import LogKeys, SigningKey, create_log
from safehold.trust.log.keys import write_keys

CONTEXT = {"model": "brewer"}
KEY = bytes(range(32))
pytestmark = pytest.mark.filterwarnings("ignore:key files")


def test_a_key_file_that_is_none_opens_nothing(tmp_path: Path) -> None:
    """A name that leads elsewhere, a second key of one name, a short one, none, a full folder."""
    tmp_path.chmod(0o700)
    local = UnsafeLocalProvider(tmp_path / "keys")
    name = local.create("one")
    blob = local.wrap(name, KEY, CONTEXT)
    assert local.unwrap(name, blob, CONTEXT) == KEY
    with pytest.raises(WrongKeyError):
        local.unwrap(name, blob, {"model": "other"})
    for act, said in (
        (lambda: local.create("one"), "can't make key one"),
        (lambda: local.create("../one"), "the name of a key file"),
        (lambda: local.wrap("none", KEY, CONTEXT), "key none"),
        (lambda: local.destroy("none"), "can't destroy key none"),
    ):
        with pytest.raises(ProviderError, match=said):
            act()
    (tmp_path / "keys" / "one.kek").write_bytes(b"short")
    with pytest.raises(ProviderError, match="expected 32 bytes"):
        local.unwrap(name, blob, CONTEXT)
    assert "overwritten" in local.destroy(name)


def shared(
    folder: Path, shares: int, threshold: int, said: str = "a long passphrase"
) -> ShareProvider:
    """Return a provider whose people all know one passphrase."""
    return ShareProvider(folder, lambda _: said, shares=shares, threshold=threshold)


def test_shares_open_only_together_and_by_their_people(tmp_path: Path) -> None:
    """Too few, a wrong passphrase, mixed keys, a damaged check, other files beside, none at all."""
    folder = tmp_path / "shares"
    provider = shared(folder, 3, 2)
    reference = provider.create("key")
    blob = provider.wrap(reference, KEY, CONTEXT)
    (folder / "other.json").write_text("{}")
    assert provider.unwrap(reference, blob, CONTEXT) == KEY
    with pytest.raises(ProviderError, match="got none"):
        provider.unwrap("nobody", blob, CONTEXT)
    with pytest.raises(WrongKeyError, match="wrong passphrase"):
        shared(folder, 3, 2, "another passphrase").unwrap(reference, blob, CONTEXT)
    files = sorted(folder.glob("*.share-*.json"))
    kept = [path.read_bytes() for path in files]
    for path in files[1:]:
        path.unlink()
    with pytest.raises(ProviderError, match="expected 2 of 3 shares, got 1"):
        provider.unwrap(reference, blob, CONTEXT)
    for path, data in zip(files, kept, strict=True):
        path.write_bytes(data)
    one = msgspec.json.decode(kept[0])
    files[0].write_bytes(msgspec.json.encode(one | {"check": "0" * len(one["check"])}))
    with pytest.raises(WrongKeyError, match="of different keys"):
        provider.unwrap(reference, blob, CONTEXT)
    for path, data in zip(files, kept, strict=True):
        whole = msgspec.json.decode(data)
        path.write_bytes(msgspec.json.encode(whole | {"check": "0" * len(one["check"])}))
    with pytest.raises(WrongKeyError, match="the key that was split"):
        provider.unwrap(reference, blob, CONTEXT)
    with pytest.raises(ProviderError, match="can't write"):
        shared(tmp_path / "shares" / "other.json", 1, 1).create("key")


def test_shares_without_their_extra_say_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of one needs none; more do, to split and to join."""
    provider = shared(tmp_path / "s", 3, 2)
    reference = provider.create("key")
    blob = provider.wrap(reference, KEY, CONTEXT)
    monkeypatch.setitem(sys.modules, "pyshamir", None)
    assert shared(tmp_path / "one", 1, 1).create("key")
    for act in (
        lambda: shared(tmp_path / "more", 3, 2).create("key"),
        lambda: provider.unwrap(reference, blob, CONTEXT),
    ):
        with pytest.raises(DependencyError, match=r"safehold\[weights\]"):
            act()


def test_only_a_folder_of_regular_files_is_sealed(tmp_path: Path) -> None:
    """A file, an empty folder, and a pipe among the files."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SealedFormatError, match="a folder of weights"):
        find_sources(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SealedFormatError, match="at least one file"):
        find_sources(tmp_path / "empty")
    os.mkfifo(tmp_path / "empty" / "pipe.json")
    with pytest.raises(SealedFormatError, match="a regular file"):
        find_sources(tmp_path / "empty")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """A publisher with a small model."""
    made = Publisher(tmp_path)
    write_model(tmp_path / "plain")
    return made


class StoppedError(Exception):
    """A seal is cut off."""


def interrupted(publisher: Publisher, after: int = 2) -> Path:
    """Seal until some progress was told; return the folder that is left."""
    order = publisher.order()
    told = 0

    def stop(_: int) -> None:
        nonlocal told
        told += 1
        if told > after:
            raise StoppedError

    with pytest.raises(StoppedError):
        seal(order, [publisher.provider], publisher.signer, stop)
    return work_folder(order.destination)


def test_an_interrupted_seal_goes_on_only_as_it_began(publisher: Publisher) -> None:
    """Damaged memory of it and other options are refused; thrown away, it is gone."""
    work = interrupted(publisher)
    state = work / STATE_NAME
    kept = state.read_bytes()
    state.write_bytes(b"{")
    with pytest.raises(StorageError, match="can't be read; remove it"):
        seal(publisher.order(resume=True), [publisher.provider], publisher.signer)
    state.write_bytes(kept)
    with pytest.raises(StorageError, match="of other options"):
        seal(publisher.order(version="2", resume=True), [publisher.provider], publisher.signer)
    (work / "left.txt").write_bytes(b"")
    with pytest.raises(StorageError, match="not of this seal"):
        seal(publisher.order(resume=True), [publisher.provider], publisher.signer)
    destination = publisher.order().destination
    assert discard(destination)
    assert not discard(destination)


def test_what_is_not_of_a_sealed_model_is_found(publisher: Publisher) -> None:
    """A manifest that is gone or changed, a file beside, a shard that is longer or cut."""
    header = publisher.seal()
    folder = publisher.order().destination
    verify_sealed(folder, publisher.signer.verifier)
    shard = next(folder.rglob("*.sealed"))
    kept = shard.read_bytes()
    for change in (kept + b"x", kept[:-1], kept[:10]):
        shard.write_bytes(change)
        with pytest.raises(SealTamperError):
            verify_sealed(folder, publisher.signer.verifier)
    shard.write_bytes(kept)
    beside = folder / "beside.sealed"
    beside.write_bytes(b"")
    with pytest.raises(SealTamperError, match="not of this sealed model"):
        verify_sealed(folder, publisher.signer.verifier)
    beside.unlink()
    for path in sorted(folder.glob("manifest.*")):
        data = path.read_bytes()
        path.write_bytes(b"{}")
        with pytest.raises(WeightsError):
            verify_sealed(folder, publisher.signer.verifier)
        path.unlink()
        with pytest.raises(SealTamperError, match="missing or unreadable"):
            verify_sealed(folder, publisher.signer.verifier)
        path.write_bytes(data)
    assert verify_sealed(folder, publisher.signer.verifier).shards == len(header.shards)
    for one in folder.rglob("*.sealed"):
        one.unlink()
    with pytest.raises(MeterError, match="expected sealed files"):
        sealed_files(folder)


def test_keys_that_were_released_are_whole() -> None:
    """No key, and one of another length."""
    with pytest.raises(WeightsError, match="at least one shard"):
        ReleasedKeys({})
    with pytest.raises(SealedFormatError, match="shard keys of"):
        ReleasedKeys({"a": b"short"})


class Named:
    """A model of some names."""

    def __init__(self, *names: str) -> None:
        """Take the names."""
        self.names = names


def test_an_engine_of_one_file_gets_one() -> None:
    """None and several are refused."""
    model = Named("a.gguf", "b.json", "c.json")
    assert only_shard(model, ".gguf") == "a.gguf"  # type: ignore[arg-type]
    for suffix in (".onnx", ".json"):
        with pytest.raises(WeightsError, match="expected one"):
            only_shard(model, suffix)  # type: ignore[arg-type]


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    """A folder in its place refuses and leaves nothing beside; a folder has one owner."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "x").write_bytes(b"")
    with pytest.raises(StorageError, match="can't write place"):
        replace_file(tmp_path / "place", b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["place"]
    with (
        sole_owner(tmp_path),
        pytest.raises(StorageError, match="another process"),
        sole_owner(tmp_path),
    ):
        pass


def test_memory_that_cant_be_had_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """More than there is address space for; what was taken is wiped though a slice is held."""
    with pytest.raises(StorageError, match="can't take memory"):
        SealedMemory("m", 2**62)
    with SealedMemory("m", 5000) as taken:
        taken.take(0, 5000)
        held = taken.view[:4]
        held[:] = b"text"
        assert taken.path.endswith(str(taken.handle))
        path = taken.path
        assert Path(path).read_bytes()[:4] == b"text"
        taken.freeze()
    taken.close()
    assert bytes(held) == bytes(4)
    with SealedMemory("empty", 0) as nothing:
        nothing.take(0, 0)
        assert bytes(nothing.view) == b""
    monkeypatch.setattr(memory_module, "_SWAPS", tmp_path / "none")
    assert has_swap()
    (tmp_path / "none").write_text("Filename Type\n")
    assert not has_swap()


def test_memory_that_is_not_locked_is_refused_where_there_is_swap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Plaintext could reach a disk; `unsafe_swap` says that this is known."""
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename\n/swap\n")
    monkeypatch.setattr(memory_module, "_SWAPS", swaps)
    monkeypatch.setattr(SealedMemory, "_call", lambda *_: 1)
    with pytest.raises(WeightsError, match="RLIMIT_MEMLOCK"):
        SealedMemory("m", 4096)
    with SealedMemory("m", 4096, unsafe_swap=True) as taken:
        assert not taken.locked
        with pytest.raises(StorageError, match="can't take memory"):
            taken.take(0, 4096)
    assert resource.getpagesize() > 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: (root / "__pycache__").mkdir(), "no byte-code cache"),
        (lambda root: (root / "a.pyc").write_bytes(b""), "no byte-code cache"),
        (lambda root: (root / "link").symlink_to("/bin/sh"), "no link"),
        (lambda _: None, "no file there"),
    ],
)
def test_code_that_would_run_otherwise_is_not_measured(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    """A cache, a link, and nothing at all."""
    make(tmp_path)
    with pytest.raises(KeydError, match=said):
        tree_sha256(tmp_path)


def test_a_loader_that_is_gone_is_not_measured(tmp_path: Path) -> None:
    """Neither its image nor its program."""
    with pytest.raises(KeydError, match="ended while it was measured"):
        Image.of(2**22 - 1)
    with pytest.raises(KeydError, match="can't measure the loader"):
        workload_sha256(tmp_path / "none", [])


def test_a_receipt_that_is_none_proves_nothing() -> None:
    """No base64, and no proof."""
    key = SigningKey.generate("log.test/b")
    keys = LogKeys("log.test/b", str(key.verifier), (str(key.verifier),))
    with pytest.raises(KeydError, match="receipt in base64"):
        check_receipt(Receipt(entry="%", proof=""), keys)
    with pytest.raises(TrustError, match="begins with"):
        check_receipt(Receipt(entry=base64.b64encode(b"e").decode(), proof="x"), keys)


@contextlib.contextmanager
def answering(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Have a key service at a path that says what `talk` says."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.close()
        thread.join(30)


@pytest.mark.parametrize(
    ("talk", "error", "said"),
    [
        (lambda to: send(to, KeyRefusal(reason="no grant", trust=True)), GrantRefusedError, "no g"),
        (lambda to: send(to, KeyRefusal(reason="no host", trust=False)), KeydError, "no host"),
        (lambda _: None, KeydError, "."),
        (lambda to: to.sendall(b"\0\0\0\0"), KeydError, "a frame of 1"),
        (lambda to: to.sendall(b"\0\0\0\5{"), KeydError, "within a frame"),
        (lambda to: to.sendall(b"\0\0"), KeydError, "within a frame"),
        (lambda to: to.sendall(b"\0\0\0\2{}"), KeydError, "the key service's protocol"),
    ],
)
def test_a_key_service_that_does_not_answer_gives_no_lease(
    tmp_path: Path, talk: Callable[[socket.socket], None], error: type[Exception], said: str
) -> None:
    """A refusal of trust, one of its own, silence, and frames that are none."""

    def hear_and_talk(to: socket.socket) -> None:
        receive(to, Load | WatchRequest)
        talk(to)

    with (
        answering(tmp_path / "s", hear_and_talk),
        pytest.raises(error, match=said),
    ):
        Lease(tmp_path / "s", WatchRequest(grant="0" * 64), Watching)


def test_nobody_at_the_socket_is_said(tmp_path: Path) -> None:
    """The path and what weights open through."""
    with pytest.raises(KeydError, match="no key service at"):
        Lease(tmp_path / "none", WatchRequest(grant="0" * 64), Watching)


def test_messages_of_a_lease_are_frames() -> None:
    """What is sent is what is received; the end is None, a frame of another kind is refused."""
    one, two = socket.socketpair()
    with one, two:
        send(one, Alive())
        send(one, GrantRevoked(reason="r"))
        assert receive(two, Alive | GrantRevoked) == Alive()
        with pytest.raises(KeydError, match="protocol"):
            receive(two, Alive)
        one.shutdown(socket.SHUT_WR)
        assert receive(two, Alive) is None


def test_a_key_service_is_put_together_and_listens_once(tmp_path: Path) -> None:
    """By its own file on its own host; a second one at the same socket is refused."""
    tmp_path.chmod(0o700)
    key, emitter = SigningKey.generate("log.test/k"), SigningKey.generate("log.test/keyd")
    keys = LogKeys("log.test/k", str(key.verifier), (str(emitter.verifier),))
    create_log(tmp_path / "log", key, keys)
    write_keys(tmp_path / "log.json", keys)
    for name, one in (("log", key), ("keyd", emitter)):
        (tmp_path / f"{name}.key").touch(0o600)
        (tmp_path / f"{name}.key").write_text(one.text())
    SealSigner.generate().write(tmp_path / "publisher")
    prepare_memory(tmp_path / "memory")
    (tmp_path / "memory").chmod(0o700)
    (tmp_path / "local.toml").write_text('kind = "unsafe-local"\nfolder = "keys"\n')
    text = f"""
socket = "keyd.sock"
log = "log"
log_keys = "log.json"
log_key = "log.key"
emitter_key = "keyd.key"
memory = "memory"
publisher = "publisher"
providers = ["local.toml"]
host = "gpu-1"
host_sha256 = "{measure_host().sha256}"
loaders = [54321]
code = []
"""
    (tmp_path / "keyd.toml").write_text(text)
    config = read_config(tmp_path / "keyd.toml")
    service = build_service(config, lambda: 1_800_000_000)
    thread = threading.Thread(target=service.serve, daemon=True)
    thread.start()
    with pytest.raises(KeydError, match="another key service listens"):
        build_service(config, lambda: 1_800_000_000)
    guarded = text + f'endpoint_socket = "none.sock"\nendpoint_policy = "{"0" * 64}"\n'
    (tmp_path / "keyd.toml").write_text(guarded.replace('"keyd.sock"', '"two.sock"'))
    second = build_service(read_config(tmp_path / "keyd.toml"), lambda: 1_800_000_000)
    with pytest.raises(KeydError):
        second._releaser._endpoint()
    other = threading.Thread(target=second.serve, daemon=True)
    other.start()
    for one, runs in ((service, thread), (second, other)):
        one.stop()
        runs.join(30)
