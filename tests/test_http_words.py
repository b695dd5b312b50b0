"""What a server tells: when to come again, and, in words, why there was no answer."""

import email.utils
import http.client
import io
import socket
import ssl
import urllib.error
from email.message import Message

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.http_ask import ask
from safehold.http_words import wait_asked_s, why_no_answer
from safehold.testing.answering import Answering

NOW = 1_792_569_600.0  # 2026-10-21 08:00:00 GMT


@pytest.mark.parametrize(
    ("told", "wait_s"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("00", 0.0),
        ("120", 120.0),
        ("121", 120.0),
        ("9" * 400, 120.0),
        ("9" * 100_000, None),
        ("Wed, 21 Oct 2026 08:00:09 GMT", 9.0),
        ("Wed, 21 Oct 2026 10:00:09 +0200", 9.0),
        ("Wednesday, 21-Oct-26 08:00:09 GMT", 9.0),
        ("Wed Oct 21 08:00:09 2026", 9.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 120.0),
        ("Wed, 99 Oct 2026 08:00:09 GMT", None),
        ("Wed, 21 Oct 99999999999 08:00:09 GMT", None),
        ("-1", None),
        ("-0", None),
        ("+5", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("\u0667", None),
        ("\u00b2", None),
        ("soon", None),
        ("5, 6", None),
        ("", None),
        ("   ", None),
        (None, None),
    ],
)
def test_a_wait_is_read_in_every_form_that_the_standard_has(
    told: str | None, wait_s: float | None
) -> None:
    """Seconds and dates ask for a bounded wait; anything else asks for none."""
    assert wait_asked_s(told, now=NOW, most_s=120.0) == wait_s


@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, .*"), st.integers().map(str)))
def test_no_header_makes_us_wait_longer_or_break(told: str) -> None:
    """Whatever a server writes there, the wait is none, or lies within the bound."""
    wait_s = wait_asked_s(told, now=NOW, most_s=10.0)
    assert wait_s is None or 0.0 <= wait_s <= 10.0


@given(st.integers(0, 4_000_000_000))
def test_a_date_asks_for_what_is_left_until_then(at: int) -> None:
    """Every date of the preferred form is read to the second."""
    said = email.utils.formatdate(at, usegmt=True)
    assert wait_asked_s(said, now=NOW, most_s=1e12) == max(at - NOW, 0.0)


def _kinds(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(_kinds(one) for one in base.__subclasses__()))


def test_every_failure_of_a_connection_is_told_in_words() -> None:
    """No failure of an HTTP client is told by its class, or by text of the library."""
    kinds = _kinds(aiohttp.ClientError) | _kinds(ConnectionError) | _kinds(ssl.SSLError)
    kinds |= _kinds(http.client.HTTPException) | {TimeoutError, OSError, socket.gaierror}
    assert len(kinds) > 30
    for kind in kinds:
        said = why_no_answer(kind.__new__(kind))
        assert said
        assert kind.__name__ not in said
    assert len({why_no_answer(kind.__new__(kind)) for kind in kinds}) >= 10


def test_an_answer_of_an_error_and_what_lies_in_another_are_told() -> None:
    """An error of urllib says its status, or what it holds."""
    refused = urllib.error.HTTPError("http://h/", 503, "x" * 9_000, Message(), io.BytesIO())
    with refused:
        assert why_no_answer(refused) == "it answered with status 503"
    held = urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))
    assert why_no_answer(held) == "nobody listens there"
    assert why_no_answer(urllib.error.URLError("no such thing")) == "the connection failed"


def test_what_our_own_client_says_is_repeated() -> None:
    """An answer that is none is told as `ask` tells it."""
    with Answering(b"SSH-2.0-other\r\n") as other, pytest.raises(ConnectionError) as said:
        ask(other.url, timeout_s=5)
    assert why_no_answer(said.value) == "expected a whole HTTP answer, came something else"
