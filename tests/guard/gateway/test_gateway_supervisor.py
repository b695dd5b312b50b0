"""Processes as an operator meets them: bad starts, signals, reloads, orphans, systemd."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from gateway_process import Served, get, served
from gateway_wire import PATHS, Start, body_for, ending, post, raw, read, unchunked

from safehold.errors import ConfigError, LedgerError
from safehold.guard.gateway.operate.reloading import RELOADED
from safehold.guard.gateway.operate.systemd import notify
from safehold.guard.gateway.operate.tracing import Tracer, traces_url
from safehold.guard.gateway.operate.worker_life import unknown_signals_wait
from safehold.guard.gateway.policy import Key, Settings, SurfacePolicy, digest_key
from safehold.guard.ledger.interface import EventKind, EventRow, PromptRow
from safehold.testing.guards import MARKER
from safehold.testing.upstream import MockUpstream, says

KEY = "sk-safehold-0123456789abcdefghijklmnop"
HI = json.dumps(body_for(PATHS[0], "hi")).encode()
SLOW = msgspec.structs.replace(says("Words that take their time. " * 12, size=4), delay_s=0.02)
HARMLESS = [
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGIO,
    signal.SIGWINCH,
    signal.SIGPWR,
    signal.SIGRTMIN + 3,
]


def configure(folder: Path, **settings: object) -> None:
    """Write the gateway's configuration anew."""
    given = {"canary": {"enabled": False}, "log": "none"} | settings
    (folder / "safehold.yaml").write_text(json.dumps(given))


def statuses(port: int, count: int, key: str = "") -> list[int]:
    """Ask several times, each on a connection of its own."""
    extra = f"x-api-key: {key}\r\n" if key else ""
    return [post(port, PATHS[0], HI, extra=extra)[0] for _ in range(count)]


def until(true: object, seconds: float = 60.0) -> None:
    """Wait until a function says so."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def streaming(port: int) -> Iterator[list[bytes]]:
    """Keep a slow stream open meanwhile; at the end its whole body is in the list."""
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    )
    body: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(head % len(HI) + HI)
        first = sock.recv(65536)
        reader = threading.Thread(target=lambda: body.append(first + read(sock)))
        reader.start()
        yield body
        reader.join(60)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_start_that_fails_has_a_status(tmp_path: Path, workers: str) -> None:
    """What no worker can take ends the command with the status of its error and one sentence."""
    rule = {"id": "m", "clause": "t/m", "pattern": "abc", "example": "abc"}
    (tmp_path / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    configure(tmp_path, store=f"sqlite:///{tmp_path}/no/such/store.db")
    command = [sys.executable, "-m", "safehold", "serve", "--config", f"{tmp_path}/safehold.yaml"]
    command += ["--upstream", "http://127.0.0.1:9/v1", "--port", "0", "--workers", workers]
    command += ["--bundle", f"{tmp_path}/rules.yaml", "--ledger", f"{tmp_path}/ledger.db"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == LedgerError.exit_status
    last = done.stderr.splitlines()[-1]
    assert last.startswith(b"safehold: error: ")
    assert b"store" in last
    assert b"Traceback" not in done.stderr


def test_two_workers_reload_and_outlive_every_signal_but_not_their_parent(tmp_path: Path) -> None:
    """SIGHUP brings keys to all workers and cuts no stream; unknown signals and bad files nothing.

    When the supervisor is killed, its workers end and the port is free.
    """
    store = f"sqlite:///{tmp_path}/store.db"
    with (
        MockUpstream(SLOW) as upstream,
        served(tmp_path, upstream.url, "--workers", "2", store=store) as at,
    ):
        for number in HARMLESS:
            for pid in (at.process.pid, *children(at.process.pid)):
                os.kill(pid, number)
        with streaming(at.port) as body:
            keys = [{"id": "k", "sha256": digest_key(KEY)}]
            configure(tmp_path, store=store, keys=keys)
            at.process.send_signal(signal.SIGHUP)
            until(lambda: statuses(at.port, 6) == [401] * 6)
        assert ending(PATHS[0], unchunked(body[0].partition(b"\r\n\r\n")[2])) == "done"
        for bad in ({"keys": keys, "nosuch": 1}, {"host": "127.0.0.2", "keys": []}, {"keys": 7}):
            configure(tmp_path, **({"store": store} | bad))
            at.process.send_signal(signal.SIGHUP)
        time.sleep(1.0)
        assert at.process.poll() is None
        assert statuses(at.port, 6) == [401] * 6
        assert statuses(at.port, 2, KEY) == [200] * 2
        workers = children(at.process.pid)
        assert len(workers) >= 2
        at.process.kill()
        until(lambda: not any(running(pid) for pid in workers))
        assert get(at.port, "/healthz") == b""


def children(pid: int) -> list[int]:
    """Return the children of a process that serve."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in listed}
    return [child for child, line in lines.items() if b"spawn_main" in line]


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_worker_under_systemd(tmp_path: Path) -> None:
    """It takes the handed socket, says READY, RELOADING, WATCHDOG and STOPPING, and reloads."""
    rule = {"id": "marker", "clause": "test/marker", "pattern": MARKER, "example": MARKER}
    (tmp_path / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    configure(tmp_path)
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.bind(str(tmp_path / "notify"))
    heard: list[bytes] = []

    def hear() -> None:
        while message := said.recv(4096):
            heard.append(message)

    listener = threading.Thread(target=hear)
    with MockUpstream(SLOW) as upstream, socket.create_server(("127.0.0.1", 0)) as handed:
        handed.set_inheritable(True)
        port = handed.getsockname()[1]
        fd = handed.fileno()
        become = (
            f"import os, sys; os.dup2({fd}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.environ['WATCHDOG_PID'] = str(os.getpid()); os.execv(sys.executable, sys.argv[1:])"
        )
        serve = [sys.executable, "-m", "safehold", "serve", "--upstream", upstream.url]
        serve += ["--config", f"{tmp_path}/safehold.yaml", "--bundle", f"{tmp_path}/rules.yaml"]
        serve += ["--ledger", f"{tmp_path}/ledger.db"]
        told = {
            "LISTEN_FDS": "1",
            "WATCHDOG_USEC": "400000",
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", become, *serve], env=os.environ | told, pass_fds=(fd,)
        )
        try:
            listener.start()
            until(lambda: heard)
            assert heard[0] == b"READY=1"
            for number in HARMLESS:
                process.send_signal(number)
            with streaming(port) as body:
                configure(tmp_path, keys=[{"id": "k", "sha256": digest_key(KEY)}])
                process.send_signal(signal.SIGHUP)
                until(lambda: statuses(port, 1) == [401])
            assert ending(PATHS[0], unchunked(body[0].partition(b"\r\n\r\n")[2])) == "done"
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            said.shutdown(socket.SHUT_RD)
            listener.join(60)
            said.close()
    kinds = [message.split(b"=")[0] for message in heard]
    # The watchdog is fed to the end, also while the gateway stops.
    assert [kind for kind in kinds if kind != b"WATCHDOG"][-1] == b"STOPPING"
    assert {b"WATCHDOG", b"RELOADING", b"READY"} <= set(kinds)
    assert kinds.index(b"RELOADING") < len(kinds) - 1 - kinds[::-1].index(b"READY")


def test_reload_takes_policies_and_refuses_what_needs_a_restart(stage: Start) -> None:
    """Policies, keys and closings change at once, with a row; another setting changes nothing."""
    at = stage()
    gateway, port = at.gateway.gateway, at.gateway.port
    settings = gateway.settings

    def reload(**changes: object) -> tuple[str, ...]:
        new = msgspec.structs.replace(gateway.settings, **changes)
        return run_in(at, gateway.reload(new))

    assert post(port, PATHS[0], HI)[0] == 200
    closed = {"openai.chat": SurfacePolicy(closed=True)}
    assert reload(surfaces=closed) == ("surfaces",)
    assert post(port, PATHS[0], HI)[0] == 503
    assert reload(surfaces={}, keys=(Key(id="k", sha256=digest_key(KEY)),)) == ("surfaces", "keys")
    assert post(port, PATHS[0], HI)[0] == 401
    assert post(port, PATHS[0], HI, extra=f"x-api-key: {KEY}\r\n")[0] == 200
    for name in ("host", "ledger", "store", "upstream", "releases", "journal"):
        assert name not in RELOADED
    with pytest.raises(ConfigError, match="ledger: can't change while"):
        reload(ledger="other.db", keys=())
    assert gateway.settings.keys != ()
    assert reload(keys=settings.keys) == ("keys",)
    rows = [row for row in at.ledger.rows if isinstance(row, EventRow)]
    changes = [row.detail["names"] for row in rows if row.kind is EventKind.POLICY]
    assert changes == ["surfaces", "surfaces,keys", "keys"]


def run_in(at: object, work: object) -> object:
    """Run a coroutine in the gateway's own loop."""
    import asyncio  # noqa: PLC0415 - only here

    return asyncio.run_coroutine_threadsafe(work, at.gateway.loop).result(60)


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/metrics", "/healthz/"])
def test_head_is_answered_without_a_row(stage: Start, path: str) -> None:
    """HEAD on what watches a gateway is 200 without a body; on anything else it leaves no row."""
    at = stage()
    answer = raw(
        at.gateway.port, f"HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
    )
    assert answer.split(b"\r\n")[0].endswith(b"200 OK")
    assert answer.endswith(b"\r\n\r\n")
    before = len(at.ledger.rows)
    for other in (PATHS[0], "/nosuch", "/v1/embeddings"):
        head = f"HEAD {other} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
        assert b" 200 " not in raw(at.gateway.port, head).split(b"\r\n")[0]
    assert len(at.ledger.rows) == before
    assert not at.prompts()


def test_trailing_slash_is_the_same_path(stage: Start) -> None:
    """A slash at the end changes nothing: the same surface guards, with a row."""
    at = stage()
    assert post(at.gateway.port, PATHS[0] + "/", HI)[0] == 200
    marked = json.dumps(body_for(PATHS[0], MARKER, stream=False)).encode()
    assert b"content_filter" in post(at.gateway.port, PATHS[0] + "//", marked)[2]
    assert [row.surface for row in at.prompts()] == ["openai.chat"] * 2
    assert isinstance(at.prompts()[0], PromptRow)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("[::1]", 200),
        ("[::1]:8400", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1", 200),
        ("[::2]", 401),
        ("evil.example:8400", 401),
        ("localhost.evil.example", 401),
        ("::1", 401),
        ("", 401),
    ],
)
def test_host_header_of_a_keyless_gateway(stage: Start, host: str, status: int) -> None:
    """Every way to write loopback is let in, with and without a port; nothing else is."""
    at = stage()
    head = (
        f"POST {PATHS[0]} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(HI)}\r\nconnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", at.gateway.port), timeout=60) as sock:
        sock.sendall(head.encode() + HI)
        answer = read(sock)
    assert int(answer.split(b" ")[1]) == status


@pytest.mark.parametrize(
    ("given", "posted"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/v1/traces", "https://c/v1/traces"),
        ("https://c/otlp/mine", "https://c/otlp/mine"),
    ],
)
def test_collectors_base_url_gets_the_standard_path(given: str, posted: str) -> None:
    """A base URL would lose every span silently; a full one is left as it is."""
    assert traces_url(given) == posted


@pytest.mark.parametrize("given", ["c:4318", "grpc://c:4317", "http://", ""])
def test_collector_without_a_scheme_is_refused(given: str) -> None:
    """What is no URL is told at the start."""
    with pytest.raises(ConfigError, match="otlp"):
        traces_url(given)


def test_dead_collector_holds_up_nobody() -> None:
    """A collector that never answers costs the shutdown two seconds, not ten."""
    let_go = threading.Event()
    began = time.monotonic()
    Tracer(None, lambda: let_go.wait(60)).close()
    took = time.monotonic() - began
    let_go.set()
    assert took < 30


def test_manager_that_does_not_read_blocks_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full queue at systemd's end costs a notification, never the event loop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said:
        said.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        sent = [notify("WATCHDOG=1") for _ in range(5000)]
    assert sent[0]
    assert not sent[-1]


def test_nobody_to_notify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without systemd, or with one that went away, nothing is said and nothing fails."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1")


def test_settings_of_these_tests_are_settings() -> None:
    """Every name that a reload may take is a setting."""
    assert set(Settings.__struct_fields__) >= RELOADED
    assert Served.__struct_fields__


@pytest.mark.parametrize("kept", [True, False])
def test_a_signal_during_the_start_waits(*, kept: bool) -> None:
    """A harmless signal before a worker has its handlers ends no worker; without this it does."""
    program = (
        "import sys; sys.stdin.readline()\n"
        "from safehold.guard.gateway.operate.worker_life import ignore_unknown_signals\n"
        "ignore_unknown_signals(); print('alive')\n"
    )
    command = [sys.executable, "-c", program]
    with unknown_signals_wait() if kept else contextlib.nullcontext():
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.send_signal(signal.SIGUSR1)
    said, _ = child.communicate(b"\n", timeout=60)
    assert (said == b"alive\n") == kept
