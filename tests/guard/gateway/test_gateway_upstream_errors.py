"""What a client acts on in an upstream's error, and what it hears while nothing may be released."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from gateway_limits import SMALL
from gateway_wire import PATHS, body_for, post

from safehold.guard.gateway.policy import SurfacePolicy, Upstream
from safehold.guard.gateway.protocols.messages.betas import allowed_betas
from safehold.guard.gateway.relaying.upstream_errors import PLAIN, hints, told
from safehold.testing.guards import MARKER
from safehold.testing.upstream import says

Refuse = Callable[[int, dict[str, str], bytes], str]


@pytest.fixture
def refusing() -> Iterator[Refuse]:
    """Return a function that starts a model server which only refuses, and gives its address."""
    servers = []

    def start(status: int, headers: dict[str, str], body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self.headers["content-length"] = "0"
                self.do_POST()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("status", [402, 403, 408, 422, 429, 500, 503, 529])
def test_an_upstreams_status_and_kind_reach_the_client(
    stage: Callable, refusing: Refuse, path: str, status: int
) -> None:
    """A permanent refusal stays one, an overload stays one, and the code is there to act on."""
    error = {"error": {"message": "no room", "type": "overloaded_error", "code": "too_long"}}
    headers = {"retry-after": "0.5", "retry-after-ms": "500", "x-should-retry": "false"}
    url = refusing(status, headers, json.dumps(error).encode())
    at = stage(upstream=Upstream(url=url))
    got, sent, body = post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
    assert got == status
    assert b"retry-after: 0.5" in sent
    assert b"retry-after-ms: 500" in sent
    assert b"x-should-retry: false" in sent
    shown = json.loads(body)["error"]
    assert shown["message"] == "no room"
    assert "overloaded_error" in (shown.get("type"), shown.get("code"))


@pytest.mark.parametrize("status", [401, 407])
def test_a_refusal_of_the_gateways_own_key_is_not_the_clients(
    stage: Callable, refusing: Refuse, status: int
) -> None:
    """A client that gets 401 would look at its own key; the gateway's key is the operator's."""
    at = stage(upstream=Upstream(url=refusing(status, {}, b'{"error": {"message": "key sk-1"}}')))
    got, _, body = post(at.gateway.port, PATHS[0], json.dumps(body_for(PATHS[0], "hi")).encode())
    assert got == 502
    assert b"sk-1" not in body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "m"}}', "m"),
        (b'{"error": "m"}', "m"),
        (b'{"detail": "m"}', "m"),
        (b'{"detail": [{"msg": "m"}]}', "m"),
        (b'{"message": "m"}', "m"),
        (b"<html>", PLAIN),
        (b"", PLAIN),
        (b"[]", PLAIN),
        (b"null", PLAIN),
        (b'{"error": []}', PLAIN),
        (b'{"error": {"message": 7}}', PLAIN),
        (b"\xff", PLAIN),
    ],
)
def test_every_shape_of_an_error_body_is_read(body: bytes, message: str) -> None:
    """Each server's way to say it gives its message, and nonsense gives a plain sentence."""
    assert told(body)[0] == message


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("Retry-After", "3", True),
        ("retry-after", "0.5", True),
        ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", True),
        ("retry-after", "soon", False),
        ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT\nset-cookie: a", False),
        ("retry-after-ms", "500", True),
        ("x-should-retry", "true", True),
        ("x-should-retry", "read this text", False),
        ("x-ratelimit-remaining-tokens", "149984", True),
        ("x-ratelimit-reset-tokens", "6m0s", True),
        ("x-ratelimit-reset-tokens", "words of a reply", False),
        ("set-cookie", "a=b", False),
        ("server", "vllm", False),
    ],
)
def test_only_hints_in_their_own_form_pass(name: str, value: str, passes: bool) -> None:  # noqa: FBT001 - a table
    """A header that clients act on passes; one that could carry text does not."""
    assert bool(hints({name: value})) is passes


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ("context-1m-2025-08-07", "context-1m-2025-08-07"),
        ("claude-code-20250219, web-search-2025-03-05", "claude-code-20250219"),
        ("code-execution-2025-05-22", ""),
        ("context-1m", ""),
        ("", ""),
    ],
)
def test_betas_pass_by_name(given: str, allowed: str) -> None:
    """What runs tools at the vendor, or is unknown, is dropped."""
    assert allowed_betas(given) == allowed


def test_a_client_hears_from_the_gateway_while_the_model_is_silent(stage: Callable) -> None:
    """Comments keep the line open; they carry no text, and the reply is whole after them."""
    limits = msgspec.structs.replace(SMALL, keepalive_s=0.05)
    script = msgspec.structs.replace(says("hello there, all is well " * 8, size=20), delay_s=0.2)
    at = stage(script, limits=limits)
    asked = json.dumps(body_for(PATHS[0], "hi")).encode()
    status, _, body = post(at.gateway.port, PATHS[0], asked)
    assert status == 200
    assert body.count(b": keep-alive\n\n") >= 1
    assert body.endswith(b"data: [DONE]\n\n")
    assert all(
        line.startswith((b"data: ", b": keep-alive")) for line in body.split(b"\n\n") if line
    )


def test_a_gateway_with_every_surface_closed_is_not_ready(stage: Callable) -> None:
    """A balancer must not send requests to a gateway that answers none."""
    at = stage(default=SurfacePolicy(closed=True))
    assert _readyz(at.gateway.port).startswith(b"HTTP/1.1 503")
    assert _readyz(stage().gateway.port).startswith(b"HTTP/1.1 200")


def _readyz(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        found = b""
        while part := sock.recv(4096):
            found += part
    return found


SIDES = [
    ("GET", "/v1/models", ""),
    ("GET", "/v1/models/m", ""),
    ("GET", "/v1/models", "anthropic-version: 2023-06-01\r\n"),
    ("GET", "/v1/models/m", "anthropic-version: 2023-06-01\r\n"),
    ("POST", "/v1/messages/count_tokens", ""),
    ("POST", "/v1/responses/input_tokens", ""),
    ("POST", "/v1/embeddings", ""),
    ("POST", "/v1/rerank", ""),
    ("POST", "/v1/completions", ""),
    ("POST", "/v1/moderations", ""),
    ("GET", "/v1/responses/resp_1", ""),
]
ASKED = {
    "/v1/messages/count_tokens": body_for(PATHS[1], "hi", stream=False),
    "/v1/responses/input_tokens": {"model": "m", "input": "hi"},
    "/v1/embeddings": {"model": "m", "input": "hi"},
    "/v1/rerank": {"model": "m", "query": "hi", "documents": ["a"]},
    "/v1/completions": {"model": "m", "prompt": "hi"},
}
UNASKED = ("/v1/moderations", "/v1/responses/resp_1")
"""Paths that the gateway answers by itself."""


def in_shape(path: str, extra: str, body: bytes) -> dict[str, Any]:
    """Return an error's fields, read as the SDK of its surface reads them."""
    shown = json.loads(body)
    assert (shown.get("type") == "error") is (extra != "" or path.startswith("/v1/messages"))
    error: dict[str, Any] = shown["error"]
    assert error["message"]
    assert error["type"]
    return error


@pytest.mark.parametrize(
    ("method", "path", "extra"), [side for side in SIDES if side[1] not in UNASKED]
)
def test_side_endpoint_tells_an_upstreams_error_in_its_own_shape(
    stage: Callable, refusing: Refuse, method: str, path: str, extra: str
) -> None:
    """Status, message, code and hints reach the client, in the words of the surface's vendor."""
    error = {"error": {"message": "no room", "type": "rate_limit_error", "code": "too_long"}}
    url = refusing(429, {"retry-after-ms": "500"}, json.dumps(error).encode())
    at = stage(upstream=Upstream(url=url), embeddings="pass")
    asked = json.dumps(ASKED.get(path, {})).encode()
    got, sent, body = post(at.gateway.port, path, asked, extra, method=method)
    assert got == 429
    assert b"retry-after-ms: 500" in sent
    assert in_shape(path, extra, body)["message"] == "no room"


@pytest.mark.parametrize(("method", "path", "extra"), SIDES)
def test_side_endpoint_scores_what_an_error_says(
    stage: Callable, refusing: Refuse, method: str, path: str, extra: str
) -> None:
    """A restricted text in an upstream's error reaches nobody, whichever path asked."""
    error = {"error": {"message": f"it is {MARKER}", "type": MARKER, "code": MARKER}}
    url = refusing(400, {}, json.dumps(error).encode())
    at = stage(upstream=Upstream(url=url), embeddings="pass")
    asked = json.dumps(ASKED.get(path, {})).encode()
    _, _, body = post(at.gateway.port, path, asked, extra, method=method)
    assert MARKER.encode() not in body
    in_shape(path, extra, body)


@pytest.mark.parametrize(("method", "path", "extra"), SIDES)
def test_side_endpoint_refuses_in_its_own_shape(
    stage: Callable, method: str, path: str, extra: str
) -> None:
    """What the gateway itself refuses or can't reach is an error in the surface's shape too."""
    at = stage(upstream=Upstream(url="http://127.0.0.1:9/v1"))
    got, _, body = post(at.gateway.port, path, b"[]", extra, method=method)
    assert got in (400, 404, 502)
    in_shape(path, extra, body)
