"""Digests of plaintext and ciphertext, computed beside the encryption."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from safehold.errors import DependencyError


class Digest(Protocol):
    """A running hash."""

    def update(self, data: memoryview, /) -> object:
        """Take bytes in."""
        ...

    def hexdigest(self) -> str:
        """Return the digest so far, in hexadecimal."""
        ...


def new_digest(algorithm: str) -> Digest:
    """Return a running hash of 32 bytes: `sha256` or `blake3`.

    Raises:
        DependencyError: blake3 is not installed.
    """
    if algorithm == "sha256":
        return hashlib.sha256()
    try:
        import blake3
    except ImportError as error:
        raise DependencyError("digest blake3: expected `pip install safehold[weights]`") from error
    digest: Digest = blake3.blake3()
    return digest


class BackgroundDigests:
    """Several running hashes, each on a thread of its own: hashing lets other threads run."""

    def __init__(self, algorithm: str, count: int) -> None:
        self._digests = [new_digest(algorithm) for _ in range(count)]
        self._pools = [ThreadPoolExecutor(1) for _ in range(count)]
        self._running: list[Future[object]] = []

    def feed(self, *parts: memoryview) -> None:
        """Start hashing one part on each thread; `wait` before the parts change."""
        self._running = [
            pool.submit(digest.update, part)
            for pool, digest, part in zip(self._pools, self._digests, parts, strict=True)
        ]

    def wait(self) -> None:
        """Wait until what was fed last is hashed."""
        for future in self._running:
            future.result()
        self._running = []

    def finish(self) -> tuple[str, ...]:
        """Return all digests in hexadecimal, and end the threads."""
        self.wait()
        self.close()
        return tuple(digest.hexdigest() for digest in self._digests)

    def close(self) -> None:
        """End the threads."""
        for pool in self._pools:
            pool.shutdown(wait=True)
