"""systemd is told that the guard is ready when its marks are set, and not before."""

import socket
import threading
from pathlib import Path

import pytest

from safehold.secure.endpoint.interface import GuardState
from safehold.secure.endpoint.service import telling


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """The socket that a unit of `Type=notify` is given."""
    place = tmp_path / "notify"
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(place))
    told.settimeout(10)
    monkeypatch.setenv("NOTIFY_SOCKET", str(place))
    return told


def test_ready_is_told_after_the_marks(systemd: socket.socket) -> None:
    """Nothing is sent while there are no marks; then it is, and what is done beside goes on."""
    state, ended, beside = GuardState(), threading.Event(), threading.Event()
    thread = threading.Thread(target=telling(lambda *_: beside.set()), args=(state, ended))
    with systemd:
        thread.start()
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(64)
        systemd.settimeout(10)
        state.marks = 3
        assert systemd.recv(64) == b"READY=1"
        thread.join(10)
    assert beside.is_set()


def test_guard_that_ends_without_marks_is_never_ready(systemd: socket.socket) -> None:
    """A worker that is told to end before it has marks says nothing."""
    ended = threading.Event()
    ended.set()
    with systemd:
        telling(lambda *_: None)(GuardState(), ended)
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(64)


def test_without_systemd_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by hand, what is done beside begins at once, marks or not."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    beside = threading.Event()
    telling(lambda *_: beside.set())(GuardState(), threading.Event())
    assert beside.is_set()
