"""The client's way in over HTTP: `/api/v1/appeals`, as Starlette routes with their OpenAPI.

A decision id is known only to the client that got it, and a token only to who appealed; so neither
call needs a login. Both answers are the same for whatever does not exist.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safehold.detect.pace import Pace, peer_of
from safehold.detect.review.appeals import AppealBook
from safehold.errors import UsageError

MAX_BODY_BYTES = 4096
_HOUR_S = 3600.0
_ERROR = {
    "description": "What is wrong.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            }
        }
    },
}


class AppealRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which block a client appeals."""

    decision_id: Annotated[
        str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]+\Z", min_length=1, max_length=128)
    ]


def appeal_routes(
    book: AppealBook, *, posts: Pace | None = None, gets: Pace | None = None
) -> list[Route]:
    """Return the routes: POST an appeal, GET its state, and the OpenAPI document.

    `posts` and `gets` limit how often anybody asks: 30 appeals and 600 questions an hour by one
    address where they are left out.
    """
    posting = posts or Pace(each=30, together=10_000, window_s=_HOUR_S)
    asking = gets or Pace(each=600, together=100_000, window_s=_HOUR_S)

    async def post(request: Request) -> Response:
        if (refused := _early(request, posting)) is not None:
            return refused
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return _json({"error": f"expected at most {MAX_BODY_BYTES} bytes"}, 413)
        try:
            asked = msgspec.json.decode(body, type=AppealRequest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _json({"error": 'expected {"decision_id": "..."}'}, 400)
        return await _answered(lambda: book.appeal(asked.decision_id), 201, 409)

    async def get(request: Request) -> Response:
        if (refused := _early(request, asking)) is not None:
            return refused
        token = request.path_params["token"]
        return await _answered(lambda: book.state(token), 200, 404)

    async def document(request: Request) -> Response:
        del request
        return _json(openapi())

    return [
        Route("/api/v1/appeals", post, methods=["POST"]),
        Route("/api/v1/appeals/openapi.json", document, methods=["GET"]),
        Route("/api/v1/appeals/{token}", get, methods=["GET"]),
    ]


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the two calls."""
    text = {"type": "string"}

    def answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": description, "content": {"application/json": {"schema": schema}}}

    (asked,), components = msgspec.json.schema_components(
        [AppealRequest], ref_template="#/components/schemas/{name}"
    )
    made = {
        "type": "object",
        "required": ["token", "due"],
        "properties": {"token": text, "due": {"type": "string", "format": "date-time"}},
    }
    state = {
        "type": "object",
        "required": ["state"],
        "properties": {
            "state": {"enum": ["open", "answered"]},
            "due": {"type": "string", "format": "date-time"},
            "outcome": {"enum": ["overturn", "uphold"]},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Appeals", "version": "1"},
        "paths": {
            "/api/v1/appeals": {
                "post": {
                    "summary": "Appeal a block by its decision id.",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": asked}},
                    },
                    "responses": {
                        "201": answer("Where to ask, and until when it is answered.", made),
                        "400": _ERROR,
                        "409": _ERROR,
                        "413": _ERROR,
                        "429": _ERROR,
                    },
                }
            },
            "/api/v1/appeals/{token}": {
                "get": {
                    "summary": "Ask how an appeal stands.",
                    "parameters": [
                        {"name": "token", "in": "path", "required": True, "schema": text}
                    ],
                    "responses": {
                        "200": answer("How it stands.", state),
                        "404": _ERROR,
                        "429": _ERROR,
                    },
                }
            },
        },
        "components": {"schemas": components},
    }


def _early(request: Request, pace: Pace) -> Response | None:
    wait_s = pace.wait_s(peer_of(request.client.host if request.client else None))
    if not wait_s:
        return None
    told = _json({"error": "too many requests; wait as Retry-After says"}, 429)
    told.headers["retry-after"] = str(math.ceil(wait_s))
    return told


async def _answered(work: Callable[[], object], good: int, wrong: int) -> Response:
    try:
        return _json(await run_in_threadpool(work), good)
    except UsageError as error:
        return _json({"error": str(error)}, wrong)


def _json(value: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(value),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store", "x-content-type-options": "nosniff"},
    )
