"""Sealed weights in a program's hands, for exactly as long as a grant holds."""

from pathlib import Path

from safehold.secure.weights.loader import GrantedModel, LoadOrder, load_model
from safehold.secure.weights.signer import SealVerifier
from safehold.trust.log.keys import read_keys


def open_weights(
    sealed: str | Path,
    *,
    grant: str,
    publisher: str | Path,
    log_keys: str | Path,
    keyd: str | Path = "/run/safehold/keyd.sock",
    parts: tuple[str, ...] = ("*",),
    threads: int = 1,
    unsafe_swap: bool = False,
) -> GrantedModel:
    """Decrypt a sealed model into memory that never reaches a disk; a context manager.

        with safehold.open_weights("sealed", grant=ID, publisher="publisher",
                                   log_keys="log.json") as model:
            serve(model.path("model.gguf"), stop=model.ended)

    `model.ended` is set when the grant ends; the plaintext is wiped then, and at the end of `with`.

    Args:
        sealed: The folder that `safehold weights seal` made.
        grant: The id of the granted request.
        publisher: Folder with the publisher's public keys.
        log_keys: The `log.json` that you pinned.
        keyd: Socket of the key service.
        parts: Shard names, or `("*",)` for all.
        threads: How many threads decrypt.
        unsafe_swap: Go on where plaintext could be swapped to a disk.

    Raises:
        TrustError: No grant that holds; nothing was decrypted.
        WeightsError: The model, the key service or the host is not as it must be.
    """
    order = LoadOrder(
        folder=Path(sealed),
        grant=grant,
        keyd=Path(keyd),
        verifier=SealVerifier.read(Path(publisher)),
        log_keys=read_keys(Path(log_keys)),
        parts=parts,
        threads=threads,
        unsafe_swap=unsafe_swap,
    )
    return load_model(order)
