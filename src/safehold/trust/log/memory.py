"""What a host knows of the one log whose grants it takes: the log's keys, and the tree it saw.

A log that is only named on a command line could be anybody's: one person makes a log, founds an
enclave of two names in it, and approves for both. So whoever takes a grant holds the log against
this file first. It is made once, from a pinned `log.json`; a lost one refuses.
"""

from pathlib import Path

import msgspec

from safehold.trust.log.checkpoint import open_checkpoint
from safehold.trust.log.files import change_whole, write_new
from safehold.trust.log.interface import LogError, LogSource, LogTamperError
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.merkle import EMPTY_ROOT, prove_consistency, verify_consistency
from safehold.trust.log.tiles import TileReader


class LogMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys that were pinned, and the largest tree that was seen; `root` in hexadecimal."""

    keys: LogKeys
    size: int = 0
    root: str = EMPTY_ROOT.hex()


def begin_log_memory(path: Path, keys: LogKeys) -> None:
    """Make the memory of a host that has seen nothing of its log: once, when it is set up.

    Raises:
        LogError: there is one, the log is not founded yet, or the disk refused.
    """
    if not keys.founding:
        raise LogError("expected the log.json of a founded log: this one pins no founding")
    try:
        write_new(path, msgspec.json.encode(LogMemory(keys)) + b"\n", mode=0o644)
    except FileExistsError as error:
        raise LogError(f"{path}: there is a memory of a log already; it stays") from error
    except OSError as error:
        raise LogError(f"{path}: can't be made ({error.strerror})") from error


def hold_against(path: Path, keys: LogKeys, source: LogSource) -> None:
    """Refuse a log that is not the pinned one, or lacks what was seen of it; remember its tree.

    Args:
        path: The memory.
        keys: What the log at hand says of its keys and its founding.
        source: Its static files.

    Raises:
        LogError: the memory is lost, damaged or can't be written.
        LogTamperError: another log, another founding, a smaller tree or another history.
    """

    def later(data: bytes | None) -> bytes:
        if data is None:
            raise LogError(
                f"{path}: the memory of the log is not there: bring it back from a backup, or make "
                "it once from your pinned log.json"
            )
        try:
            known = msgspec.json.decode(data, type=LogMemory)
            root = bytes.fromhex(known.root)
        except (ValueError, RecursionError) as error:
            raise LogError(f"{path}: the memory of the log is damaged") from error
        # 1. The same log and the same founding: witnesses and emitters may have been added since.
        for name in ("origin", "key", "founding"):
            if getattr(keys, name) != getattr(known.keys, name):
                raise LogTamperError(f"expected the log that {path} pins, got another {name}")
        # 2. Signed by the pinned key, and it goes on from what was seen.
        signed = source.read("checkpoint")
        if signed is None:
            raise LogTamperError("the log has no checkpoint")
        head, _ = open_checkpoint(signed, known.keys.log_key(), origin=known.keys.origin)
        if head.size < known.size:
            raise LogTamperError(
                f"the log shrank from {known.size} to {head.size} leaves: a rollback"
            )
        proof = prove_consistency(known.size, head.size, TileReader(source, head).node)
        verify_consistency(proof, root, head.root)
        new = msgspec.structs.replace(known, size=head.size, root=head.root.hex())
        return msgspec.json.encode(new) + b"\n"

    try:
        change_whole(path, later)
    except OSError as error:
        raise LogError(f"{path}: can't be written ({error.strerror})") from error
