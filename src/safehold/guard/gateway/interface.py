"""What the gateway's parts say to each other: surfaces, pieces of a reply, notices and seams.

A protocol is one `Codec`. It parses a client's request into a `Call`; the call turns the upstream's
answer into `Piece`s (text per lane) and renders what was cleared. A codec never decides anything
and does no I/O; the relay (`relay.py`) drives it.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from safehold.errors import ConfigError, UpstreamError, WireError
from safehold.exchange import Exchange, Lane
from safehold.guard.interface import Heard

REFUSAL = "I'm sorry, but I cannot assist with that request."
"""The one text of every block, whichever stage fired. Red-team drivers know this phrase."""


class Surface(StrEnum):
    """A door of the gateway; policies, canaries and counters are kept per surface."""

    CHAT = "openai.chat"
    RESPONSES = "openai.responses"
    MESSAGES = "anthropic.messages"
    EMBEDDINGS = "openai.embeddings"
    COMPLETIONS = "openai.completions"
    MODERATIONS = "openai.moderations"


class TooLargeError(WireError):
    """Send less: a body, a line or a text passes the limit that the message names."""


class UnsupportedError(WireError):
    """Leave out the part, field or event that the message names, or allow it by policy."""


class BrokenReplyError(UpstreamError):
    """Look at the model server: its answer does not follow its protocol."""


class Told(msgspec.Struct, frozen=True):
    """What an upstream's error names beside its message; None where it named nothing."""

    kind: str | None = None
    code: str | None = None
    param: str | None = None


class ToldError(BrokenReplyError):
    """An upstream ended its stream with an error whose kind a client acts on."""

    def __init__(self, message: str, *, status: int, told: Told) -> None:
        super().__init__(message)
        self.status = status
        self.told = told


class UnknownReplyError(BrokenReplyError):
    """The model server sent a kind of content that no scorer here can read."""


class SilentUpstreamError(UpstreamError):
    """The model server did not answer in time."""


class Delta(msgspec.Struct, frozen=True):
    """Text that the upstream added to one lane, and what a probe heard while it was written."""

    lane: Lane
    text: str
    heard: Heard | None = None


class Closed(msgspec.Struct, frozen=True):
    """The upstream said that one lane is complete; its held tail may be scored and released."""

    lane: Lane


Piece = Delta | Closed


class Tokens(msgspec.Struct, frozen=True):
    """How many tokens the upstream says it read and wrote."""

    read: int | None = None
    written: int | None = None


class Media(msgspec.Struct, frozen=True):
    """An image or a file of a request that is to be scored; `sha256` is in its part too."""

    media_type: str
    data: bytes
    sha256: str


class Notice(msgspec.Struct, frozen=True):
    """What a client is told about a block: no clause, no stage, no score."""

    decision_id: str
    category: str
    severity: str = "high"


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a codec may let pass; everything else refuses.

    `logprobs`: `strip` removes them from request and reply, `chosen` keeps the numbers of the
    tokens that were released and drops every alternative. `images`: `pass` forwards images,
    sounds and files, which no scorer here reads; `score` has `media_scorer` judge them first.
    `opaque_reasoning`: encrypted reasoning is dropped and counted, passed, or refused.
    `vendor_tools`: a tool that the vendor runs is left out and counted where the client runs
    others, or refused. `unknown_request_fields`: a field that is neither known nor on its
    dialect's list of safe ones is dropped and counted, passed with its strings scored as a part
    of the prompt, or refused. `unknown_reply_fields`: dropped unread and counted, passed with its
    strings scored on lanes of their own and without its numbers, or the answer is an error.

    Raises:
        ConfigError: A bound is out of range.
    """

    logprobs: Literal["strip", "chosen"] = "strip"
    images: Literal["refuse", "score", "pass"] = "refuse"
    opaque_reasoning: Literal["refuse", "drop", "pass"] = "drop"
    vendor_tools: Literal["refuse", "drop"] = "drop"
    unknown_request_fields: Literal["drop", "pass", "refuse"] = "drop"
    unknown_reply_fields: Literal["drop", "pass", "refuse"] = "drop"
    max_choices: int = 8
    max_lanes: int = 256

    def __post_init__(self) -> None:
        """Refuse bounds that no reply fits in.

        Raises:
            ConfigError: A bound is out of range.
        """
        for name, most in (("max_choices", 128), ("max_lanes", 65_536)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"rules: {name}: expected 1 to {most}")


class Whole(Protocol):
    """An upstream's complete (not streamed) answer.

    `response_id` is the id under which the answer may be continued, if the protocol has one.
    """

    @property
    def response_id(self) -> str | None:
        """The id under which a later request may continue this answer."""
        ...

    @property
    def items(self) -> Mapping[str, bytes]:
        """What the client was shown under ids that a later request may name instead of it."""
        ...

    def pieces(self) -> Iterable[Delta]:
        """Yield every text of the answer with its lane."""
        ...

    def render(self) -> bytes:
        """Return the answer's body, built from the fields that were scored."""
        ...

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts."""
        ...

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        ...


class RepeatedEvent(Protocol):
    """The frame of an event that brings text of one lane, and comes again and again."""

    lane: Lane

    def text(self, event: bytes) -> str:
        """Return the text of an event that has this frame; nothing for any other event."""
        ...


class StreamReader(Protocol):
    """The upstream's half of a streamed answer: events in, texts by lane out."""

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        ...

    @property
    def complete(self) -> bool:
        """Whether the upstream said that its answer is complete."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the upstream marked the end; what it sends after that is nothing."""
        ...

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        ...

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        ...


class RepeatingReader(StreamReader, Protocol):
    """A reader that may know the frame of an event that comes again and again."""

    @property
    def again(self) -> RepeatedEvent | None:
        """What may be read by its text alone until `read` is called the next time."""
        ...


class StreamWriter(Protocol):
    """The client's half of a streamed answer: cleared texts in, frames out."""

    @property
    def response_id(self) -> str | None:
        """The id under which a later request may continue this answer."""
        ...

    @property
    def items(self) -> Mapping[str, bytes]:
        """What the client was shown under ids that a later request may name instead of it."""
        ...

    def begin(self) -> bytes:
        """Return the frames that precede any text (they carry no text of the model)."""
        ...

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the frames that carry cleared text of a lane."""
        ...

    def close(self, lane: Lane) -> bytes:
        """Return the frames that end a lane whose text has all been released."""
        ...

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the frames of a normal ending; `mark` says what an audit would have blocked."""
        ...

    def block(self, notice: Notice) -> bytes:
        """Return the frames that end the stream with a refusal."""
        ...

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the frames that end the stream with an error."""
        ...


class Stream(StreamReader, StreamWriter, Protocol):
    """One streamed answer: upstream events in, frames for the client out."""

    def read_all(self, events: Sequence[bytes]) -> Iterable[Piece]:
        """Take several events that came at once; as `read`, one by one."""
        ...


class Call(Protocol):
    """One parsed request."""

    @property
    def exchange(self) -> Exchange:
        """Everything that the model will read, as turns."""
        ...

    @property
    def model(self) -> str:
        """The model the client named."""
        ...

    @property
    def media(self) -> Sequence[Media]:
        """The images and files that are to be scored before anything is released."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        ...

    @property
    def dropped(self) -> int:
        """How many unknown fields of the request and its answer were dropped so far."""
        ...

    @property
    def previous(self) -> str | None:
        """The id of an earlier response that this request continues."""
        ...

    def body(self, model: str) -> bytes:
        """Return the request to send upstream, written anew from the parsed fields."""
        ...

    def stream(self) -> Stream:
        """Start reading a streamed answer."""
        ...

    def events(self, body: bytes) -> list[bytes]:
        """Return a complete answer as the events of a stream, for who asked for one.

        Raises:
            BrokenReplyError: The body is no JSON object.
        """
        ...

    def assembled(self, events: Sequence[bytes]) -> bytes:
        """Return the events of a stream as a complete answer, for who asked for one.

        Raises:
            UpstreamError: The stream is broken, ends with an error, or ends in the middle.
        """
        ...

    def whole(self, body: bytes) -> Whole:
        """Read a complete answer.

        Raises:
            BrokenReplyError: The body does not follow the protocol.
            UnknownReplyError: The body holds content of an unknown kind.
        """
        ...

    def blocked(self, notice: Notice) -> bytes:
        """Return the body of a refusal, for a request that was not streamed."""
        ...


class Codec(Protocol):
    """One wire protocol."""

    @property
    def surface(self) -> Surface:
        """The surface that speaks this protocol."""
        ...

    @property
    def upstream_path(self) -> str:
        """The path of the upstream's endpoint, below its base URL."""
        ...

    def parse(self, body: bytes, rules: Rules) -> Call:
        """Read a request.

        Raises:
            WireError: The request is malformed, or holds what `rules` do not let pass.
        """
        ...

    def error(self, status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the body of an error response; `told` is what an upstream named."""
        ...


class Relief(StrEnum):
    """What an exempt subject gets instead of a block: the text, a weaker model, or a reviewer."""

    DELIVER = "deliver"
    FALLBACK = "fallback"
    REVIEW = "review"


class Exempt(msgspec.Struct, frozen=True):
    """A grant changes the action on a clause for a subject; scoring and logging never change."""

    grant_id: str
    relief: Relief = Relief.DELIVER


class NotExempt(msgspec.Struct, frozen=True):
    """No grant applies; `overrun` says what a grant that would have applied has run out of.

    `alarm` asks for an alarm row, once for each new seat beyond those approved.
    """

    grant_id: str = ""
    overrun: Literal["", "seats", "rate", "meter", "use-case"] = ""
    alarm: bool = False


class Exemptions(Protocol):
    """Who may receive what would else be blocked (`exempt.LogExemptions` reads the grants)."""

    def action_for(
        self, subject: str | None, use_case: str | None, clause: str, surface: str, now: float
    ) -> Exempt | NotExempt:
        """Say whether a grant covers this key id, use case, clause and surface at this time.

        Asked once for each clause of an exchange: an answer `Exempt` counts.
        """
        ...


class NoExemptions:
    """Nobody is exempt."""

    def action_for(
        self, subject: str | None, use_case: str | None, clause: str, surface: str, now: float
    ) -> Exempt | NotExempt:
        """Return `NotExempt`."""
        del subject, use_case, clause, surface, now
        return NotExempt()
