"""What OpenAI's protocols share in how they end: error bodies, filter marks and the last frame."""

from http import HTTPStatus
from typing import Any

from safehold.guard.gateway.interface import Notice, Told
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.protocols.sse import frame

DONE = b"data: [DONE]\n\n"
FILTERED = "content_filter"


def error_body(status: int, message: str, decision_id: str, told: Told | None = None) -> bytes:
    """Return the body of an error response; `told` is what an upstream named."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    told = told or Told()
    error = {
        "message": message,
        "type": told.kind or kind,
        "param": told.param,
        "code": told.code,
    }
    return encode({"error": error, "safehold": {"decision_id": decision_id}})


def error_frames(message: str, decision_id: str, told: Told | None = None) -> bytes:
    """Return the frames that end a stream of choices with an error; its field is not repeated."""
    named = Told(kind=told.kind, code=told.code) if told is not None else None
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return frame(error_body(status, message, decision_id, named)) + DONE


def filtered(notice: Notice) -> dict[str, Any]:
    """Return what a refused choice says of its block."""
    found = {"filtered": True, "severity": notice.severity}
    return {"content_filter_results": {notice.category: found}}


def detected(mark: Notice | None) -> dict[str, Any]:
    """Return what a choice says of a block that an audit only noted; nothing without one."""
    if mark is None:
        return {}
    found = {"filtered": False, "detected": True, "severity": mark.severity}
    return {"content_filter_results": {mark.category: found}}
