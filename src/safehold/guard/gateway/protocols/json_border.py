"""JSON at the border: one decoder with one error, and the checks that identifiers pass.

A request is never forwarded as it came: it is parsed into known fields and written anew, so that
two parsers can't read two meanings (doubled keys, odd encodings) out of one body.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from safehold.errors import WireError
from safehold.exchange import Lane
from safehold.guard.gateway.interface import (
    BrokenReplyError,
    UnknownReplyError,
    UnsupportedError,
)
from safehold.guard.gateway.protocols.expected_words import expected_words

T = TypeVar("T")
MAX_DEPTH = 64
IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/@+=-]{1,256}")
SEALED = re.compile(r"[A-Za-z0-9+/=_-]{0,65536}")
PRINTABLE = re.compile(r"[ -~]{1,256}")

_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""Write a value as JSON."""


def always_written(value: T) -> T:
    """Return a field's default that is written too, though the value leaves out its defaults.

    For what a protocol demands of whoever writes it (`"type": "function"` of a call, `"arguments":
    ""`) and forgives to whoever is read.
    """
    return msgspec.field(default_factory=lambda: value)  # msgspec omits plain defaults


def decode_request(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Parse a client's body.

    Raises:
        UnsupportedError: A field or tag is not known.
        WireError: The body is no JSON of the expected shape.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text = _safe(str(error))
        if "unknown field" in text or "Invalid" in text:
            raise UnsupportedError(expected_words(decoder.type, text) or text) from None
        raise WireError(text) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise WireError("expected a JSON object in UTF-8, came something else") from None


def decode_reply(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Parse an upstream's body or event.

    Raises:
        UnknownReplyError: A field or tag is not known.
        BrokenReplyError: It is no JSON of the expected shape.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text = _safe(str(error))
        if "unknown field" in text or "Invalid" in text:
            raise UnknownReplyError(f"upstream: {text}") from None
        raise BrokenReplyError(f"upstream: {text}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BrokenReplyError("upstream: expected JSON in UTF-8, came something else") from None


def _safe(message: str) -> str:
    """Drop values that msgspec quotes from the input; names of fields and paths stay."""
    message = re.sub(
        r"(Invalid (?:\w+ )?value) .*?( - at `[^`]*`)?$", r"\1\2", message, flags=re.DOTALL
    )
    message = re.sub(r"unknown field `(.*?)`", _field, message, flags=re.DOTALL)
    return message[:300]


def _field(match: "re.Match[str]") -> str:
    name = match.group(1)
    return f"unknown field `{name}`" if re.fullmatch(r"\w{1,40}", name) else "unknown field"


def strings_of(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield every string and number inside a JSON value, keys included, in order.

    Raises:
        WireError: The value is nested more than 64 deep.
    """
    if depth > MAX_DEPTH:
        raise WireError(f"expected JSON at most {MAX_DEPTH} deep, came deeper")
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield repr(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from strings_of(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_of(item, depth + 1)


def text_of(value: Any) -> str:
    """Return every string inside a JSON value, one a line."""
    return "\n".join(strings_of(value))


def identifier(value: str | None, default: str) -> str:
    """Return an upstream's id if it is one; ids are not scored, so they must be small and plain.

    Another id is replaced by one of ours, made of `default` and a digest, the same each time.
    """
    if value is None or not value:
        return default
    if IDENTIFIER.fullmatch(value) is None:
        return f"{default}_{hashlib.sha256(value.encode()).hexdigest()[:12]}"
    return value


def model_name(value: str | None, default: str) -> str:
    """Return the upstream's model name, or the client's where the upstream's is no plain name."""
    return value if value and PRINTABLE.fullmatch(value) else default


def sealed(value: str) -> str:
    """Return a signature or ciphertext if it looks like one (base64, at most 64 KiB).

    Raises:
        UnknownReplyError: The value holds other text.
    """
    if SEALED.fullmatch(value) is None:
        raise UnknownReplyError("upstream: expected base64, came other text")
    return value


class Lanes:
    """Hands out one `Lane` object per (choice, channel, index), up to a limit."""

    def __init__(self, limit: int) -> None:
        self._lanes: dict[tuple[int, str, int], Lane] = {}
        self._limit = limit

    @property
    def room(self) -> int:
        """How many more lanes the reply may open."""
        return self._limit - len(self._lanes)

    def get(self, choice: int, channel: Any, index: int = 0) -> Lane:
        """Return the lane.

        Raises:
            BrokenReplyError: The reply opens too many lanes.
        """
        key = (choice, channel, index)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= self._limit or choice < 0 or index < 0:
                raise BrokenReplyError(f"upstream: expected at most {self._limit} lanes, came more")
            lane = self._lanes[key] = Lane(choice=choice, channel=channel, index=index)
        return lane
