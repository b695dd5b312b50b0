"""Sealing and loading beside raw AES-GCM, plain safetensors, cryptotensors and Tink, in one run.

    python bench/weights.py                throughput, rewrap and meter
    python bench/weights.py chunks         throughput by chunk size
    python bench/weights.py load           only loading into memory that is there, with its profile
    python bench/weights.py meter          only the read meter (root)

GB/s per core are bytes by CPU time of the measuring process (10^9 bytes), best of several turns
that alternate between the contestants, so that a busy machine shifts all of them alike; a share is
the median over the turns of the rate by the reference's rate in the same turn. Files are in the
page cache. `cryptotensors` and `tink` are measured where they are installed. Loading is measured
twice: into memory that is there already, and into new memory, which whoever loads a model takes
first. New memory is cheaper where `shmem_enabled` of transparent huge pages is `advise`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from safehold.secure.weights.chunks import DEFAULT_CHUNK_BYTES, Layout, ShardCipher, identity
from safehold.secure.weights.header import open_header, read_header, sign_header
from safehold.secure.weights.interface import HEADER_NAME, Shard
from safehold.secure.weights.keys import derive_keys, unwrap_data_key
from safehold.secure.weights.load import decrypt_chunks, load_shards, read_parallel, spans
from safehold.secure.weights.memory import SealedMemory
from safehold.secure.weights.meter.fanotify import MeterError, open_gate
from safehold.secure.weights.meter.meter import ReadMeter
from safehold.secure.weights.opened import READ_BYTES, Ready, ShardReader, open_sealed
from safehold.secure.weights.rewrap import rewrapped, store_header, wrap_anew
from safehold.secure.weights.seal import SealOrder, seal
from safehold.secure.weights.signer import SealSigner
from safehold.testing.weights import MemoryProvider, write_safetensors

MIB = 2**20
SHMEM_HUGE = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
Contestant = Callable[[ExitStack], int]
"""Does one turn and returns the bytes it handled; what it leaves on the stack ends unmeasured."""


def rate(turn: Contestant) -> float:
    """Return GB/s by CPU time of one turn."""
    with ExitStack() as after:
        began = time.process_time()
        size = turn(after)
        spent = time.process_time() - began
    return size / max(spent, 1e-9) / 1e9


def compete(contestants: dict[str, Contestant], turns: int) -> dict[str, list[float]]:
    """Return the rates of each contestant over alternating turns."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, turn in contestants.items():
            rates[name].append(rate(turn))
    return rates


class RawGcm:
    """The same library's AES-GCM over a whole ciphertext in memory, into other memory.

    That is the least that any loader must do; the turn that stays in one buffer never leaves the
    processor's cache.
    """

    def __init__(self, data: bytes, chunk: int) -> None:
        self.aead, self.nonce, self.chunk = AESGCM(bytes(32)), bytes(12), chunk
        self.size = len(data) // chunk * chunk
        view, sealed = memoryview(data), bytearray(self.size // chunk * (chunk + 16))
        self.sealed = memoryview(sealed)
        for number, at in enumerate(range(0, self.size, chunk)):
            into = self.sealed[number * (chunk + 16) : (number + 1) * (chunk + 16)]
            self.aead.encrypt_into(self.nonce, view[at : at + chunk], b"x" * 40, into)

    def into(self, out: memoryview, ready: Ready | None = None) -> int:
        """Decrypt everything into memory."""
        for number, at in enumerate(range(0, self.size, self.chunk)):
            if ready is not None:
                ready(at, self.chunk)
            part = self.sealed[number * (self.chunk + 16) : (number + 1) * (self.chunk + 16)]
            self.aead.decrypt_into(self.nonce, part, b"x" * 40, out[at : at + self.chunk])
        return self.size

    def into_new(self, after: ExitStack) -> int:
        """Decrypt everything into new sealed memory, taken chunk by chunk as the loader does."""
        memory = after.enter_context(SealedMemory("bench", self.size, unsafe_swap=True))
        return self.into(memory.view, memory.take)


def raw_gcm(data: bytes, chunk: int) -> tuple[Contestant, Contestant]:
    """Return the same library's AES-GCM, encrypting and decrypting into one warm buffer."""
    aead, nonce = AESGCM(bytes(32)), bytes(12)
    data = data[: len(data) // chunk * chunk]
    view = memoryview(data)
    sealed = bytearray(chunk + 16)
    plain = bytearray(chunk)
    aead.encrypt_into(nonce, view[:chunk], b"x" * 40, sealed)

    def encrypt(_: ExitStack) -> int:
        for at in range(0, len(data), chunk):
            aead.encrypt_into(nonce, view[at : at + chunk], b"x" * 40, sealed)
        return len(data)

    def decrypt(_: ExitStack) -> int:
        for _at in range(0, len(data), chunk):
            aead.decrypt_into(nonce, sealed, b"x" * 40, plain)
        return len(data)

    return encrypt, decrypt


def our_cipher(data: bytes, chunk: int) -> Contestant:
    """Return sealing without digests and without writing: what the format itself costs."""
    layout = Layout(len(data), chunk)
    bound = identity(
        seal_id="00" * 16,
        model="m",
        version="1",
        shard="s",
        plain_bytes=len(data),
        chunk_bytes=chunk,
    )
    cipher = ShardCipher(bytes(39), bound, layout, "s")
    view, out = memoryview(data), memoryview(bytearray(chunk + 16))

    def turn(_: ExitStack) -> int:
        for index in range(layout.count):
            at, length = layout.plain(index)
            cipher.seal_into(index, view[at : at + length], out[: length + 16])
        return len(data)

    return turn


class Sealed:
    """A sealed model of one shard, and ways to load it."""

    def __init__(self, root: Path, size: int, chunk: int, digest: str = "sha256") -> None:
        self.root = root
        self.plain = root / "plain"
        self.plain.mkdir(parents=True)
        rows = size // 4 // 1024
        self.file = self.plain / "model.safetensors"
        tensor = np.random.default_rng(0).random((rows, 1024), dtype=np.float32)
        write_safetensors(self.file, {"weight": tensor})
        self.provider, self.signer = MemoryProvider(), SealSigner.generate()
        self.digest, self.chunk, self.turns = digest, chunk, 0
        self.header = self._seal("sealed")
        data_key, _ = unwrap_data_key(self.header, [self.provider])
        self.data_key = data_key
        self.keys = derive_keys(data_key, self.header, ["model.safetensors"])
        self.size = self.header.plain_bytes
        # Memory as the loader has it: whole pages, all there.
        memory = SealedMemory("bench", self.size, unsafe_swap=True)
        memory.take(0, self.size)
        self.out = memory.view

    def _seal(self, name: str):  # noqa: ANN202 - a header
        order = SealOrder(
            source=self.plain,
            destination=self.root / name,
            model="bench",
            version="1",
            created=0,
            chunk_bytes=self.chunk,
            digest=self.digest,
        )
        return seal(order, [self.provider], self.signer)

    def seal_again(self, _: ExitStack) -> int:
        """Seal anew, digests, manifests, sync and all."""
        self.turns += 1
        header = self._seal(f"again-{self.digest}-{self.turns}")
        return header.plain_bytes

    def load(self, _: ExitStack) -> int:
        """Read, verify and decrypt everything into memory that is there already."""
        with open_sealed(self.root / "sealed", "model.safetensors") as handle:
            shard = self.header.shards[0]
            reader = ShardReader(self.header, shard, self.keys.key(shard.name), handle)
            reader.read_into(0, self.out)
        return self.size

    def read_only(self, _: ExitStack) -> int:
        """Only read the sealed chunks, by as many at once as the loader: half of loading."""
        layout, span = Layout(self.size, self.chunk), max(1, READ_BYTES // self.chunk)
        buffer = memoryview(bytearray(span * (self.chunk + 16)))
        with (self.root / "sealed" / "model.safetensors.sealed").open("rb", buffering=0) as file:
            handle = file.fileno()
            for index in range(0, layout.count, span):
                begin, _ = layout.sealed(index)
                offset, length = layout.sealed(min(index + span, layout.count) - 1)
                os.preadv(handle, [buffer[: offset + length - begin]], begin)
        return self.size

    def load_threads(self, _: ExitStack) -> int:
        """The same by two threads."""
        read_parallel(
            self.root / "sealed", self.header, self.keys, "model.safetensors", self.out, threads=2
        )
        return self.size

    def load_new(self, after: ExitStack) -> int:
        """Load as `safehold weights load` does, into new sealed memory."""
        shards = load_shards(self.root / "sealed", self.header, self.keys, unsafe_swap=True)
        after.enter_context(shards)
        return self.size

    def read_plain(self, _: ExitStack) -> int:
        """Read the plain file into the same memory."""
        with self.file.open("rb", buffering=0) as file:
            return file.readinto(self.out)

    def read_plain_new(self, after: ExitStack) -> int:
        """Read the plain file into new sealed memory."""
        memory = after.enter_context(SealedMemory("bench", self.size, unsafe_swap=True))
        with self.file.open("rb", buffering=0) as file:
            for at in range(0, self.size, self.chunk):
                memory.take(at, min(self.chunk, self.size - at))
                file.readinto(memory.view[at : at + self.chunk])
        return self.size


def others(sealed: Sealed) -> tuple[dict[str, Contestant], dict[str, Contestant]]:
    """Return the other products that are installed: (writing, reading)."""
    writing: dict[str, Contestant] = {}
    reading: dict[str, Contestant] = {}
    from safetensors.numpy import load_file, save_file  # noqa: PLC0415 - optional

    tensors = load_file(sealed.file)
    size = sum(one.nbytes for one in tensors.values())
    target = sealed.root / "plain.safetensors"
    writing["safetensors, plain: save"] = lambda _: save_file(tensors, target) or size
    reading["safetensors, plain: load"] = lambda _: sum(
        one.nbytes for one in load_file(sealed.file).values()
    )
    try:
        import cryptotensors  # noqa: PLC0415 - optional
        from cryptotensors.numpy import load_file as ct_load  # noqa: PLC0415
        from cryptotensors.numpy import save_file as ct_save  # noqa: PLC0415
    except ImportError:
        pass
    else:
        config = _cryptotensors_keys(cryptotensors)
        path = sealed.root / "ct.safetensors"
        ct_save(tensors, path, config=config)
        writing["cryptotensors: save"] = lambda _: ct_save(tensors, path, config=config) or size
        reading["cryptotensors: load"] = lambda _: sum(one.nbytes for one in ct_load(path).values())
    try:
        import io  # noqa: PLC0415 - with the next

        import tink  # noqa: PLC0415 - optional
        from tink import streaming_aead  # noqa: PLC0415
    except ImportError:
        return writing, reading
    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    primitive = tink.new_keyset_handle(template).primitive(streaming_aead.StreamingAead)
    data = sealed.file.read_bytes()

    class Kept(io.BytesIO):
        def close(self) -> None:
            """Keep what was written."""

    def encrypt(_: ExitStack) -> int:
        with primitive.new_encrypting_stream(Kept(), b"aad") as stream:
            view = memoryview(data)
            for at in range(0, len(data), MIB):
                stream.write(view[at : at + MIB])
        return len(data)

    kept = Kept()
    with primitive.new_encrypting_stream(kept, b"aad") as stream:
        stream.write(data)
    ciphertext = kept.getvalue()

    def decrypt(after: ExitStack) -> int:
        parts: list[bytes] = []
        after.callback(parts.clear)  # a loader keeps what it read
        with primitive.new_decrypting_stream(io.BytesIO(ciphertext), b"aad") as stream:
            while part := stream.read(MIB):
                parts.append(part)
        return sum(map(len, parts))

    writing["Tink AES256_GCM_HKDF_1MB: encrypt"] = encrypt
    reading["Tink AES256_GCM_HKDF_1MB: decrypt"] = decrypt
    return writing, reading


def _cryptotensors_keys(cryptotensors):  # noqa: ANN001, ANN202 - a foreign module
    import base64  # noqa: PLC0415 - for its JWKs

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    private = Ed25519PrivateKey.generate()
    enc = {"kty": "oct", "kid": "enc", "alg": "aes256gcm", "k": text(os.urandom(32))}
    sign = {
        "kty": "okp",
        "kid": "sign",
        "alg": "ed25519",
        "d": text(private.private_bytes_raw()),
        "x": text(private.public_key().public_bytes_raw()),
    }
    cryptotensors.register_direct_key_provider(keys=[enc, sign])
    return {"enc_kid": "enc", "sign_kid": "sign"}


def show(title: str, rates: dict[str, list[float]], reference: str) -> None:
    """Print a table, each best rate with its median share of the reference's."""
    print(f"\n{title}")
    for name, turns in rates.items():
        share = statistics.median(
            one / other for one, other in zip(turns, rates[reference], strict=True)
        )
        print(f"  {name:44} {max(turns):6.2f} GB/s per core   {share:6.1%}")


def throughput(root: Path, size: int, turns: int) -> None:
    """Print sealing and loading."""
    sealed = Sealed(root / "a", size, DEFAULT_CHUNK_BYTES)
    blake = Sealed(root / "b", size, DEFAULT_CHUNK_BYTES, digest="blake3")
    data = sealed.file.read_bytes()
    encrypt, decrypt = raw_gcm(data, DEFAULT_CHUNK_BYTES)
    raw = RawGcm(data, DEFAULT_CHUNK_BYTES)
    writing, reading = others(sealed)
    reference = "raw AES-256-GCM, same library"
    contestants = {
        reference: encrypt,
        "seal: cipher alone": our_cipher(data, DEFAULT_CHUNK_BYTES),
        "seal: whole, two BLAKE3 digests": blake.seal_again,
        "seal: whole, two SHA-256 digests": sealed.seal_again,
        **writing,
    }
    kib = DEFAULT_CHUNK_BYTES // 1024
    show(f"Writing {size // MIB} MiB (chunks of {kib} KiB)", compete(contestants, turns), reference)
    existing(sealed, raw, decrypt, turns)
    reference = "raw AES-256-GCM, memory to new memory"
    contestants = {
        reference: raw.into_new,
        "load: `safehold weights load`": sealed.load_new,
        "read() of the plain file": sealed.read_plain_new,
        **reading,
    }
    pages = SHMEM_HUGE.read_text().partition("[")[2].partition("]")[0]
    show(
        f"Reading {size // MIB} MiB into new memory (shmem_enabled: {pages})",
        compete(contestants, turns),
        reference,
    )


def existing(sealed: Sealed, raw: RawGcm, decrypt: Contestant, turns: int) -> None:
    """Print loading into memory that is there already, and its two halves each alone."""
    reference = "raw AES-256-GCM, memory to memory"
    contestants = {
        reference: lambda _: raw.into(sealed.out),
        "load: read, verify, decrypt": sealed.load,
        "  its profile: only read the sealed chunks": sealed.read_only,
        "  its profile: only decrypt, in the cache": decrypt,
        "load: the same, two threads": sealed.load_threads,
        "read() of the plain file": sealed.read_plain,
    }
    show(
        f"Reading {sealed.size // MIB} MiB into memory that is there already",
        compete(contestants, turns),
        reference,
    )


def load(root: Path, size: int, turns: int) -> None:
    """Print only loading into memory that is there already."""
    sealed = Sealed(root / "a", size, DEFAULT_CHUNK_BYTES)
    data = sealed.file.read_bytes()
    _, decrypt = raw_gcm(data, DEFAULT_CHUNK_BYTES)
    raw = RawGcm(data, DEFAULT_CHUNK_BYTES)
    existing(sealed, raw, decrypt, turns)
    duration(sealed, raw, turns)


def duration(sealed: Sealed, raw: RawGcm, turns: int) -> None:
    """Print how long loading takes on two threads, beside raw AES-GCM on one.

    The clock on the wall counts what else the machine does. The longest thread's CPU time does not:
    it is what two free cores would take, but for memory that both wait for.
    """

    def two_threads() -> float:
        layout = Layout(sealed.size, sealed.chunk)
        spent: list[float] = []

        def work(span: tuple[int, int]) -> None:
            began = time.thread_time()
            with open_sealed(sealed.root / "sealed", "model.safetensors") as handle:
                shard = sealed.header.shards[0]
                reader = ShardReader(sealed.header, shard, sealed.keys.key(shard.name), handle)
                decrypt_chunks(reader, sealed.out, *span)
            spent.append(time.thread_time() - began)

        threads = [threading.Thread(target=work, args=(one,)) for one in spans(layout.count, 2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return max(spent)

    rows: dict[str, list[float]] = {"wall": [], "longest thread": []}
    for _ in range(turns):
        began, cpu = time.perf_counter(), time.thread_time()
        raw.into(sealed.out)
        one_wall, one_cpu = time.perf_counter() - began, time.thread_time() - cpu
        began = time.perf_counter()
        longest = two_threads()
        rows["wall"].append(one_wall / (time.perf_counter() - began))
        rows["longest thread"].append(one_cpu / longest)
    print("\nHow long: loading on two threads beside raw AES-GCM, memory to memory, on one")
    for name, shares in rows.items():
        print(f"  by {name:41} {statistics.median(shares):6.1%} of its rate")


def chunks(root: Path, size: int, turns: int) -> None:
    """Print loading and sealing by chunk size."""
    data = os.urandom(size)
    for kib in (16, 64, 128, 256, 512, 1024):
        sealed = Sealed(root / str(kib), size, kib * 1024, digest="blake3")
        encrypt, decrypt = raw_gcm(data, kib * 1024)
        show(
            f"{kib} KiB",
            compete(
                {
                    "raw decrypt": decrypt,
                    "load": sealed.load,
                    "raw encrypt": encrypt,
                    "seal: cipher alone": our_cipher(data, kib * 1024),
                },
                turns,
            ),
            "raw decrypt",
        )


def rewrap(root: Path) -> None:
    """Print the time to rewrap a synthetic header of a 1 TB model (10,000 shards of 100 MB)."""
    sealed = Sealed(root / "r", 4 * MIB, DEFAULT_CHUNK_BYTES)
    shard = sealed.header.shards[0]
    shards = tuple(
        Shard(
            name=f"model-{number:05}-of-10000.safetensors",
            plain_bytes=100_000_000,
            salt=os.urandom(32).hex(),
            plain_digest=os.urandom(32).hex(),
            sealed_digest=shard.sealed_digest,
        )
        for number in range(10_000)
    )
    header = msgspec.structs.replace(sealed.header, shards=shards)
    folder = root / "r" / "sealed"
    (folder / HEADER_NAME).write_bytes(sign_header(header, sealed.signer))
    began = time.perf_counter()
    there = open_header(read_header(folder), sealed.signer.verifier)
    data_key, _ = unwrap_data_key(there, [sealed.provider])
    new = rewrapped(there, wrap_anew(there, data_key, [MemoryProvider("other")]))
    store_header(folder, new, sealed.signer)
    took = time.perf_counter() - began
    size = (folder / HEADER_NAME).stat().st_size
    print(f"\nRewrap of a {there.plain_bytes / 1e12:.0f} TB model ({size / 1e6:.1f} MB of header)")
    print(f"  verify, unwrap, wrap, sign, store            {took:.3f} s")


_READER = """
import os, sys, time
path, block, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
handle, buffer = os.open(path, os.O_RDONLY), bytearray(int(block))
size = os.fstat(handle).st_size
best = 0
for _ in range(rounds):
    began = time.perf_counter()
    for at in range(0, size, block):
        os.preadv(handle, [buffer], at)
    best = max(best, size / (time.perf_counter() - began))
print(best)
"""


def meter(root: Path, turns: int) -> None:
    """Print what the meter costs a reader, by the size of its reads (wall time)."""
    file = root / "metered"
    file.write_bytes(os.urandom(256 * MIB))

    def read(block: int) -> float:
        words = [sys.executable, "-c", _READER, str(file), str(block), "3"]
        return float(subprocess.run(words, capture_output=True, check=True).stdout) / 1e9

    def metered(block: int) -> float:
        with open_gate([file]) as gate:
            running = ReadMeter(gate, 2**50)
            thread = threading.Thread(target=running.run)
            thread.start()
            try:
                return read(block)
            finally:
                running.stop()
                thread.join()

    try:
        with open_gate([file]) as gate:
            print(f"\nRead meter by {gate.active.value} events, reads of 256 MiB, wall time")
    except MeterError as error:
        print(f"\nRead meter: not measured: {error}")
        return
    for block in (MIB, 256 * 1024, 64 * 1024, 4096):
        pairs = [(read(block), metered(block)) for _ in range(turns)]
        free, held = max(one for one, _ in pairs), max(two for _, two in pairs)
        middle = statistics.median(1 - two / one for one, two in pairs)
        print(
            f"  {block // 1024:5} KiB reads   {free:5.2f} -> {held:5.2f} GB/s   "
            f"overhead {1 - held / free:6.1%} (median of {turns} pairs {middle:.1%})"
        )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "part", nargs="?", choices=["all", "load", "chunks", "meter"], default="all"
    )
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="safehold-bench-") as folder:
        root = Path(folder)
        if arguments.part == "chunks":
            chunks(root, arguments.mib * MIB, arguments.turns)
            return
        if arguments.part == "load":
            load(root, arguments.mib * MIB, arguments.turns)
            return
        if arguments.part == "all":
            throughput(root, arguments.mib * MIB, arguments.turns)
            rewrap(root)
        meter(root, arguments.turns)


if __name__ == "__main__":
    main()
