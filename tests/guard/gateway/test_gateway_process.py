"""The command as it is served: several workers, a drain, a full disk, a database that dies."""

import json
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from gateway_process import ask, metric, served
from gateway_wire import PATHS, body_for, ending, post, unchunked

from safehold.guard.gateway.policy import digest_key
from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.guards import MARKER
from safehold.testing.postgres import EmbeddedPostgres
from safehold.testing.upstream import MockUpstream, says

HI = body_for(PATHS[0], "hi")
_KEY = "sk-safehold-0123456789abcdefghijklmnop"


def rows(url: str) -> tuple[set[str], set[str]]:
    """Return the decision ids with a prompt row and those with a final row."""
    entries = [entry.row for entry in LedgerReader.open(url).after(0, limit=10_000)]
    prompts = {row.decision_id for row in entries if isinstance(row, PromptRow)}
    finals = {row.decision_id for row in entries if isinstance(row, FinalRow)}
    return prompts, finals


def test_two_workers_count_together(tmp_path: Path, new_database: Callable[[], str]) -> None:
    """Any of two workers tells the metrics of both; they share one ledger and one budget."""
    url = new_database()
    store = url.replace("postgresql://", "postgresql+psycopg://")
    key = {"id": "k", "sha256": digest_key(_KEY), "budget": {"requests_per_minute": 600}}
    with (
        MockUpstream() as upstream,
        served(tmp_path, upstream.url, "--workers", "2", store=store, keys=[key]) as at,
    ):
        for number in range(24):
            path = PATHS[number % 3]
            asked = json.dumps(body_for(path, MARKER if number % 4 == 0 else "hi")).encode()
            assert post(at.port, path, asked, extra=f"x-api-key: {_KEY}\r\n")[0] == 200
        deadline = time.monotonic() + 60  # an exchange is closed once its answer is sent
        while metric(at.port, "safehold_open_exchanges") and time.monotonic() < deadline:
            time.sleep(0.02)
        for _ in range(6):  # whichever worker answers
            assert metric(at.port, "safehold_exchanges_total") == 24
            assert metric(at.port, "safehold_blocks_total") == 6
            assert metric(at.port, "safehold_open_exchanges") == 0
        prompts, finals = rows(at.ledger)
    assert len(prompts) == 24
    assert prompts == finals
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT sum(total) FROM gateway_counts").fetchone() == (24,)


def test_sigterm_lets_an_open_stream_end(tmp_path: Path) -> None:
    """After SIGTERM a running stream still ends validly, and no new connection is taken."""
    words = says("Words that take their time. " * 24, size=4)
    script = msgspec.structs.replace(words, delay_s=0.02)
    asked = json.dumps(HI).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    )
    with MockUpstream(script) as upstream, served(tmp_path, upstream.url) as at:
        with socket.create_connection(("127.0.0.1", at.port), timeout=30) as sock:
            sock.sendall(head % len(asked) + asked)
            got = sock.recv(65536)
            at.stop()
            refused = False
            while part := sock.recv(65536):
                got += part
                refused = refused or _refuses(at.port)
        assert at.process.wait(30) == 0
        prompts, finals = rows(at.ledger)
    assert refused
    assert ending(PATHS[0], unchunked(got.partition(b"\r\n\r\n")[2])) == "done"
    assert len(prompts) == 1
    assert prompts == finals


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return True
    return False


def test_full_disk_refuses_until_there_is_room(tmp_path: Path) -> None:
    """When the ledger's file can't grow the client gets 503 and no text; with room all goes on."""
    with MockUpstream() as upstream, served(tmp_path, upstream.url) as at:
        assert ask(at.port, PATHS[0], HI) == 200
        largest = max(path.stat().st_size for path in tmp_path.glob("ledger.db*"))
        limits = resource.prlimit(at.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(at.process.pid, resource.RLIMIT_FSIZE, (largest + 4096, limits[1]))
        full = [ask(at.port, PATHS[0], body_for(PATHS[0], "hi" * 3000)) for _ in range(40)]
        assert full[-1] == 503
        assert set(full) <= {200, 503}
        resource.prlimit(at.process.pid, resource.RLIMIT_FSIZE, limits)
        deadline = time.monotonic() + 60
        while ask(at.port, PATHS[0], HI) != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ask(at.port, PATHS[0], HI) == 200
        served_whole = full.count(200)
        prompts, finals = rows(at.ledger)
    assert len(prompts) >= served_whole + 2
    assert finals <= prompts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "safehold-test", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Write to a file until there is no room for more."""
    with path.open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


def test_file_system_that_is_full_refuses_until_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    """Ledger and journal on a full file system: 503 and no text; with room all goes on."""
    options = ("--journal", str(small_disk / "journal"))
    ledger = str(small_disk / "ledger.db")
    with (
        MockUpstream() as upstream,
        served(tmp_path, upstream.url, *options, ledger=ledger) as at,
    ):
        assert ask(at.port, PATHS[0], HI) == 200
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        full = [ask(at.port, PATHS[0], body_for(PATHS[0], "hi" * 3000)) for _ in range(10)]
        assert full[-1] == 503
        assert set(full) <= {200, 503}
        filler.unlink()
        assert ask(at.port, PATHS[0], HI) == 200
        prompts, finals = rows(at.ledger)
    assert len(prompts) >= full.count(200) + 2
    assert finals <= prompts


def test_postgres_gone_and_back(tmp_path: Path) -> None:
    """While the ledger's database is away nothing is released; when it is back all goes on."""
    with (
        tempfile.TemporaryDirectory(prefix="shpg-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
        MockUpstream() as upstream,
        served(tmp_path, upstream.url, ledger=server.url) as at,
    ):
        assert ask(at.port, PATHS[0], HI) == 200
        server.crash()
        assert ask(at.port, PATHS[0], HI) == 503
        assert ask(at.port, PATHS[1], body_for(PATHS[1], "hi")) == 503
        server.start()
        deadline = time.monotonic() + 30
        while ask(at.port, PATHS[0], HI) != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ask(at.port, PATHS[0], HI) == 200
        prompts, finals = rows(server.url)
    assert len(prompts) >= 3
    assert finals <= prompts
