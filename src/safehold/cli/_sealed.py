"""A sealed model behind the gateway: `secure` and `guard` meet here; neither knows the other."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safehold.errors import UsageError

if TYPE_CHECKING:
    from safehold.guard.gateway.policy import Upstream
    from safehold.guard.gateway.upstreams.embedded import LocalModel
    from safehold.secure.weights.loader import LoadOrder


def sealed_engine(
    folder: Path,
    *,
    grant: str | None,
    keyd: Path,
    publisher: Path | None,
    log_keys: Path | None,
    upstream: str,
    quiet: bool,
) -> "Callable[[Upstream], AbstractContextManager[LocalModel]]":
    """Return the engine that serves a sealed model in place of the embedded one.

    Raises:
        UsageError: an option is missing; a sealed model is never served without a grant.
    """
    from safehold.cli._weights import decrypting_threads
    from safehold.secure.weights.loader import LoadOrder
    from safehold.secure.weights.signer import SealVerifier
    from safehold.trust.log.keys import read_keys

    if upstream != "local":
        raise UsageError("--sealed serves with the embedded engine: expected --upstream local")
    if grant is None or publisher is None or log_keys is None:
        raise UsageError(
            "--sealed needs --grant, --publisher and --log-keys: ask for a grant first"
        )
    order = LoadOrder(
        folder=folder,
        grant=grant,
        keyd=keyd,
        verifier=SealVerifier.read(publisher),
        log_keys=read_keys(log_keys),
        threads=decrypting_threads(),
    )
    return lambda settings: sealed_upstream(order, settings, quiet=quiet)


@contextmanager
def sealed_upstream(
    order: "LoadOrder", upstream: "Upstream", *, quiet: bool
) -> "Iterator[LocalModel]":
    """Serve the one GGUF shard of a sealed model for as long as its grant holds.

    When the grant ends the engine is killed, the plaintext wiped, and this process told to drain
    and exit.

    Raises:
        TrustError: no grant that holds.
        WeightsError: the model can't be loaded.
        LeaseError: the grant ended; the gateway has drained.
    """
    from safehold.cli._weights import plain_size, progress_bar
    from safehold.guard.gateway.upstreams.embedded import GivenModel, LocalServer
    from safehold.secure.weights.interface import LeaseError
    from safehold.secure.weights.loader import load_model, only_shard

    with progress_bar("loading", plain_size(order.folder), quiet=quiet) as progress:
        model = load_model(order, progress)
    with model:
        handle = model.handle(only_shard(model, ".gguf"))
        given = GivenModel(
            path=f"/proc/self/fd/{handle}", handles=(handle,), alias=model.header.model
        )
        server = LocalServer(threads=upstream.threads, slots=upstream.slots, model=given)

        def end(_: str) -> None:
            server.halt()
            os.kill(os.getpid(), signal.SIGTERM)

        def told(*_: object) -> None:
            # The web server drains first and then lets the signal through to here.
            if model.ended.is_set():
                raise LeaseError(model.reason)
            raise SystemExit(128 + signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, told)
        try:
            with server as local:
                model.on_end(end)
                yield local
        finally:
            signal.signal(signal.SIGTERM, before)
        if model.ended.is_set():
            raise LeaseError(model.reason)
