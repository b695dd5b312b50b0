"""Our own HTTP requests: which addresses are asked, and which answers are believed."""

import urllib.error
from pathlib import Path

import pytest

from safehold.errors import UsageError, WireError
from safehold.http_ask import ask, object_of
from safehold.testing.answering import Answering

SECRET = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"


@pytest.mark.parametrize("scheme", ["file", "ftp", "data", "FILE", ""])
def test_another_scheme_is_refused_before_anything_is_opened(scheme: str, tmp_path: Path) -> None:
    """A file of our own disk is no answer of a gateway."""
    (tmp_path / "status").write_text("{}")
    with pytest.raises(UsageError, match="expected an http or https address"):
        ask(f"{scheme}://{tmp_path}/status", timeout_s=1)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://[::1",
        "http://127.0.0.1:99999",
        "http://a b/",
        "http://h/\n",
        "http://\u00e9",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """What can't be an address is a word to who typed it, not a server that is away."""
    with pytest.raises(UsageError, match="expected an http or https address"):
        ask(url, timeout_s=1)


def test_a_refused_address_tells_no_password() -> None:
    """What stands before the host stays out of the message."""
    with pytest.raises(UsageError) as said:
        ask(f"ftp://me:{SECRET}@host/", timeout_s=1)
    assert SECRET not in str(said.value)


def test_an_http_address_is_asked() -> None:
    """The twin: nobody listens there, and that is what the error says."""
    with pytest.raises(OSError, match="refused"):
        ask("http://127.0.0.1:9/status", timeout_s=5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-other\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 500 No\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 3_000,
    ],
    ids=["nothing", "other", "cut", "cut-error", "cut-chunk", "headers", "long"],
)
def test_an_answer_that_is_not_whole_is_no_answer(answer: bytes) -> None:
    """Each way in which an answer is broken, cut or too long is one kind of error."""
    with Answering(answer) as other, pytest.raises(ConnectionError) as said:
        ask(other.url, timeout_s=5, most_bytes=2_000)
    assert not isinstance(said.value, urllib.error.HTTPError)


def test_a_whole_answer_is_given_with_its_status() -> None:
    """The twin: the body comes as it was sent."""
    with Answering(b'HTTP/1.1 202 Yes\r\ncontent-length: 7\r\n\r\n{"a":1}') as other:
        answer = ask(other.url, timeout_s=5)
    assert (answer.status, object_of(answer, of="it")) == (202, {"a": 1})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_key_elsewhere(status: int) -> None:
    """A key is for the address that it was given to; who answers there can't send it on."""
    with Answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as thief:
        to = f"HTTP/1.1 {status} Moved\r\nlocation: {thief.url}/x\r\ncontent-length: 0\r\n\r\n"
        with Answering(to.encode()) as other, pytest.raises(urllib.error.HTTPError) as said:
            ask(other.url, timeout_s=5, headers={"authorization": f"Bearer {SECRET}"})
        assert "not followed" in str(said.value)
        assert thief.heard == []


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b"\xff", b"[" * 50_000])
def test_what_is_no_object_is_said(body: bytes) -> None:
    """Anything but a JSON object is one error that names who answered."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    with Answering(head + body) as other:
        answer = ask(other.url, timeout_s=5)
    with pytest.raises(WireError, match="it: expected a JSON object"):
        object_of(answer, of="it")
