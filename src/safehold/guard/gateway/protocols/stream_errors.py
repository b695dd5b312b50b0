"""An upstream's error in the middle of a stream: its kind is kept, its unscored words are not."""

from typing import Any

from safehold.guard.gateway.interface import Told, ToldError

STATUSES = {
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "string_above_max_length": 400,
    "authentication_error": 502,
    "billing_error": 402,
    "insufficient_quota": 429,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "tokens": 429,
    "requests": 429,
    "overloaded_error": 529,
    "service_unavailable": 503,
    "timeout_error": 504,
    "server_error": 500,
    "api_error": 500,
    "internal_server_error": 500,
}
"""The names that vendors give their errors, and the HTTP status of each."""


def told_error(given: Any) -> ToldError:
    """Return the error of a stream that ended with one; only names of the table are repeated."""
    error = given if isinstance(given, dict) else {}
    kind, code = _name(error.get("type")), _name(error.get("code"))
    status = STATUSES.get(code or kind or "")
    number = error.get("code")
    if status is None and isinstance(number, int) and number in STATUSES.values():
        status = number
    name = code or kind
    words = f" ({name})" if name else ""
    return ToldError(
        f"upstream: ended its stream with an error{words}",
        status=status or 502,
        told=Told(kind=kind, code=code),
    )


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value in STATUSES else None
