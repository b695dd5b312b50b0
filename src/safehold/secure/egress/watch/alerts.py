"""Alerts: a line in a file first, then a webhook; a failed webhook stops nothing."""

import hmac
import http.client
import urllib.parse
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import msgspec

from safehold.secure.egress.interface import StateError
from safehold.secure.egress.watch.response import Step
from safehold.trust.log.files import append_whole

_TIMEOUT_S = 3.0


class Alert(msgspec.Struct, frozen=True):
    """One step of the ladder as it is told to people."""

    time: float
    level: str
    flow: str
    reason: str


class AlertSink(Protocol):
    """Tells somebody."""

    def send(self, alert: Alert) -> None:
        """Deliver one alert or raise StateError."""
        ...


class AlertFile:
    """Appends alerts to a file as JSON lines, durably."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, alert: Alert) -> None:
        """Append one line."""
        try:
            append_whole(self._path, msgspec.json.encode(alert) + b"\n", sync=True)
        except OSError as error:
            raise StateError(f"{self._path.name}: can't be appended ({error.strerror})") from error


class Webhook:
    """Posts alerts as JSON; redirects are not followed.

    With a secret, `X-Safehold-Signature: sha256=...` is the body's HMAC-SHA-256. The webhook's own
    bytes leave the host too: it needs a row in the register.
    """

    def __init__(self, url: str, secret: bytes = b"") -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise StateError("a webhook is an http or https URL")
        self._parts = parts
        self._secret = secret

    def send(self, alert: Alert) -> None:
        """Post one alert; raises StateError unless the answer is 2xx."""
        body = msgspec.json.encode(alert)
        headers = {"Content-Type": "application/json"}
        if self._secret:
            digest = hmac.digest(self._secret, body, "sha256").hex()
            headers["X-Safehold-Signature"] = f"sha256={digest}"
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=_TIMEOUT_S)
        target = self._parts.path or "/"
        if self._parts.query:
            target += "?" + self._parts.query
        try:
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise StateError("the webhook did not answer") from error
        finally:
            connection.close()
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise StateError(f"the webhook answered {status}")


def tell(steps: Sequence[Step], now: float, sinks: Sequence[AlertSink]) -> list[str]:
    """Send every step to every sink; return what failed, never raise for it."""
    failed = []
    for step in steps:
        alert = Alert(now, step.level.name.lower(), step.flow, step.reason)
        for sink in sinks:
            try:
                sink.send(alert)
            except StateError as error:
                failed.append(str(error))
    return failed
