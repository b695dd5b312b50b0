"""One streamed answer of any protocol: a reader of the upstream beside a writer for the client.

The two share a value of what the reader learnt and the writer needs (ids, the model's name,
counts). Neither calls the other, so each can be tested alone.
"""

from collections.abc import Iterator, Mapping, Sequence

from safehold.exchange import Lane
from safehold.guard.gateway.interface import (
    Delta,
    Notice,
    Piece,
    RepeatingReader,
    StreamWriter,
    Tokens,
    Told,
)


class AnswerStream:
    """A reader and a writer of one answer."""

    __slots__ = ("_reader", "_writer")

    def __init__(self, reader: RepeatingReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        again = self._reader.again
        if again is not None and (text := again.text(event)):
            return (Delta(again.lane, text),)
        return self._reader.read(event)

    def read_all(self, events: Sequence[bytes]) -> Iterator[Piece]:
        """Take several events; yield their pieces, neighbouring texts of a repeated event as one.

        Raises:
            BrokenReplyError: An event does not follow the protocol.
            UnknownReplyError: An event or its content is of an unknown kind.
        """
        reader, texts = self._reader, []
        again = reader.again
        for event in events:
            if again is not None and (text := again.text(event)):
                texts.append(text)
                continue
            if again is not None and texts:
                yield Delta(again.lane, "".join(texts))
                texts = []
            yield from reader.read(event)
            again = reader.again
        if again is not None and texts:
            yield Delta(again.lane, "".join(texts))

    @property
    def complete(self) -> bool:
        """Whether the upstream said that its answer is complete."""
        return self._reader.complete

    @property
    def ended(self) -> bool:
        """Whether the upstream marked the end; what it sends after that is nothing."""
        return self._reader.ended

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        return self._reader.tokens

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return self._reader.refused

    @property
    def response_id(self) -> str | None:
        """The id under which a later request may continue this answer."""
        return self._writer.response_id

    @property
    def items(self) -> Mapping[str, bytes]:
        """What the client was shown under ids that a later request may name instead of it."""
        return self._writer.items

    def begin(self) -> bytes:
        """Return the frames that precede any text."""
        return self._writer.begin()

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the frames that carry cleared text of a lane."""
        return self._writer.release(lane, text)

    def close(self, lane: Lane) -> bytes:
        """Return the frames that end a lane whose text has all been released."""
        return self._writer.close(lane)

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the frames of a normal ending; `mark` says what an audit would have blocked."""
        return self._writer.end(mark)

    def block(self, notice: Notice) -> bytes:
        """Return the frames that end the stream with a refusal."""
        return self._writer.block(notice)

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the frames that end the stream with an error."""
        return self._writer.fail(message, decision_id, told)
