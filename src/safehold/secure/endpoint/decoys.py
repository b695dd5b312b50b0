"""Decoys: weights, keys and credentials that open nothing. Nobody has a reason to touch them.

The kernel asks before each open; it is always allowed, and is a leaf and a case. What a decoy
holds is random: it is known by its digest alone, so a copy that turns up elsewhere is known too.
"""

import base64
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from safehold.errors import EndpointError
from safehold.secure.fanotify.group import Group
from safehold.secure.fanotify.hold import Beat
from safehold.secure.fanotify.interface import Asked, Scope
from safehold.trust.log.log_entries import Record

_WAIT_S = 0.5
_QUIET_S = 60


class DecoyError(EndpointError):
    """Look at the decoy's place: it can't be written or watched, or something true is there."""


class Lure(StrEnum):
    """What a decoy looks like."""

    WEIGHTS = "weights"
    KEY = "key"
    CREDENTIALS = "credentials"


class Decoy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One decoy: where, what it looks like, its digest, and when it was written (POSIX seconds)."""

    path: str
    lure: Lure
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    made: int


class Touch(msgspec.Struct, frozen=True):
    """Who opened a decoy: process, program, user id, and when (POSIX seconds)."""

    decoy: str
    lure: Lure
    pid: int
    exe: str
    uid: int
    time: int


def content(lure: Lure) -> bytes:
    """Return new content: of the right form, and of no use."""
    match lure:
        case Lure.WEIGHTS:
            data = secrets.token_bytes(1 << 20)
            shape = {"dtype": "F32", "shape": [512, 512], "data_offsets": [0, len(data)]}
            head = json.dumps({"model.embed_tokens.weight": shape}).encode()
            head += b" " * (-len(head) % 8)
            return struct.pack("<Q", len(head)) + head + data
        case Lure.KEY:
            body = base64.encodebytes(secrets.token_bytes(300)).decode()
            return f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n".encode()
        case Lure.CREDENTIALS:
            name = base64.b32encode(secrets.token_bytes(10)).decode()
            secret = base64.b64encode(secrets.token_bytes(30)).decode()
            text = f"[default]\naws_access_key_id = AKIA{name}\naws_secret_access_key = {secret}\n"
            return text.encode()


def write(path: Path, lure: Lure, now: int, known: Decoy | None = None) -> Decoy:
    """Write a decoy, or rotate the known one; never over anything else.

    Raises:
        DecoyError: something is there that is not the known decoy, or the disk refused.
    """
    try:
        if path.exists():
            here = hashlib.sha256(path.read_bytes()).hexdigest()
            if known is None or here != known.sha256:
                raise DecoyError(f"{path.name}: something is there that is no decoy of ours")
        data = content(lure)
        fresh = path.with_name(f".{path.name}.new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        _blend(fresh, path)
        fresh.rename(path)
    except OSError as error:
        raise DecoyError(f"{path.name}: can't be written ({error.strerror})") from error
    return Decoy(str(path.absolute()), lure, hashlib.sha256(data).hexdigest(), now)


def _blend(fresh: Path, path: Path) -> None:
    """Give a decoy the times of some file beside it: the newest file of a folder stands out."""
    beside = [
        one
        for one in path.parent.iterdir()
        if one not in (fresh, path) and not one.is_symlink() and one.is_file()
    ]
    if beside:
        found = secrets.choice(beside).stat()
        os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))


def read_book(path: Path) -> tuple[Decoy, ...]:
    """Return the decoys that were written; none if there is no book.

    Raises:
        DecoyError: the book is malformed.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Decoy, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError) as error:
        raise DecoyError(f"{path.name}: expected a list of decoys") from error


def store_book(path: Path, decoys: Sequence[Decoy]) -> None:
    """Keep the list, for root alone: it tells which files are false.

    Raises:
        DecoyError: the disk refused.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(decoys))
        fresh.rename(path)
    except OSError as error:
        raise DecoyError(f"{path.name}: can't be written ({error.strerror})") from error


def leaf(touch: Touch, host: str) -> Record:
    """Return the leaf of one touch: an incident, without the decoy's place."""
    return Record(
        time=touch.time,
        kind="incident",
        facts={
            "event": "decoy-touched",
            "host": host,
            "lure": touch.lure,
            "uid": str(touch.uid),
            "program": Path(touch.exe).name or "unknown",
        },
        digests={"case": hashlib.sha256(msgspec.json.encode(touch)).hexdigest()},
    )


class DecoyWatch:
    """Tells every touch; one program that reads on is told once a minute for each decoy.

    Args:
        decoys: What to watch; an empty list is an error.
        on_touch: Told while the toucher still waits.
        clock: POSIX seconds.
        exempt: Process ids that may touch them: whoever rotates them.
    """

    def __init__(
        self,
        decoys: Sequence[Decoy],
        on_touch: Callable[[Touch], None],
        clock: Callable[[], int],
        exempt: frozenset[int] = frozenset(),
    ) -> None:
        if not decoys:
            raise DecoyError("expected at least one decoy to watch, got none")
        self._decoys: dict[tuple[int, int], Decoy] = {}
        for decoy in decoys:
            try:
                found = Path(decoy.path).stat()
            except OSError as error:
                raise DecoyError(f"{decoy.path}: the decoy is gone") from error
            self._decoys[found.st_dev, found.st_ino] = decoy
        self._on_touch = on_touch
        self._clock = clock
        self._exempt = exempt
        self._told: dict[tuple[str, str, int], int] = {}

    def mark(self, group: Group) -> None:
        """Have the kernel ask about each decoy."""
        for decoy in self._decoys.values():
            group.mark(os.fsencode(decoy.path), Asked.OPEN, Scope.FILE)

    def work(self, group: Group, beat: Beat) -> None:
        """Answer until the holder is gone; a `Work` of `safehold.secure.fanotify.hold`."""
        while not beat.orphaned():
            beat.now()
            self.answer(group, _WAIT_S)

    def answer(self, group: Group, timeout_s: float) -> None:
        """Answer what waits: always allowed, after it was told."""
        for question in group.questions(timeout_s):
            try:
                self._tell(question.event.handle, question.event.pid)
            finally:
                question.answer(allow=True)

    def _tell(self, handle: int, pid: int) -> None:
        found = os.fstat(handle)
        decoy = self._decoys.get((found.st_dev, found.st_ino))
        if decoy is None or pid in self._exempt:
            return
        try:
            exe = os.readlink(f"/proc/{pid}/exe")
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            exe, uid = "", 2**32 - 1
        now = self._clock()
        key = (decoy.path, exe, uid)
        if now - self._told.get(key, -_QUIET_S) >= _QUIET_S:
            self._told[key] = now
            self._on_touch(Touch(decoy.path, decoy.lure, pid, exe, uid, now))
