"""Unusual but lawful requests are answered; each near miss is one sentence that says what to do."""

import gzip
import json
import socket
import zlib

import pytest
from gateway_wire import PATHS, Start, body_for, post, read

from safehold.guard.gateway.policy import Key, digest_key
from safehold.guard.ledger.interface import PromptRow
from safehold.testing.gateway import RunningGateway
from safehold.testing.ledger import MemoryLedger

CLIENT = "sk-safehold-0123456789abcdefghijklmnop"
HI = json.dumps(body_for(PATHS[0], "hi", stream=False)).encode()


@pytest.fixture(scope="module")
def at(module_stage: Start) -> tuple[RunningGateway, MemoryLedger]:
    """One gateway with one client key, and its ledger."""
    stage = module_stage(keys=(Key(id="k", sha256=digest_key(CLIENT)),))
    return stage.gateway, stage.ledger


def asked(gateway: RunningGateway, head: str, body: bytes, version: str = "1.1") -> bytes:
    """Send a request as it is written here, and return all that came."""
    start = f"POST {PATHS[0]} HTTP/{version}\r\nhost: 127.0.0.1\r\nx-api-key: {CLIENT}\r\n"
    start += f"content-type: application/json\r\nconnection: close\r\n{head}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as sock:
        sock.sendall(start.encode() + body)
        return read(sock)


def _chunks(body: bytes, size: int, more: bytes = b"", end: bytes = b"") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    whole = b"".join(b"%x%s\r\n%s\r\n" % (len(one), more, one) for one in parts)
    return whole + b"0\r\n" + end + b"\r\n"


LENGTH = f"content-length: {len(HI)}\r\n"
CHUNKED = "transfer-encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("head", "body", "version"),
    [
        (LENGTH, HI, "1.1"),
        (LENGTH, HI, "1.0"),
        (CHUNKED, _chunks(HI, 1), "1.1"),
        (CHUNKED, _chunks(HI, 7, more=b";name=value"), "1.1"),
        (CHUNKED + "trailer: x\r\n", _chunks(HI, 7, end=b"x: y\r\n"), "1.1"),
        (LENGTH + "content-encoding: Identity\r\n", HI, "1.1"),
        (LENGTH + "content-encoding:\r\n", HI, "1.1"),
        (LENGTH + "expect: 100-continue\r\n", HI, "1.1"),
        (LENGTH + "upgrade: h2c\r\n", HI, "1.1"),
    ],
)
def test_a_lawful_request_of_any_form_is_scored_and_answered(
    at: tuple[RunningGateway, MemoryLedger], head: str, body: bytes, version: str
) -> None:
    """However the body comes, the ledger holds what was scored and the client its answer."""
    gateway, ledger = at
    before = len(ledger.rows)
    answer = asked(gateway, head, body, version)
    assert b" 200 OK" in answer
    assert b'"chatcmpl-' in answer
    row = next(one for one in ledger.rows[before:] if isinstance(one, PromptRow))
    assert [part.text for part in row.exchange.texts()] == ["hi"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("content-encoding: gzip\r\n", gzip.compress(HI)),
        ("content-encoding: deflate\r\n", zlib.compress(HI)),
        ("content-encoding: identity, gzip\r\n", gzip.compress(HI)),
        ("content-encoding: br\r\n", HI),
    ],
)
def test_an_encoded_body_is_told_to_come_plain(
    at: tuple[RunningGateway, MemoryLedger], head: str, body: bytes
) -> None:
    """Nothing is unpacked before admission; the sentence says what to send."""
    answer = asked(at[0], f"{head}content-length: {len(body)}\r\n", body)
    assert b" 400 " in answer
    assert b"send no content-encoding" in answer


@pytest.mark.parametrize(
    ("path", "n", "status"),
    [
        (PATHS[0], 0, 400),
        (PATHS[0], -1, 400),
        (PATHS[0], 9, 413),
        (PATHS[0], None, 200),
        ("/v1/completions", 0, 400),
        ("/v1/completions", 9, 413),
    ],
)
def test_a_number_of_choices_below_one_is_malformed_and_above_too_large(
    at: tuple[RunningGateway, MemoryLedger], path: str, n: int | None, status: int
) -> None:
    """413 is for what is too much; what can't be is 400."""
    body = body_for(path, "hi", stream=False) if path == PATHS[0] else {"model": "m", "prompt": "x"}
    sent = json.dumps(body | {"n": n}).encode()
    assert post(at[0].port, path, sent, extra=f"x-api-key: {CLIENT}\r\n")[0] == status


@pytest.mark.parametrize(
    ("head", "came"),
    [("", b"came none"), ("x-api-key: sk-other\r\n", b"came another"), ("api-key: x\r\n", b"none")],
)
def test_a_client_without_its_key_is_told_where_to_put_it(
    at: tuple[RunningGateway, MemoryLedger], head: str, came: bytes
) -> None:
    """401 names both headers that a key is read from, and never repeats what came."""
    _, _, answer = post(at[0].port, PATHS[0], HI, extra=head)
    assert b"`Authorization: Bearer` or `x-api-key`" in answer
    assert came in answer
    assert b"sk-other" not in answer
