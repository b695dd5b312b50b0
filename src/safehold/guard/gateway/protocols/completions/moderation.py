"""OpenAI Moderations, answered by our own guard: each input is judged as a prompt.

The answer says one bit for each input, under the surface's `category`. The scores are 0 or 1: a
score of the guard never leaves.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from safehold.errors import WireError
from safehold.exchange import Exchange, user_says
from safehold.guard.gateway.interface import (
    Delta,
    Media,
    Notice,
    Rules,
    Stream,
    Surface,
    Tokens,
    Told,
    TooLargeError,
    UnsupportedError,
)
from safehold.guard.gateway.protocols.json_border import decode_request, encode
from safehold.guard.gateway.protocols.openai_endings import error_body

MAX_MODERATED = 32
"""How many inputs one call may hold: each is a decision of its own."""


class ModeratedText(msgspec.Struct, tag="text", tag_field="type", forbid_unknown_fields=True):
    """A text among parts; images refuse, because no scorer here reads them."""

    text: str


class ModerationRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/moderations`."""

    input: str | list[str | ModeratedText]
    model: str = ""


class Nothing:
    """The answer to an input that was let through: nothing."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})
    refused = False
    tokens = Tokens()

    def pieces(self) -> Iterable[Delta]:
        """Yield nothing."""
        return ()

    def render(self) -> bytes:
        """Return nothing: the whole call's answer is built from its verdicts."""
        return b"{}"


class ModerationCall:
    """One input."""

    previous: str | None = None
    media: tuple[Media, ...] = ()
    streamed = False
    dropped = 0

    def __init__(self, text: str, model: str) -> None:
        self.model = model
        self.exchange: Exchange = user_says(text)

    def body(self, model: str) -> bytes:
        """Return an empty body: no model is asked."""
        return encode({"model": model})

    def stream(self) -> Stream:
        """Raise: there is no stream."""
        raise UnsupportedError("this endpoint has no stream")

    def events(self, body: bytes) -> list[bytes]:
        """Raise: there is no stream."""
        del body
        raise UnsupportedError("this endpoint has no stream")

    def assembled(self, events: Sequence[bytes]) -> bytes:
        """Raise: there is no stream."""
        del events
        raise UnsupportedError("this endpoint has no stream")

    def whole(self, body: bytes) -> Nothing:
        """Return nothing."""
        del body
        return Nothing()

    def blocked(self, notice: Notice) -> bytes:
        """Return nothing: the whole call's answer is built from its verdicts."""
        del notice
        return b"{}"


class ModerationCodec:
    """The codec of one input of `POST /v1/moderations`."""

    surface = Surface.MODERATIONS
    upstream_path = "/moderations"

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(ModerationRequest)

    def parse(self, body: bytes, rules: Rules) -> ModerationCall:
        """Read a request of one input.

        Raises:
            WireError: It is malformed, or holds several.
        """
        del rules
        calls = self.calls(body)
        if len(calls) != 1:
            raise WireError("expected one input")
        return calls[0]

    def calls(self, body: bytes) -> tuple[ModerationCall, ...]:
        """Read a request as one call for each input; parts of one message are one input.

        Raises:
            WireError: It is malformed, or holds too many inputs.
        """
        request = decode_request(self._decoder, body)
        given = [request.input] if isinstance(request.input, str) else request.input
        if not given:
            raise WireError("input: expected at least one text, came none")
        if len(given) > MAX_MODERATED:
            raise TooLargeError(f"input: expected at most {MAX_MODERATED} texts")
        if any(isinstance(one, ModeratedText) for one in given):
            texts = [one.text if isinstance(one, ModeratedText) else one for one in given]
            return (ModerationCall("\n".join(texts), request.model),)
        return tuple(ModerationCall(str(one), request.model) for one in given)

    def error(self, status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the body of an error response."""
        return error_body(status, message, decision_id, told)


def moderation(decision_id: str, model: str, category: str, flagged: Iterable[bool]) -> bytes:
    """Return the answer: one result for each input."""
    results = [
        {
            "flagged": found,
            "categories": {category: found},
            "category_scores": {category: float(found)},
            "category_applied_input_types": {category: ["text"]},
        }
        for found in flagged
    ]
    body = {"id": f"modr-{decision_id}", "model": model or "safehold", "results": results}
    return encode(body)
