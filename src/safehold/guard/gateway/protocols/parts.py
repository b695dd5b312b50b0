"""Content that no text scorer reads, as every protocol takes it.

Where it is scored it must be in the request, whole, and in one place: what a link or a stored file
holds could be another thing when the model looks. Every other text beside it is a name, which is
scored as a part of the prompt, or one of the protocol's own words.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from safehold.exchange import OpaquePart, Part, TextPart
from safehold.guard.gateway.interface import Media, Rules, UnsupportedError
from safehold.guard.gateway.protocols.json_border import IDENTIFIER, text_of

_DATA_URL = re.compile(r"data:([a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64});base64,([A-Za-z0-9+/]+={0,2})")
_NAMES = ("filename", "title")
_WORDS = ("type", "detail", "format", "media_type")
_CONTENT = ("url", "image_url", "file_data", "data")


class Unread:
    """Images, sounds and files of one request, by the surface's policy; `media` are to score."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.media: list[Media] = []

    def parts(self, kind: str, source: Any) -> Iterator[Part]:
        """Yield content that no text scorer reads as a part, and its names as texts.

        Raises:
            UnsupportedError: The rules refuse it (the default), or it can't be scored.
        """
        if self.rules.images == "refuse":
            raise UnsupportedError(
                f"expected text, came {kind}: this surface does not pass content it can't score "
                "(setting rules.images)"
            )
        if self.rules.images == "pass":
            data = text_of(source).encode()
            digest = hashlib.sha256(data).hexdigest()
            yield OpaquePart(media_type=kind, sha256=digest, size_bytes=len(data))
            return
        given = {"url": source} if isinstance(source, str) else msgspec.to_builtins(source)
        if not isinstance(given, dict):
            raise _unreadable(kind)
        media = [one for name, value in given.items() if (one := _media(kind, name, value, given))]
        if len(media) != 1:
            raise _unreadable(kind)
        for name in _NAMES:
            if given.get(name):
                yield TextPart(text=str(given[name]))
        self.media += media
        yield OpaquePart(
            media_type=media[0].media_type,
            sha256=media[0].sha256,
            size_bytes=len(media[0].data),
        )


def _media(kind: str, name: str, value: Any, given: dict[str, Any]) -> Media | None:
    """Return the content in a field; None for a field of words, an error for what could hide."""
    if value is None or name in _NAMES:
        return None
    if isinstance(value, str) and name in _WORDS and IDENTIFIER.fullmatch(value):
        return None
    if not isinstance(value, str) or name not in _CONTENT:
        raise _unreadable(kind)
    found = _DATA_URL.fullmatch(value)
    if found is not None:
        return _decoded(kind, *found.groups())
    if name == "data" and "media_type" in given:
        return _decoded(kind, str(given["media_type"]), value)
    if name == "data" and "format" in given:
        return _decoded(kind, f"audio/{given['format']}", value)
    raise _unreadable(kind)


def _decoded(kind: str, media_type: str, text: str) -> Media:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _unreadable(kind) from None
    return Media(media_type=media_type, data=data, sha256=hashlib.sha256(data).hexdigest())


def _unreadable(kind: str) -> UnsupportedError:
    return UnsupportedError(
        f"expected the {kind} itself as base64 or a data URL: this surface scores what it passes "
        "(setting rules.images), and can't score a link or a stored file"
    )
