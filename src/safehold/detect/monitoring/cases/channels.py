"""Channels that tell of cases: a webhook, a mail command, OpenTelemetry's log records.

Each case is told at least once over each channel: it counts as told when the channel took it. None
of them carries content of an exchange.
"""

import asyncio
import hashlib
import hmac
import shlex
import subprocess
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec

from safehold.detect.monitoring.cases.book import CaseBook
from safehold.detect.monitoring.cases.interface import MonitorCase
from safehold.errors import ConfigError, UpstreamError
from safehold.http_words import why_no_answer
from safehold.trust.log.key_files import read_secret

_TIMEOUT_S = 10.0
_OK = range(200, 300)
_SEVERITIES = {1: (9, "INFO"), 2: (13, "WARN"), 3: (17, "ERROR"), 4: (21, "FATAL")}
"""OpenTelemetry's severity number and text (Logs Data Model, 1.0)."""


class CaseChannel(Protocol):
    """Tells one case."""

    @property
    def name(self) -> str:
        """What the book notes it under."""
        ...

    def tell(self, case: MonitorCase) -> None:
        """Tell a case.

        Raises:
            UpstreamError: it was not taken; it will be told again.
        """
        ...


class Webhook:
    """Posts each case as JSON; with a key, `X-Safehold-Signature` is its HMAC-SHA256 in hex.

    The signature is over the time in `X-Safehold-Time`, a point, and the body.
    """

    def __init__(
        self, url: str, key: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Take the address and the file of the shared key.

        Raises:
            ConfigError: it is no http(s) address, or the key can't be read or is short.
        """
        self.name, self._url, self._clock = f"webhook {url}", _checked(url), clock
        self._key = None if key is None else _key(key)

    def tell(self, case: MonitorCase) -> None:
        """Post it."""
        body, at = msgspec.json.encode(told(case)), str(int(self._clock()))
        headers = {"content-type": "application/json", "x-safehold-time": at}
        if self._key is not None:
            mark = hmac.new(self._key, at.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers["x-safehold-signature"] = mark
        post(self._url, body, headers)


class MailCommand:
    """Gives each case as a mail to a command such as `sendmail -t`, on its standard input."""

    def __init__(self, command: str, to: str, sender: str = "safehold-monitor") -> None:
        """Take the command line and the addresses.

        Raises:
            ConfigError: there is no command or no receiver.
        """
        self._command, self._to, self._from = shlex.split(command), to, sender
        if not self._command or not to or "\n" in to:
            raise ConfigError("mail: expected a command and the address of whom to tell")
        self.name = f"mail {to}"

    def tell(self, case: MonitorCase) -> None:
        """Run the command; it takes the mail or the case stays untold."""
        mail = EmailMessage()
        mail["To"], mail["From"] = self._to, self._from
        mail["Subject"] = f"[safehold {case.severity}/4] {case.title}"[:200]
        facts = "\n".join(f"{name}: {text}" for name, text in case.facts.items())
        steps = "\n".join(f"{n}. {step}" for n, step in enumerate(case.playbook, start=1))
        shown = "\n".join(case.evidence)
        mail.set_content(f"{case.title}\n\n{facts}\n\nEvidence:\n{shown}\n\nDo:\n{steps}\n")
        try:
            done = subprocess.run(
                self._command, input=mail.as_bytes(), capture_output=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UpstreamError(f"mail: the command did not run ({error})") from error
        if done.returncode:
            raise UpstreamError(f"mail: the command ended with status {done.returncode}")


class OtlpLogs:
    """Posts each case as an OpenTelemetry log record (OTLP 1 over HTTP, JSON)."""

    def __init__(self, endpoint: str) -> None:
        """Take the collector's base address, such as http://127.0.0.1:4318.

        Raises:
            ConfigError: it is no http(s) address.
        """
        self.name = f"otlp {endpoint}"
        self._url = _checked(endpoint).rstrip("/") + "/v1/logs"

    def tell(self, case: MonitorCase) -> None:
        """Post it."""
        number, text = _SEVERITIES[case.severity]
        record = {
            "timeUnixNano": str(int(case.opened_at * 1e9)),
            "severityNumber": number,
            "severityText": text,
            "eventName": f"safehold.case.{case.kind.value}",
            "body": {"stringValue": case.title},
            "attributes": [
                _attribute("safehold.case.key", case.key),
                *(_attribute(f"safehold.{name}", value) for name, value in case.facts.items()),
            ],
        }
        scope = {"scope": {"name": "safehold.monitor"}, "logRecords": [record]}
        resource = {"attributes": [_attribute("service.name", "safehold-monitor")]}
        body = {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}
        post(self._url, msgspec.json.encode(body), {"content-type": "application/json"})


def tell_all(book: CaseBook, channel: CaseChannel) -> tuple[int, str | None]:
    """Tell what the channel does not know yet; return how many, and why it stopped early."""
    count = 0
    for case in book.untold(channel.name):
        try:
            channel.tell(case)
        except UpstreamError as error:
            return count, str(error)
        book.told(case.key, channel.name)
        count += 1
    return count, None


def told(case: MonitorCase) -> dict[str, Any]:
    """Return a case as JSON tells it: with its playbook."""
    found: dict[str, Any] = msgspec.to_builtins(case)
    return found | {"playbook": list(case.playbook)}


def post(url: str, body: bytes, headers: dict[str, str]) -> None:
    """Post a body.

    Raises:
        UpstreamError: nobody answered in 10 s, or not with a status of success.
    """

    async def go() -> int:
        limit = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status

    try:
        status = asyncio.run(go())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UpstreamError(f"{url}: no answer ({why_no_answer(error)})") from error
    if status not in _OK:
        raise UpstreamError(f"{url}: expected a status of success, came {status}")


def _attribute(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"expected an http(s) address, came {url}")
    return url


def _key(path: Path) -> bytes:
    key = read_secret(path).strip()
    if len(key) < hashlib.sha256().digest_size:
        raise ConfigError(f"{path}: expected a key of 32 bytes or more")
    return key
