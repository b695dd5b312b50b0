"""Every door that asks for a key asks first what all workers share; the open doors need nothing."""

import asyncio
import json
import re
import socket
import time
from pathlib import Path

import pytest
from gateway_wire import PATHS, Start, body_for, post, read

from safehold.errors import LedgerError
from safehold.guard.gateway.access.store import MemoryStore, open_store
from safehold.guard.gateway.app import CODECS, NUMBERS, OPEN
from safehold.guard.gateway.interface import Surface
from safehold.guard.gateway.operate.admin_schema import admin_schema
from safehold.guard.gateway.operate.shared_state import SharedState
from safehold.guard.gateway.policy import Key, digest_key
from safehold.guard.gateway.relaying.turned_away import _SURFACES

ADMIN = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"
CLIENT = "sk-safehold-0123456789abcdefghijklmnop"
KEYS = (
    Key(id="ops", sha256=digest_key(ADMIN), admin=True),
    Key(id="k", sha256=digest_key(CLIENT)),
)
_NAMES = {"{surface}": "openai.chat", "{id}": "k"}
_ADMIN = [
    re.sub(r"\{\w+\}", lambda name: _NAMES[name[0]], path) for path in admin_schema()["paths"]
]
CLIENTS = sorted(
    {*CODECS, *NUMBERS, *_SURFACES, "/v1/models", "/v1/models/m", "/v1/responses/resp_1"}
)
DOORS = [*CLIENTS, *_ADMIN, "/v1/none", "/admin/none", "/"]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


class CutOff(MemoryStore):
    """A store of several hosts that this one does not reach; it counts who tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    @property
    def shared(self) -> bool:
        """Others read it too."""
        return True

    async def state(self) -> dict[str, bytes]:
        """Do not answer."""
        self.tried += 1
        await asyncio.sleep(0.005)
        raise LedgerError("store: cut off")


def knock(port: int, method: str, path: str, token: str) -> tuple[int, bytes, bytes]:
    """Ask with a key."""
    body = json.dumps(body_for("/v1/chat/completions", "hi", stream=False)).encode()
    return post(port, path, body, extra=f"x-api-key: {token}\r\n", method=method)


def test_a_host_that_is_cut_off_acts_for_nobody(stage: Start) -> None:
    """On every path and by every method, whatever the key: 503 and when to come again."""
    at = stage(keys=KEYS)
    at.gateway.gateway.state = SharedState(CutOff(), time.monotonic)
    for path in DOORS:
        for method in METHODS:
            for door in (path, path + "/")[: 2 if method == METHODS[0] else 1]:
                token = ADMIN if path.startswith("/admin") else CLIENT
                status, headers, _ = knock(at.gateway.port, method, door, token)
                assert (status, b"\r\nretry-after: 1" in headers) == (503, True), (method, door)
    assert at.upstream.seen == []
    assert all(at.gateway.gateway.surfaces.reason(one) is None for one in Surface)


def test_open_doors_answer_while_the_store_is_away(stage: Start) -> None:
    """Liveness and metrics answer; readiness says what is wrong."""
    at = stage(keys=KEYS)
    at.gateway.gateway.state = SharedState(CutOff(), time.monotonic)
    status = {path: post(at.gateway.port, path, b"", method="GET")[0] for path in OPEN}
    assert status == {"/healthz": 200, "/health": 200, "/metrics": 200, "/readyz": 503}


def test_no_door_is_shut_while_the_store_answers(stage: Start) -> None:
    """The same requests meet what they met before: none is told that the store is away."""
    at = stage(keys=KEYS)
    for path in DOORS:
        for token in (ADMIN, CLIENT, "nobody"):
            status, _, body = knock(at.gateway.port, "GET", path, token)
            assert status != 503, (path, body)
    assert knock(at.gateway.port, "GET", "/admin/status", ADMIN)[0] == 200
    assert knock(at.gateway.port, "GET", "/v1/models", CLIENT)[0] == 200
    assert knock(at.gateway.port, "GET", "/v1/models", "nobody")[0] == 401


@pytest.mark.parametrize("path", [*PATHS, "/v1/models", "/v1/responses/resp_1"])
def test_a_key_that_another_host_revoked_is_out_at_every_door(
    stage: Start, tmp_path: Path, path: str
) -> None:
    """As soon as the other host's answer is given, no door of this one knows the key."""
    url = f"sqlite:///{tmp_path}/store.db"
    at = stage(keys=KEYS, store=url)
    method = "POST" if path in PATHS else "GET"
    assert knock(at.gateway.port, method, path, CLIENT)[0] != 401

    async def revoke() -> None:
        store = open_store(url)
        other = SharedState(store, time.monotonic)
        await other.read()
        await other.set("key", "k", "revoked")
        await other.everywhere()
        await store.close()

    asyncio.run(revoke())
    assert knock(at.gateway.port, method, path, CLIENT)[0] == 401


WITH_BODY = [*PATHS, "/v1/messages/count_tokens", "/v1/moderations", "/admin/canaries"]


@pytest.mark.parametrize("path", WITH_BODY)
@pytest.mark.parametrize("change", ["revoked", "nothing"])
def test_a_key_that_is_revoked_while_its_body_comes_is_out(
    stage: Start, path: str, change: str
) -> None:
    """Who sends half a body, waits for the revocation, and then the rest, has no key any more."""
    at = stage(keys=KEYS)
    ring = at.gateway.gateway.gate.ring
    token, name = (ADMIN, "ops") if path.startswith("/admin") else (CLIENT, "k")
    body = json.dumps(body_for(path, "hi", stream=False)).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"x-api-key: {token}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
        sock.sendall(head.encode() + body[:5])
        time.sleep(0.2)
        if change == "revoked":
            ring.manage({name: None}, {})
        sock.sendall(body[5:])
        status = int(read(sock).split(b" ")[1])
    assert (status == 401) is (change == "revoked")


def test_nobody_waits_for_the_attempts_of_others() -> None:
    """Of a hundred who ask together one tries the store; all are told at once what it found."""

    async def go() -> int:
        store = CutOff()
        state = SharedState(store, time.monotonic)
        told = await asyncio.gather(*(state.fresh() for _ in range(100)), return_exceptions=True)
        assert all(isinstance(one, LedgerError) for one in told)
        await asyncio.sleep(0.01)
        with pytest.raises(LedgerError):
            await state.fresh()
        return store.tried

    assert asyncio.run(go()) == 2
