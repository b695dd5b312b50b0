"""Signed rows of explained bytes: what a legitimate sender says that it sent.

A row is one JSON line. Its signature (Ed25519, or HMAC-SHA-256 with a key file for senders without
a key pair) covers a domain tag and the row's canonical JSON without `sig`. Rows of one sender
form a chain: `seq` counts up by one and `prev` is the SHA-256 of the row before, so a row can't be
replayed, dropped or reordered unseen. The reader holds each sender to the flows it is registered
for.

Any sender may write rows, in any language: the format is in docs/egress.md.
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safehold.secure.egress.declare.register import MAX_FLOWS
from safehold.secure.egress.interface import ExplainedRowError

DOMAIN = b"safehold/egress/explained/v1\n"
MAX_ROW_BYTES = 4_096
MAX_SPAN_S = 6 * 3600.0
MIN_KEY_BYTES = 32
START = "0" * 64


class ExplainedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one sender sent on one flow in one span of time.

    `size` are payload bytes handed to the transport, `items` the replies or files they were in,
    `account` whom they went to (empty when nobody), `digest` the SHA-256 of the content,
    `start` and `end` Unix seconds.
    """

    sender: str
    flow: str
    seq: int
    prev: str
    start: float
    end: float
    size: int
    items: int
    digest: str
    account: str = ""
    tokens: int = 0
    v: int = 1
    sig: str = ""

    def signed_part(self) -> bytes:
        """The bytes that the signature covers."""
        plain = msgspec.structs.replace(self, sig="")
        return DOMAIN + msgspec.json.encode(plain, order="sorted")

    def line(self) -> bytes:
        """The row as its line in the file, without the newline."""
        return msgspec.json.encode(self)


class Signer(Protocol):
    """Signs rows."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        ...


class Verifier(Protocol):
    """Checks the signatures of one sender."""

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is the sender's."""
        ...


class Ed25519Signer:
    """Signs with a private key; preferred, as the reader then holds no secret."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(message)


class Ed25519Verifier:
    """Checks with a public key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is genuine."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class HmacKey:
    """Signs and checks with one shared secret of at least 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_KEY_BYTES:
            raise ExplainedRowError(f"expected a key of at least {MIN_KEY_BYTES} bytes")
        self._secret = secret

    def sign(self, message: bytes) -> bytes:
        """Return the HMAC-SHA-256."""
        return hmac.digest(self._secret, message, "sha256")

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.sign(message), signature)


class Sender(msgspec.Struct, frozen=True):
    """A sender as the reader knows it: how to check it, and the flows it may explain."""

    verifier: Verifier
    flows: frozenset[str]


class ExplainedEntry(msgspec.Struct, frozen=True):
    """What a sender has to say before its row is numbered, chained and signed."""

    flow: str
    start: float
    end: float
    count: int
    digest: str
    items: int = 1
    account: str = ""
    tokens: int = 0


class ExplainedWriter:
    """Appends one sender's rows to its file; durable before `write` returns.

    Several processes of one sender may share a file: each append holds a lock and goes on from the
    row that is last then. A torn last row (no reader counted it) is cut off.
    """

    def __init__(self, path: Path, sender: str, signer: Signer) -> None:
        self._path = path
        self._sender = sender
        self._signer = signer
        self._seq, self._prev, self._size = 0, START, 0
        self.write_all(())

    def write(
        self,
        *,
        flow: str,
        start: float,
        end: float,
        count: int,
        digest: str,
        items: int = 1,
        account: str = "",
        tokens: int = 0,
    ) -> ExplainedRow:
        """Sign and append one row of `count` payload bytes."""
        entry = ExplainedEntry(flow, start, end, count, digest, items, account, tokens)
        return self.write_all([entry])[0]

    def write_all(self, entries: Sequence[ExplainedEntry]) -> list[ExplainedRow]:
        """Sign and append rows, all or none, with one sync.

        Raises:
            ExplainedRowError: An entry is out of bounds, the file is another sender's, or it can't
                be appended.
        """
        try:
            with self._path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._catch_up(file)
                rows = self._signed(entries)
                if rows:
                    self._append(file, b"".join(row.line() + b"\n" for row in rows))
                    last = rows[-1]
                    self._seq, self._prev = last.seq + 1, _digest(last.line())
                return rows
        except OSError as error:
            raise ExplainedRowError(
                f"{self._path.name}: can't be appended ({error.strerror})"
            ) from error

    def _catch_up(self, file: BinaryIO) -> None:
        """Find the last whole row when the file is not as this writer left it."""
        size = file.seek(0, os.SEEK_END)
        if size == self._size:
            return
        at = max(0, size - 2 * MAX_ROW_BYTES)
        file.seek(at)
        tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if not whole and at:
            raise ExplainedRowError(f"{self._path.name}: its end holds no whole row")
        if len(whole) < len(tail):
            file.truncate(at + len(whole))
        self._seq, self._prev = 0, START
        if whole:
            last = whole[:-1].rsplit(b"\n", 1)[-1]
            row = decode_row(last)
            if row.sender != self._sender:
                raise ExplainedRowError(f"{self._path.name}: the rows are of another sender")
            self._seq, self._prev = row.seq + 1, _digest(last)
        self._size = at + len(whole)

    def _signed(self, entries: Sequence[ExplainedEntry]) -> list[ExplainedRow]:
        rows: list[ExplainedRow] = []
        seq, prev = self._seq, self._prev
        for entry in entries:
            row = ExplainedRow(
                sender=self._sender,
                flow=entry.flow,
                seq=seq,
                prev=prev,
                start=entry.start,
                end=entry.end,
                size=entry.count,
                items=entry.items,
                digest=entry.digest,
                account=entry.account,
                tokens=entry.tokens,
            )
            row = msgspec.structs.replace(row, sig=self._signer.sign(row.signed_part()).hex())
            _check_values(row)
            seq, prev = seq + 1, _digest(row.line())
            rows.append(row)
        return rows

    def _append(self, file: BinaryIO, lines: bytes) -> None:
        try:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(self._size)
            self._size = -1
            raise
        self._size += len(lines)


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def decode_row(line: bytes) -> ExplainedRow:
    """Decode one line; raises ExplainedRowError when it is no row."""
    if len(line) > MAX_ROW_BYTES:
        raise ExplainedRowError(f"a row has at most {MAX_ROW_BYTES} bytes")
    try:
        row = msgspec.json.decode(line, type=ExplainedRow)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ExplainedRowError(f"not a row of explained bytes ({str(error)[:80]})") from error
    _check_values(row)
    return row


def _check_values(row: ExplainedRow) -> None:
    span = row.end - row.start
    if (
        row.v != 1
        or row.seq < 0
        or not 0 <= row.size < 2**53
        or not 0 <= row.items < 2**31
        or not 0 <= row.tokens < 2**40
        or not 0 <= row.start < 2**40
        or not 0 <= span <= MAX_SPAN_S
    ):
        raise ExplainedRowError("a row's numbers are outside their bounds")


class ChainPosition(msgspec.Struct, frozen=True):
    """How far a sender's chain has been read: next sequence number, last digest, file offset."""

    seq: int = 0
    prev: str = START
    offset: int = 0


class ExplainedReader:
    """Follows the rows of every registered sender and refuses what is false.

    The positions are values that the caller keeps with its other state.
    """

    def __init__(self, senders: Mapping[str, Sender]) -> None:
        if not senders or len(senders) > MAX_FLOWS:
            raise ExplainedRowError(f"expected between 1 and {MAX_FLOWS} senders")
        self._senders = dict(senders)

    def check(
        self, line: bytes, position: ChainPosition, now: float
    ) -> tuple[ExplainedRow, ChainPosition]:
        """Return the row of a line and the position after it.

        Raises:
            ExplainedRowError: The row is malformed, from the future, of an unknown sender or a
                flow that is not the sender's, out of order, replayed, or its signature is false.
        """
        row = decode_row(line)
        sender = self._senders.get(row.sender)
        if sender is None:
            raise ExplainedRowError("a row of an unknown sender")
        if row.flow not in sender.flows:
            raise ExplainedRowError(f"sender {row.sender} may not explain the flow it names")
        if row.seq != position.seq or row.prev != position.prev:
            raise ExplainedRowError(
                f"sender {row.sender}: expected row {position.seq}, came {row.seq} "
                "(replayed, missing or reordered)"
            )
        if row.end > now + 5.0:
            raise ExplainedRowError(f"sender {row.sender}: a row from the future")
        try:
            signature = bytes.fromhex(row.sig)
        except ValueError as error:
            raise ExplainedRowError("a signature is hexadecimal") from error
        if not sender.verifier.verify(signature, row.signed_part()):
            raise ExplainedRowError(f"sender {row.sender}: the signature is false")
        digest = hashlib.sha256(line).hexdigest()
        after = ChainPosition(row.seq + 1, digest, position.offset + len(line) + 1)
        return row, after

    def follow(
        self, path: Path, position: ChainPosition, now: float
    ) -> Iterator[tuple[ExplainedRow, ChainPosition]]:
        """Yield the new whole rows of a file; a torn last line waits for its rest."""
        try:
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < position.offset:
                    raise ExplainedRowError(f"{path.name}: the file became shorter")
                file.seek(position.offset)
                while line := file.readline(MAX_ROW_BYTES + 2):
                    if not line.endswith(b"\n"):
                        if len(line) > MAX_ROW_BYTES:
                            raise ExplainedRowError(f"a row has at most {MAX_ROW_BYTES} bytes")
                        return
                    row, position = self.check(line[:-1], position, now)
                    yield row, position
        except FileNotFoundError:
            return


def total_bytes(rows: Iterable[ExplainedRow], flow: str) -> int:
    """Sum the explained bytes of one flow."""
    return sum(row.size for row in rows if row.flow == flow)
