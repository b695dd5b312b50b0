"""Decoy services: each visit is a case and a leaf; who opens nothing true is told once a minute."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from safehold.govern.controls.facts.trust_log import read_log
from safehold.secure.endpoint.decoy_service import (
    GREETING,
    DecoyListener,
    DecoyService,
    Visit,
    visit_leaf,
)
from safehold.secure.endpoint.decoys import DecoyError
from safehold.testing.ports import held_port
from safehold.testing.trust import Enclave

NOW = 1_790_000_000


class Lured:
    """A decoy service of this process, and what it told."""

    def __init__(self, *names: str) -> None:
        self.now = NOW
        self.told: list[Visit] = []
        self.held = ExitStack()
        self.services = [DecoyService(name, self.held.enter_context(held_port())) for name in names]
        self.listener = DecoyListener(
            self.services, self.told.append, lambda: self.now, "127.0.0.1"
        )

    def close(self) -> None:
        """Listen no more."""
        self.listener.close()
        self.held.close()

    def visit(self, number: int = 0, said: bytes | None = b"root\n") -> bytes:
        """Come by as somebody who says something, or only connects; return the greeting."""
        with socket.create_connection(("127.0.0.1", self.services[number].port), 5) as to:
            if said is None:
                to.shutdown(socket.SHUT_WR)
            else:
                to.sendall(said)
            assert self.listener.answer(5) == 1
            return to.recv(100)


def test_visit_is_told_with_its_peer_and_what_was_said_only_as_a_digest() -> None:
    """The visitor is greeted; the leaf is an incident without the words: they may be a password."""
    lured = Lured("admin")
    assert lured.visit(said=b"root:hunter2") == GREETING
    (visit,) = lured.told
    assert (visit.service, visit.peer, visit.time) == ("admin", "127.0.0.1", NOW)
    assert visit.said_sha256 == hashlib.sha256(b"root:hunter2").hexdigest()
    leaf = visit_leaf(visit, "gpu-1")
    assert (leaf.kind, leaf.facts["event"], leaf.facts["lure"]) == (
        "incident",
        "decoy-touched",
        "service",
    )
    assert b"hunter2" not in msgspec.json.encode(leaf)
    lured.close()


def test_scan_that_only_connects_is_a_visit_of_each_service_and_a_silent_port_tells_nothing() -> (
    None
):
    """A scanner is told at every decoy that it meets; while nobody comes, nothing is told."""
    lured = Lured("admin", "backup")
    assert lured.listener.answer(0) == 0
    assert lured.told == []
    for number in (0, 1):
        lured.visit(number, said=None)
    assert [one.service for one in lured.told] == ["admin", "backup"]
    lured.close()


def test_one_peer_is_told_once_a_minute() -> None:
    """A flood of visits is no flood of cases, and a visit a minute later is told again."""
    lured = Lured("admin")
    for _ in range(5):
        lured.visit()
    assert len(lured.told) == 1
    lured.now += 60
    lured.visit()
    assert len(lured.told) == 2
    lured.close()


@pytest.mark.parametrize("taken", [True, False])
def test_decoy_service_that_can_not_listen_says_so(*, taken: bool) -> None:
    """A port that something true holds, or no service at all, is an error and no silence."""
    with socket.create_server(("127.0.0.1", 0)) as true:
        port = int(true.getsockname()[1])
        services = [DecoyService("admin", port)] if taken else []
        with pytest.raises(DecoyError, match="listen" if taken else "at least one"):
            DecoyListener(services, lambda _: None, lambda: NOW, "127.0.0.1")


@pytest.fixture
def port() -> Iterator[int]:
    """A port for the decoy."""
    with held_port() as port:
        yield port


def test_command_writes_a_case_and_a_leaf_and_ends_on_a_signal(tmp_path: Path, port: int) -> None:
    """`safehold endpoint decoy serve` tells a visit in the folder of cases and in the log."""
    enclave = Enclave(tmp_path / "log", now=int(time.time()))
    keys = tmp_path / "log.keys"
    keys.mkdir(mode=0o700)
    for name, key in (("log.key", enclave.log_key), ("emitter.key", enclave.emitter)):
        (keys / name).touch(mode=0o600)
        (keys / name).write_text(key.text() + "\n")
    cases = tmp_path / "cases"
    command = [sys.executable, "-m", "safehold", "endpoint", "decoy", "serve",
               "--service", f"admin={port}", "--host", "gpu-1", "--cases", str(cases),
               "--log", str(tmp_path / "log"), "--keys", str(keys)]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
    try:
        for _ in range(600):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        assert (told["service"], told["port"], told["peer"]) == ("admin", port, "127.0.0.1")
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        child.stdout.close()  # type: ignore[union-attr]
    assert [json.loads(one.read_text()) for one in cases.iterdir()] == [told]
    records = read_log(tmp_path / "log", tmp_path / "log" / "log.json").of_kind("incident")
    assert [one.facts["lure"] for one in records] == ["service"]


@pytest.mark.parametrize("word", ["admin", "admin=", "admin=0", "admin=99999", "=22", "A=22"])
def test_malformed_service_is_one_clear_line(word: str, tmp_path: Path) -> None:
    """A service that is no name and port is refused in one line."""
    command = [sys.executable, "-m", "safehold", "endpoint", "decoy", "serve", "--service", word,
               "--host", "gpu-1", "--cases", str(tmp_path / "cases")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode
    assert done.stderr.decode().strip().splitlines()[-1].endswith("expected NAME=PORT")
