"""Whoever is turned away leaves a row, and an answer that names no stage and no content."""

import json
import socket

import pytest
from gateway_limits import IMPATIENT, SMALL
from gateway_wire import PATHS, Start, body_for, post, raw

from safehold.guard.gateway.policy import Budget, Key, SurfacePolicy, digest_key
from safehold.guard.ledger.interface import Action, Outcome
from safehold.testing.guards import MARKER

SECRET = "sk-safehold-0123456789abcdefghijklmnop"
HI = json.dumps(body_for(PATHS[0], "hi")).encode()
AUTH = f"authorization: Bearer {SECRET}\r\n"


def _key(**changes: object) -> Key:
    return Key(**({"id": "laptop", "sha256": digest_key(SECRET)} | changes))


def _slow(port: int) -> int:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(head)
        return int(sock.recv(100).split(b" ")[1])


def _large(port: int) -> int:
    head = (
        b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: 20000000\r\nconnection: close\r\n\r\n"
    )
    return int(raw(port, head).split(b" ")[1])


@pytest.mark.parametrize(
    ("status", "turned_away"),
    [
        (408, _slow),
        (413, _large),
        (400, lambda port: post(port, PATHS[1], b"{")[0]),
        (400, lambda port: post(port, PATHS[0], HI, kind="text/plain")[0]),
        (400, lambda port: post(port, PATHS[0], HI, extra="x-safehold-use-case: a b\r\n")[0]),
        (400, lambda port: post(port, "/v1/embeddings", b'{"input":"x","model":"m"}')[0]),
        (400, lambda port: post(port, "/v1/messages/count_tokens", b"[]")[0]),
        (404, lambda port: post(port, "/v1/files", b"{}")[0]),
        (401, lambda port: post(port, "/admin/status", b"")[0]),
    ],
)
def test_refused_request_leaves_a_row(stage: Start, status: int, turned_away) -> None:  # noqa: ANN001 - a call
    """Late, too large, malformed, undeclared and unknown requests are all in the ledger."""
    at = stage(limits=IMPATIENT if turned_away is _slow else SMALL)
    assert turned_away(at.gateway.port) == status
    prompt, final = at.prompts()[-1], at.finals()[-1]
    assert prompt.decision_id == final.decision_id
    assert (prompt.action, prompt.exchange) == (Action.REFUSE, None)
    assert (final.outcome, final.delivered_bytes) == (Outcome.ERROR, 0)
    assert final.error
    assert at.upstream.requests == []


def test_wrong_key_and_spent_budget_leave_rows(stage: Start) -> None:
    """A row of a wrong key names no key; one of a spent budget names whose it was."""
    at = stage(keys=(_key(budget=Budget(requests_per_minute=1)),))
    assert post(at.gateway.port, PATHS[0], HI)[0] == 401
    assert (at.prompts()[-1].action, at.prompts()[-1].key_id) == (Action.REFUSE, None)
    assert post(at.gateway.port, PATHS[0], HI, extra=AUTH)[0] == 200
    assert post(at.gateway.port, PATHS[0], HI, extra=AUTH)[0] == 429
    assert (at.prompts()[-1].action, at.prompts()[-1].key_id) == (Action.REFUSE, "laptop")
    assert len(at.prompts()) == len(at.finals()) == 3


def test_admitted_request_has_one_pair_of_rows(stage: Start) -> None:
    """A blocked or delivered request is not told of twice."""
    at = stage()
    for text in ("hi", MARKER):
        post(at.gateway.port, PATHS[0], json.dumps(body_for(PATHS[0], text)).encode())
    assert len(at.prompts()) == len(at.finals()) == 2


@pytest.mark.parametrize("text", ["hi", MARKER])
@pytest.mark.parametrize("stream", [True, False])
def test_overhead_is_told_by_policy_only(stage: Start, text: str, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The header of the gateway's own time is off until the policy switches it on."""
    asked = json.dumps(body_for(PATHS[0], text, stream=stream)).encode()
    assert b"overhead" not in post(stage().gateway.port, PATHS[0], asked)[1]
    at = stage(default=SurfacePolicy(expose_overhead=True))
    headers = post(at.gateway.port, PATHS[0], asked)[1]
    assert float(headers.split(b"x-safehold-overhead-ms: ")[1].split(b"\r\n")[0]) >= 0
