"""A sealed model in use: plaintext in sealed memory for exactly as long as its grant holds.

    with load_model(order) as model:
        serve(model.path("model.gguf"), stop=model.ended)

Whatever serves the model needs only `LoadedModel`; it never sees grants, keys or the key service.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from safehold.errors import SafeholdError, WeightsError
from safehold.secure.weights.header import open_header, read_header
from safehold.secure.weights.interface import Header
from safehold.secure.weights.keyd.client import Lease, check_receipt
from safehold.secure.weights.keyd.interface import Keys, Load
from safehold.secure.weights.keys import ReleasedKeys
from safehold.secure.weights.load import LoadedShards, Progress, load_shards
from safehold.secure.weights.memory import protect_process
from safehold.secure.weights.signer import SealVerifier
from safehold.trust.grants.events import Released
from safehold.trust.log.interface import LogTamperError
from safehold.trust.log.keys import LogKeys


class LoadedModel(Protocol):
    """What a serving engine gets: paths that it may open, and the moment when it must stop."""

    @property
    def names(self) -> tuple[str, ...]:
        """The shards at hand."""
        ...

    @property
    def ended(self) -> threading.Event:
        """Set when the grant ended: the plaintext is being wiped."""
        ...

    def path(self, name: str) -> str:
        """Return where this process opens a shard (`/proc/self/fd/N`)."""
        ...

    def on_end(self, callback: Callable[[str], None]) -> None:
        """Call with the reason when the grant ends, before the plaintext is wiped."""
        ...


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to load, from where, under which grant, and whom to believe."""

    folder: Path
    grant: str
    keyd: Path
    verifier: SealVerifier
    log_keys: LogKeys
    parts: tuple[str, ...] = ("*",)
    threads: int = 1
    unsafe_swap: bool = False


class GrantedModel:
    """A `LoadedModel` whose lease is held by the key service."""

    def __init__(self, lease: Lease, shards: LoadedShards) -> None:
        self._lease = lease
        self._shards = shards
        self._callbacks: list[Callable[[str], None]] = []
        self._lock = threading.Lock()
        self._over = False
        self._wiped = threading.Event()
        lease.on_end(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def header(self) -> Header:
        """The model's verified header."""
        return self._shards.header

    @property
    def names(self) -> tuple[str, ...]:
        """The shards at hand."""
        return self._shards.names

    @property
    def ended(self) -> threading.Event:
        """Set when the grant ended."""
        return self._lease.ended

    @property
    def wiped(self) -> threading.Event:
        """Set when the plaintext is gone."""
        return self._wiped

    @property
    def reason(self) -> str:
        """Why the grant ended, or nothing yet."""
        return self._lease.reason

    @property
    def expires(self) -> int:
        """When the grant expires, POSIX seconds."""
        answer: Keys = self._lease.answer
        return answer.expires

    def path(self, name: str) -> str:
        """Return where this process opens a shard.

        Raises:
            LeaseError: the grant ended.
        """
        self._lease.check()
        return self._shards.memory(name).path

    def handle(self, name: str) -> int:
        """Return a shard's file descriptor, for a child process to inherit.

        Raises:
            LeaseError: the grant ended.
        """
        self._lease.check()
        return self._shards.memory(name).handle

    def view(self, name: str) -> memoryview:
        """Return a shard's bytes; borrowed, never kept beyond `close`."""
        self._lease.check()
        return self._shards.memory(name).view

    def on_end(self, callback: Callable[[str], None]) -> None:
        """Call with the reason when the grant ends, before the plaintext is wiped."""
        with self._lock:
            self._callbacks.append(callback)
            late = self._over
        if late:
            callback(self.reason)

    def close(self) -> None:
        """Wipe the plaintext and give the lease back."""
        self._lease.close()
        self._shards.close()
        self._wiped.set()

    def _end(self, reason: str) -> None:
        with self._lock:
            self._over = True
            callbacks = list(self._callbacks)
        try:
            for callback in callbacks:
                callback(reason)
        finally:
            self._shards.wipe()
            self._wiped.set()


def load_model(order: LoadOrder, progress: Progress | None = None) -> GrantedModel:
    """Load a sealed model under a grant.

    Raises:
        TrustError: no grant that holds; nothing was decrypted.
        WeightsError: the model, the key service or the host is not as it must be.
    """
    # 1. The header is the publisher's, before anybody is asked.
    text = read_header(order.folder)
    header = open_header(text, order.verifier)
    # 2. Plaintext must not leave by core dump or debugger.
    protect_process()
    # 3. The key service releases the keys of these shards, and the log proves it.
    ask = Load(grant=order.grant, header=text.decode(), parts=order.parts)
    lease = Lease(order.keyd, ask, Keys)
    try:
        answer: Keys = lease.answer
        leaf = check_receipt(answer.receipt, order.log_keys)
        if not isinstance(leaf, Released) or leaf.request != order.grant:
            raise LogTamperError("expected the log's leaf about this release, got another")
        keys = ReleasedKeys(answer.keys)

        def step(count: int) -> None:
            lease.check()
            if progress is not None:
                progress(count)

        # 4. Decrypt into memory that never reaches a disk, stopping if the grant ends meanwhile;
        #    then forget the keys.
        shards = load_shards(
            order.folder,
            header,
            keys,
            order.parts,
            threads=order.threads,
            unsafe_swap=order.unsafe_swap,
            progress=step,
        )
        keys.forget()
    except SafeholdError:
        lease.close()
        raise
    return GrantedModel(lease, shards)


def only_shard(model: LoadedModel, suffix: str) -> str:
    """Return the one shard with a suffix (`.gguf`), for engines that take one file.

    Raises:
        WeightsError: none, or several.
    """
    found = [name for name in model.names if name.endswith(suffix)]
    if len(found) != 1:
        raise WeightsError(f"expected one {suffix} shard, got {len(found)}")
    return found[0]
