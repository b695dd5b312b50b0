"""What a model server says when it refuses, as far as clients act on it."""

import re
from collections.abc import Mapping

import msgspec

from safehold.guard.gateway.interface import Told

_ERROR_CHARS = 2000
_WORD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,6})?")
_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_AMOUNT = re.compile(r"[0-9][0-9A-Za-z.:+-]{0,40}")
HINTS = {
    "retry-after": (_SECONDS, _DATE),
    "retry-after-ms": (_SECONDS,),
    "x-should-retry": (re.compile("true|false"),),
    "request-id": (_ID,),
    "x-request-id": (_ID,),
}
_LIMITS = re.compile(r"(x|anthropic)-ratelimit-[a-z-]{1,40}")
PLAIN = "the model server refused the request"


def hints(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a client acts on, where their values are what they should be."""
    kept: dict[str, str] = {}
    for given, value in headers.items():
        name = given.lower()
        forms = HINTS.get(name, (_AMOUNT,) if _LIMITS.fullmatch(name) else ())
        if any(form.fullmatch(value) for form in forms):
            kept[name] = value
    return kept


def told(body: bytes) -> tuple[str, Told]:
    """Return the message of an upstream's error body, or a plain sentence, and what it names.

    Reads OpenAI's and Anthropic's shapes, `{"error": "text"}`, `{"detail": ...}` and
    `{"message": ...}`.
    """
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return PLAIN, Told()
    if not isinstance(given, dict):
        return PLAIN, Told()
    error = given.get("error") or given.get("detail") or given
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        return error[:_ERROR_CHARS], Told()
    if not isinstance(error, dict):
        return PLAIN, Told()
    message = error.get("message") or error.get("msg")
    named = Told(
        kind=_word(error.get("type")),
        code=_word(error.get("code")),
        param=_word(error.get("param")),
    )
    if not isinstance(message, str) or not message:
        return PLAIN, named
    return message[:_ERROR_CHARS], named


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
