"""What a model server says when it refuses, as far as clients act on it."""

import re
from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from safehold.exchange import Lane
from safehold.guard.gateway.bundles.active_guard import Session
from safehold.guard.gateway.interface import Told
from safehold.guard.interface import Cleared
from safehold.guard.session.drivers import StageTwo, run_flow

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
_OURS = (401, 407)
"""Statuses that are about the key that the gateway presents, not about the client."""
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


def is_clients(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a status is an error about what the client asked, with the client's headers."""
    if status == HTTPStatus.UNAUTHORIZED and {"authorization", "x-api-key"} & headers.keys():
        return True  # about the client's own key
    return status >= HTTPStatus.BAD_REQUEST and status not in _OURS


def said(message: str, named: Told) -> str:
    """Return all that a client would read of an error."""
    names = " ".join(name for name in (named.kind, named.code, named.param) if name)
    return f"{message}\n{names}" if names else message


async def cleared(session: Session, stage2: StageTwo, lane: Lane, text: str) -> bool:
    """Score an error's text as a reply's; say whether all of it may leave."""
    steps = [await run_flow(session.feed(lane, text), stage2)]
    steps += [step for _, step in await run_flow(session.finish(), stage2)]
    return "".join(step.text for step in steps if isinstance(step, Cleared)) == text


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
