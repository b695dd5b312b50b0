"""Where the screens' facts come from: stores that are opened once, and the gateway's admin API."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from safehold.console.followed_standards import FollowedStandards
from safehold.console.index import ExchangeIndex
from safehold.detect.intel.taxii_server import TaxiiServer
from safehold.detect.monitoring.tables import MonitorStore
from safehold.detect.review.appeals import AppealBook
from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.reading import ReviewReading
from safehold.errors import ConfigError, UpstreamError
from safehold.guard.ledger.reader import LedgerReader
from safehold.http_ask import ask
from safehold.trust.grants.grant_service import Desk
from safehold.trust.log.log_entries import Record
from safehold.trust.released.follow import ReleaseLog

_WAIT_S = 3.0
_ACT_WAIT_S = 60.0
"""A bundle is loaded, verified and judged before it is put to use."""
_FRESH_S = 2.0
_MAX_ANSWER_BYTES = 1024 * 1024
_DIGESTS = frozenset({"decision", "note"})


class GatewayStatus(msgspec.Struct, frozen=True):
    """What the gateway says of itself: its bundles, its surfaces, and whether it is ready."""

    bundle: str
    previous: str | None
    surfaces: dict[str, str]
    ready: bool
    why: str = ""


class GatewayLink:
    """The admin API of one gateway, with the administrator's key that the console holds."""

    def __init__(self, url: str, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the gateway's address and key.

        Raises:
            ConfigError: the address is none.
        """
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ConfigError(f"gateway: expected an http or https address, came {url!r}")
        self.url, self._key, self._clock = url.rstrip("/"), key, clock
        self._lock = threading.Lock()
        self._kept: tuple[float, GatewayStatus | str] | None = None

    def status(self) -> GatewayStatus:
        """Return how the gateway stands, at most two seconds old.

        Raises:
            UpstreamError: it does not answer.
        """
        with self._lock:
            if self._kept is None or self._clock() > self._kept[0] + _FRESH_S:
                try:
                    found: GatewayStatus | str = self._status()
                except UpstreamError as error:
                    found = str(error)
                self._kept = (self._clock(), found)
            kept = self._kept[1]
        if isinstance(kept, str):
            raise UpstreamError(kept)
        return kept

    def roll_back(self) -> str:
        """Return to the bundle before, and return its digest.

        Raises:
            UpstreamError: the gateway refused or does not answer; nothing changed.
        """
        return str(self._call("POST", "/admin/bundle/rollback").get("bundle", ""))

    def swap(self, bundle: str) -> str:
        """Put a bundle of the gateway's folder to use, and return its digest."""
        return str(self._call("POST", "/admin/bundle", {"bundle": bundle}).get("bundle", ""))

    def _status(self) -> GatewayStatus:
        told = self._call("GET", "/admin/status")
        ready, why = True, ""
        try:
            self._call("GET", "/readyz")
        except UpstreamError as error:
            ready, why = False, str(error)
        try:
            return msgspec.convert({**told, "ready": ready, "why": why}, GatewayStatus)
        except msgspec.ValidationError as error:
            raise UpstreamError("the gateway's status is not one that we know") from error

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        data = None if method == "GET" else json.dumps(body).encode() if body else b""
        if method != "GET":
            self._kept = None
        wait_s = _WAIT_S if method == "GET" else _ACT_WAIT_S
        try:
            answer = ask(
                self.url + path,
                method=method,
                data=data,
                headers=headers,
                timeout_s=wait_s,
                most_bytes=_MAX_ANSWER_BYTES,
            )
            return _object(answer.body)
        except urllib.error.HTTPError as error:
            said = _object(error.read(_MAX_ANSWER_BYTES)).get("error", f"status {error.code}")
            raise UpstreamError(f"the gateway refused: {said}") from error
        except OSError as error:
            raise UpstreamError("the gateway does not answer; is it running?") from error


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class ConsoleSources:
    """Everything that screens read; None where the operator named no such store."""

    reader: LedgerReader
    index: ExchangeIndex
    desk: Desk
    review_desk: ReviewDesk
    cases: ReviewReading
    monitor: MonitorStore | None = None
    gateway: GatewayLink | None = None
    redteam: Path | None = None
    timeline: Path | None = None
    controls: Path | None = None
    endpoint: Path | None = None
    report: Path | None = None
    response: Path | None = None
    releases: ReleaseLog | None = None
    """What the log let guard: nothing is promoted without it."""
    appeals: AppealBook | None = None
    """The clients' way in, served without a login."""
    taxii: TaxiiServer | None = None
    """What we tell partners, served to its own clients."""
    standing: FollowedStandards = field(default_factory=FollowedStandards)
    """What the log has decided about standards so far."""
    more: dict[str, Any] = field(default_factory=dict)
    """What screens of other parts need, by their own names."""


class DeskLeaves:
    """Keeps the review desk's leaves in the transparency log; durable when `append` returns."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def append(self, kind: str, facts: dict[str, str]) -> None:
        """Append one record."""
        self._desk.record(
            Record(
                time=self._desk.now(),
                kind=kind,
                facts={name: text for name, text in facts.items() if name not in _DIGESTS},
                digests={name: text for name, text in facts.items() if name in _DIGESTS},
            )
        )
