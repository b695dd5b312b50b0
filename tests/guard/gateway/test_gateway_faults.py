"""Broken clients and broken upstreams: one valid error, a row, and nothing unscored."""

import json
import socket
import time

import msgspec
import pytest
from gateway_limits import IMPATIENT, SMALL
from gateway_wire import PATHS, Start, body_for, ending, post, raw

from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.interface import Rules
from safehold.guard.gateway.policy import Limits, SurfacePolicy
from safehold.guard.gateway.server import Parts
from safehold.guard.ledger.interface import FinalRow, Outcome
from safehold.guard.session.session import Guard
from safehold.testing.guards import MARKER, PlainDecoder, PlainViews, rule_guard
from safehold.testing.upstream import Fault, Script, says

LONG = says("Quite harmless words, one after another, without an end. " * 12, size=5)


def limits_for(fault: Fault) -> Limits:
    """Wait briefly for an upstream that hangs, long for any other."""
    return IMPATIENT if fault in (Fault.HANG, Fault.HANG_MIDWAY) else SMALL


STRICT = SurfacePolicy(rules=Rules(unknown_request_fields="refuse", unknown_reply_fields="refuse"))
MIDWAY = [
    Fault.HANG_MIDWAY,
    Fault.RESET,
    Fault.HALF_CLOSE,
    Fault.BROKEN_JSON,
    Fault.UNKNOWN_EVENT,
    Fault.UNKNOWN_FIELD,
    Fault.ERROR_EVENT,
    Fault.INVALID_UTF8,
    Fault.HUGE_LINE,
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fault", MIDWAY)
def test_upstream_that_breaks_midway_ends_in_a_protocol_error(
    stage: Start, path: str, fault: Fault
) -> None:
    """A stream that breaks ends with the protocol's error; a row says so."""
    at = stage(msgspec.structs.replace(LONG, fault=fault), limits=limits_for(fault), default=STRICT)
    asked = json.dumps(body_for(path, "hi")).encode()
    status, _, body = post(at.gateway.port, path, asked)
    assert (status, ending(path, body)) in ((200, "error"), (502, "cut"), (504, "cut"))
    assert b"secret" not in body
    row = at.finals()[-1]
    assert row.outcome in (Outcome.ERROR, Outcome.UNSCORABLE)
    assert row.error is not None
    assert row.delivered_bytes <= row.scored_bytes


@pytest.mark.parametrize("path", PATHS)
def test_line_that_is_no_field_is_ignored(stage: Start, path: str) -> None:
    """A line that is no field of an event stream is nothing (WHATWG), and reaches nobody."""
    at = stage(msgspec.structs.replace(LONG, fault=Fault.NOT_SSE))
    status, _, body = post(at.gateway.port, path, json.dumps(body_for(path, "hi")).encode())
    assert (status, ending(path, body)) == (200, "done")
    assert b"secret" not in body


@pytest.mark.parametrize("path", PATHS)
def test_one_byte_chunks_arrive_whole(stage: Start, path: str) -> None:
    """An upstream that sends single bytes, cutting characters in half, loses nothing."""
    text = "Grüße, 世界, \N{GRINNING FACE}! " * 3
    at = stage(msgspec.structs.replace(says(text, size=3), fault=Fault.ONE_BYTE))
    asked = json.dumps(body_for(path, "hi")).encode()
    status, _, body = post(at.gateway.port, path, asked)
    assert (status, ending(path, body)) == (200, "done")
    assert "".join(item.text for item in at.finals()[-1].delivered) == text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [Fault.WHOLE, Fault.UNNAMED, Fault.GZIP, Fault.STREAMS])
def test_answer_in_another_wrapping_arrives_whole(
    stage: Start, path: str, fault: Fault, *, stream: bool
) -> None:
    """Whole JSON where a stream was asked, no media type, gzip unasked: the text is what counts."""
    text = "Grüße, 世界! " * 20
    at = stage(msgspec.structs.replace(says(text, size=3), fault=fault))
    asked = body_for(path, "hi") | {"stream": stream}
    status, _, body = post(at.gateway.port, path, json.dumps(asked).encode())
    assert status == 200
    if stream:
        assert ending(path, body) == "done"
    row = at.finals()[-1]
    assert "".join(item.text for item in row.delivered) == text
    assert row.outcome is Outcome.COMPLIED


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [Fault.WHOLE, Fault.UNNAMED, Fault.GZIP, Fault.STREAMS])
def test_restricted_answer_in_another_wrapping_is_blocked(
    stage: Start, path: str, fault: Fault, *, stream: bool
) -> None:
    """The wrapping is no way around the guard."""
    at = stage(msgspec.structs.replace(says(f"It is {MARKER}. " * 3, size=3), fault=fault))
    asked = json.dumps(body_for(path, "hi", stream=stream)).encode()
    _, _, body = post(at.gateway.port, path, asked)
    assert MARKER.encode() not in body
    assert at.finals()[-1].outcome is Outcome.BLOCKED_BY_GUARD


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_compressed_answer_that_is_cut_is_an_error(
    stage: Start, path: str, *, stream: bool
) -> None:
    """Half of a gzip stream is no whole answer."""
    at = stage(msgspec.structs.replace(LONG, fault=Fault.CUT_GZIP))
    asked = body_for(path, "hi") | {"stream": stream}
    post(at.gateway.port, path, json.dumps(asked).encode())
    assert at.finals()[-1].outcome is Outcome.ERROR


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.HANG, 504),
        (Fault.WRONG_TYPE, 502),
        (Fault.STATUS_500, 500),
        (Fault.REDIRECT, 502),
        (Fault.STATUS_400, 400),
        (Fault.STATUS_429, 429),
    ],
)
def test_upstream_that_never_begins_gives_an_http_error(
    stage: Start, path: str, fault: Fault, status: int
) -> None:
    """An upstream that fails before its first byte gives an HTTP error in the right shape."""
    at = stage(msgspec.structs.replace(LONG, fault=fault), limits=limits_for(fault))
    asked = json.dumps(body_for(path, "hi")).encode()
    got, headers, body = post(at.gateway.port, path, asked)
    assert got == status
    error = json.loads(body)["error"]
    assert error["message"]
    assert (b"retry-after: 3" in headers) == (status == 429)
    assert at.finals()[-1].outcome is Outcome.ERROR


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.BROKEN_JSON, Fault.INVALID_UTF8])
@pytest.mark.parametrize("path", PATHS)
def test_whole_answer_that_breaks_gives_an_http_error(
    stage: Start, path: str, fault: Fault
) -> None:
    """A whole answer that breaks off or is no JSON gives a 502."""
    at = stage(msgspec.structs.replace(LONG, fault=fault))
    asked = json.dumps(body_for(path, "hi", stream=False)).encode()
    assert post(at.gateway.port, path, asked)[0] == 502


def test_upstream_error_text_is_scored_too(stage: Start) -> None:
    """An upstream's error message that a rule blocks does not reach the client."""
    at = stage(Script(fault=Fault.STATUS_400, error_text=f"you said {MARKER}"))
    asked = json.dumps(body_for(PATHS[0], "hi")).encode()
    status, _, body = post(at.gateway.port, PATHS[0], asked)
    assert status == 400
    assert b"purple" not in body


def test_unreachable_upstream_gives_502(stage: Start) -> None:
    """An upstream that is not there gives a 502 and a row."""
    at = stage()
    at.upstream.__exit__(None, None, None)
    asked = json.dumps(body_for(PATHS[0], "hi")).encode()
    assert post(at.gateway.port, PATHS[0], asked)[0] == 502
    assert at.finals()[-1].error == "UpstreamError"


BAD_BODIES = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b"null", 400),
    (b"\xff\xfe{}", 400),
    (b'{"model": "\xff"}', 400),
    (b"[" * 100_000, 400),
    (b'{"model":"m","messages":[],"max_tokens":1}', 400),
    (b'{"model":"m","messages":[{"role":"ghost","content":"x"}],"max_tokens":1}', 400),
    (b'{"model":"m","novel":1,"messages":[{"role":"user","content":"x"}],"max_tokens":1}', 400),
    (
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"novel"}]}],"max_tokens":1}',
        400,
    ),
    (b'{"input":[{"type":"item_reference","id":"x"}]}', 400),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("body", "status"), BAD_BODIES)
def test_bad_body_gives_one_clear_error_and_a_row(
    stage: Start, path: str, body: bytes, status: int
) -> None:
    """Malformed and unknown requests are refused in their protocol's shape, with a row."""
    at = stage(default=STRICT)
    got, _, answer = post(at.gateway.port, path, body)
    assert got == status
    assert json.loads(answer)["error"]["message"]
    assert at.prompts()[-1].action == "refuse"
    assert at.upstream.requests == []


def test_error_message_never_quotes_the_request(stage: Start) -> None:
    """An unknown value of a known field is not repeated to the client or in the row."""
    at = stage()
    given = {"model": "m", "messages": [{"role": "sesame-open", "content": "x"}]}
    _, _, answer = post(at.gateway.port, PATHS[0], json.dumps(given).encode())
    assert b"sesame" not in answer
    assert "sesame" not in str(at.ledger.rows)


def test_twenty_megabytes_are_refused_at_once(stage: Start) -> None:
    """A body beyond the limit is refused, by its declared length and by its real one."""
    at = stage()
    body = b'{"model":"' + b"x" * 20_000_000 + b'"}'
    status, _, _ = post(at.gateway.port, PATHS[0], body)
    assert status in (413, 0)
    head = b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
        sock.sendall(head + b"content-length: 20000000\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413")


def test_chunked_body_beyond_the_limit_is_refused(stage: Start) -> None:
    """A body of unknown length is cut at the limit."""
    at = stage()
    head = (
        b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
        try:
            sock.sendall(head)
            for _ in range(40):
                sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        except ConnectionError:
            pass
        try:  # noqa: SIM105 - two statements may fail
            assert sock.recv(100)[:12] in (b"HTTP/1.1 413", b"")
        except ConnectionError:
            pass


def test_slow_body_is_given_up(stage: Start) -> None:
    """A body that does not come in time is refused."""
    at = stage(limits=IMPATIENT)
    head = (
        b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
        sock.sendall(head)
        assert sock.recv(100).startswith(b"HTTP/1.1 408")


JSON = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
START = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
)
SMUGGLED = {
    "both lengths": START
    + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\n",  # noqa: E501 - one literal
    "two lengths": START + b"content-length: 4\r\ncontent-length: 60\r\n\r\n" + JSON,
    "list of lengths": START + b"content-length: 4, 60\r\n\r\n" + JSON,
    "signed length": START + b"content-length: +56\r\n\r\n" + JSON,
    "odd coding": START + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": START + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "space before colon": START + b"content-length : 56\r\n\r\n" + JSON,
    "bare newline": START.replace(b"\r\n", b"\n") + b"content-length: 56\n\n" + JSON,
    "folded header": START + b"x-a: b\r\n c: d\r\ncontent-length: 56\r\n\r\n" + JSON,
    "bad chunk size": START + b"transfer-encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n",
    "two hosts": START + b"host: elsewhere\r\ncontent-length: 56\r\n\r\n" + JSON,
    "null in header": START + b"x-a: \x00\r\ncontent-length: 56\r\n\r\n" + JSON,
}


@pytest.mark.parametrize("shape", sorted(SMUGGLED))
def test_smuggling_shape_reaches_no_model(stage: Start, shape: str) -> None:
    """A request whose end two parsers may see differently never goes upstream."""
    at = stage()
    got = raw(at.gateway.port, SMUGGLED[shape])
    assert b"HTTP/1.1 200" not in got
    assert at.upstream.requests == []


def test_header_flood_is_refused(stage: Start) -> None:
    """Too many headers, or too much of them, are refused."""
    at = stage()
    many = "".join(f"x-{number}: a\r\n" for number in range(300))
    assert post(at.gateway.port, PATHS[0], JSON, extra=many)[0] in (400, 413, 431)
    assert post(at.gateway.port, PATHS[0], JSON, extra=f"x-a: {'b' * 50_000}\r\n")[0] in (
        400,
        413,
        431,
    )


def test_doubled_json_keys_reach_the_model_once(stage: Start) -> None:
    """What is scored is what is sent: a doubled key can't show one text to each parser."""
    at = stage()
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"' + MARKER.encode() + b'"}],'
        b'"messages":[{"role":"user","content":"hi"}]}'
    )
    assert post(at.gateway.port, PATHS[0], body)[0] == 200
    assert MARKER not in json.dumps(at.upstream.requests)


def test_browser_form_is_refused(stage: Start) -> None:
    """A body that a web page could send without asking is refused, and so is a foreign Host."""
    at = stage()
    assert post(at.gateway.port, PATHS[0], JSON, kind="text/plain")[0] == 400
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: evil.example\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    )
    assert b"HTTP/1.1 401" in raw(at.gateway.port, head % len(JSON) + JSON)


def test_client_that_hangs_up_still_gets_its_final_row(stage: Start) -> None:
    """A client that leaves in the middle leaves a final row of what it was sent."""
    script = says("Harmless words that go on and on. " * 40, size=6)
    at = stage(msgspec.structs.replace(script, delay_s=0.005))
    asked = json.dumps(body_for(PATHS[0], "hi")).encode()
    head = START + b"content-length: %d\r\n\r\n" % len(asked)
    with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
        sock.sendall(head + asked)
        got = b""
        while b"Harmless" not in got:
            got += sock.recv(4096)
    deadline = time.monotonic() + 60
    while not at.finals() and time.monotonic() < deadline:
        time.sleep(0.02)
    row = at.finals()[-1]
    assert row.error == "ClientGone"
    assert row.delivered[0].text.startswith("Harmless")
    assert row.delivered_bytes <= row.scored_bytes


def test_slow_reader_is_cut_and_recorded(stage: Start) -> None:
    """A client that stops reading does not hold memory for ever; its row is kept."""
    patient = msgspec.structs.replace(IMPATIENT, idle_timeout_s=60, body_timeout_s=60)
    at = stage(says("word " * 3_000_000, size=50_000), limits=patient)
    asked = json.dumps(body_for(PATHS[0], "hi")).encode()
    head = START + b"content-length: %d\r\n\r\n" % len(asked)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", at.gateway.port))
    with sock:
        sock.sendall(head + asked)
        deadline = time.monotonic() + 240
        while not at.finals() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert at.finals()[-1].error in ("Cancelled", "ClientGone")


def test_ledger_that_fails_releases_nothing(stage: Start) -> None:
    """When the prompt row can't be kept the client gets 503 and no text."""
    at = stage()
    at.ledger.fail = "disk full"
    asked = json.dumps(body_for(PATHS[0], "hi")).encode()
    status, _, body = post(at.gateway.port, PATHS[0], asked)
    assert status == 503
    assert b"Hello" not in body
    at.ledger.fail = None
    assert post(at.gateway.port, PATHS[0], asked)[0] == 200


def test_every_final_row_names_a_prompt_row(stage: Start) -> None:
    """Rows come in pairs whatever happens."""
    at = stage()
    for body in (JSON, b"{", json.dumps(body_for(PATHS[0], MARKER)).encode()):
        post(at.gateway.port, PATHS[0], body)
    finals = {row.decision_id for row in at.ledger.rows if isinstance(row, FinalRow)}
    prompts = {row.decision_id for row in at.prompts()}
    assert prompts <= finals
    assert len(prompts) == 3


class _BreakingViews(PlainViews):
    """Breaks once there is text."""

    def feed(self, text: str) -> tuple[str, ...]:
        raise ValueError(text)


class _BreakingDecoder(PlainDecoder):
    """Breaks on the prompt, or in the middle of a reply."""

    def __init__(self, where: str) -> None:
        self._where = where

    def views(self, text: str) -> tuple[str, ...]:
        if self._where == "prompt":
            raise ValueError(text)
        return (text,)

    def growing(self) -> PlainViews:
        return _BreakingViews()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("where", ["prompt", "reply"])
@pytest.mark.parametrize("stream", [True, False])
def test_guard_that_breaks_ends_the_exchange_with_a_row(
    stage: Start,
    path: str,
    where: str,
    stream: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A defect inside the guard releases nothing, tells no content and leaves a pair of rows."""
    guard = Guard(rule_guard().cascade, _BreakingDecoder(where))
    at = stage(says("sesame and more"), parts=Parts(loader=None, held=Held(guard)))
    asked = json.dumps(body_for(path, "open sesame", stream=stream)).encode()
    status, _, body = post(at.gateway.port, path, asked)
    assert status == 500
    assert b"sesame" not in body
    assert at.prompts()[-1].decision_id == at.finals()[-1].decision_id
    assert (at.finals()[-1].outcome, at.finals()[-1].error) == ("unscorable", "ScorerError")
    assert at.finals()[-1].delivered_bytes == 0


@pytest.mark.parametrize("path", PATHS)
def test_client_of_http_1_0_gets_a_stream_of_known_length(stage: Start, path: str) -> None:
    """HTTP/1.0 knows no chunks: the same events come as one body, whole or cut by a block."""
    for text in ("Hello there. " * 9, f"It is {MARKER}. " * 3):
        at = stage(says(text, size=3))
        asked = json.dumps(body_for(path, "hi")).encode()
        head = (
            f"POST {path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(asked)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
            sock.sendall(head.encode() + asked)
            got = b""
            while part := sock.recv(65536):
                got += part
        lines, _, body = got.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in lines.lower()
        assert b"content-length: %d" % len(body) in lines.lower()
        assert ending(path, body) == "done"
        assert MARKER.encode() not in body
