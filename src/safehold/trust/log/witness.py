"""A witness: cosigns a log's checkpoints, and never one that forgets what it cosigned before."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from safehold.trust.clock import SKEW_S
from safehold.trust.log.checkpoint import cosign, open_checkpoint, verify_cosignatures
from safehold.trust.log.dsse import stated_time
from safehold.trust.log.files import write_durably
from safehold.trust.log.interface import (
    Checkpoint,
    ConsistencyProof,
    LogError,
    LogSource,
    LogTamperError,
)
from safehold.trust.log.merkle import EMPTY_ROOT, prove_consistency, verify_consistency
from safehold.trust.log.note import Note, SigningKey, VerifierKey, parse_note
from safehold.trust.log.tiles import TileReader


class SeenTree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The largest tree of one log that the witness has cosigned; `root` in hexadecimal."""

    origin: str
    size: int
    root: str
    time: int


class Witness:
    """Keeps one file per log in a state directory; a lost state directory refuses to start."""

    def __init__(self, state: Path, key: SigningKey) -> None:
        """Open the state directory that `create_witness` made.

        Raises:
            LogError: there is none: a witness without memory would cosign a rollback.
        """
        if not (state / "witness").is_file():
            raise LogError("expected the witness's state directory; a lost one must not be made up")
        self._state = state
        self._key = key

    def seen(self, log: VerifierKey) -> SeenTree | None:
        """Return what was cosigned last of the log, or None."""
        path = self._path(log)
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=SeenTree)
        except (OSError, msgspec.DecodeError) as error:
            raise LogError(f"the witness's memory {path.name} can't be read") from error

    def cosign_copy(self, source: LogSource, log: VerifierKey, now: int) -> Note:
        """Cosign the checkpoint of a log's static files, fetching the proof from its tiles.

        Raises:
            LogTamperError: the log forked, shrank or is signed by another key.
            LogError: its newest leaf lies ahead of this witness's clock.
        """
        data = source.read("checkpoint")
        if data is None:
            raise LogTamperError("the log has no checkpoint")
        head, _ = open_checkpoint(data, log)
        last = self.seen(log)
        old = last.size if last is not None else 0
        reader = TileReader(source, head)
        _check_time(reader, now)
        proof = (
            prove_consistency(old, head.size, reader.node)
            if old <= head.size
            else ConsistencyProof(old=old, new=head.size, hashes=())
        )
        return self.cosign(data, log, proof, now)

    def cosign(
        self, checkpoint: bytes, log: VerifierKey, proof: ConsistencyProof, now: int
    ) -> Note:
        """Return the checkpoint with this witness's cosignature (C2SP tlog-witness).

        Raises:
            LogTamperError: any step fails; nothing is signed.
        """
        with self._locked():
            # 1. The checkpoint is signed by the log's key, and of its origin.
            head, note = open_checkpoint(checkpoint, log)
            # 2. It is not smaller than the last one; an equal one has the same root.
            last = self.seen(log)
            old_size = 0 if last is None else last.size
            old_root = EMPTY_ROOT if last is None else bytes.fromhex(last.root)
            if head.size < old_size:
                raise LogTamperError(
                    f"the log shrank from {old_size} to {head.size} leaves: not cosigned"
                )
            # 3. The proof is from exactly the last size, and holds.
            if (proof.old, proof.new) != (old_size, head.size):
                raise LogTamperError(f"expected a proof from size {old_size}, got {proof.old}")
            verify_consistency(proof, old_root, head.root)
            # 4. The clock is not set back: a cosignature says "the latest, as of now".
            time = now if last is None else max(now, last.time)
            if time - now > SKEW_S:
                raise LogError(
                    f"the witness's clock is {time - now} s behind its last cosignature: set it"
                )
            # 5. Remember durably, then sign.
            self._remember(log, head, time)
            return cosign(note, self._key, time)

    def _path(self, log: VerifierKey) -> Path:
        return self._state / f"log-{log.id.hex()}-{log.public.hex()[:16]}.json"

    def _remember(self, log: VerifierKey, head: Checkpoint, now: int) -> None:
        seen = SeenTree(origin=head.origin, size=head.size, root=head.root.hex(), time=now)
        write_durably(self._path(log), msgspec.json.encode(seen) + b"\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _check_time(reader: TileReader, now: int) -> None:
    """Refuse a newest leaf from a clock that is fast: a witness is the log's second clock."""
    newest = list(reader.entries(max(0, reader.size - 1)))
    time = stated_time(newest[0][1]) if newest else None
    if time is not None and time - now > SKEW_S:
        raise LogError(
            f"the log's newest leaf lies {time - now} s ahead of this witness's clock: not "
            "cosigned; find the fast clock, then `safehold grant correct-clock`"
        )


def create_witness(state: Path) -> None:
    """Make a new, empty memory.

    Raises:
        LogError: the directory already is a witness's.
    """
    if (state / "witness").exists():
        raise LogError("expected a new directory, got one that is a witness's memory")
    write_durably(state / "witness", b"safehold witness state, version 1\n")


def attach(
    root: Path, cosigned: bytes, log: VerifierKey, witnesses: tuple[VerifierKey, ...]
) -> Note:
    """Store a cosigned checkpoint as the log's `witnessed` file, with earlier ones of its size.

    Raises:
        LogTamperError: not the log's checkpoint, or a cosignature is false.
        LogError: no known witness cosigned it, or a newer one is stored.
    """
    head, note = open_checkpoint(cosigned, log)
    if not verify_cosignatures(note, witnesses):
        raise LogError("expected a cosignature by a witness named in log.json")
    path = root / "witnessed"
    if path.exists():
        old_head, old = open_checkpoint(path.read_bytes(), log)
        if old_head.size > head.size:
            raise LogError(f"a newer checkpoint of {old_head.size} leaves is already witnessed")
        if old.text == note.text:
            names = {(one.name, one.key_id) for one in note.signatures}
            kept = tuple(one for one in old.signatures if (one.name, one.key_id) not in names)
            note = parse_note(str(Note(note.text, note.signatures + kept)).encode())
    write_durably(path, str(note).encode())
    return note
