"""Ten thousand idle connections: bounded memory, and the next request is still answered."""

import json
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from safehold.testing.upstream import MockUpstream

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_process import ask, served
from gateway_wire import PATHS, body_for

pytestmark = pytest.mark.soak
CONNECTIONS = 10_000


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit of open files for this process and its children."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 2_000
    if before[1] != resource.RLIM_INFINITY and before[1] < wanted:
        pytest.skip(f"the hard limit of open files is {before[1]}; this needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_idle_connections_are_borne(tmp_path: Path) -> None:
    """Idle keep-alive connections cost little each, and a new client is served beside them."""
    head = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with MockUpstream() as upstream, served(tmp_path, upstream.url) as at, ExitStack() as stack:
        assert ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) == 200
        before = resident_mb(at.process.pid)
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", at.port), timeout=30))
            sock.sendall(head)
        after = resident_mb(at.process.pid)
        assert ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) == 200
        print(json.dumps({"mb_before": round(before), "mb_with_connections": round(after)}))  # noqa: T201
        assert after - before < 200
