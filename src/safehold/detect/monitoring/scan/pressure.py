"""Back-pressure: a scan holds back while the gateway waits for its ledger.

The gateway tells in its metrics how long each row took to be durable. What came since the last look
gives the 99 % quantile of now. A gateway that answers too late is busy; one that is not there needs
nothing.
"""

import http.client
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from safehold.errors import ConfigError

METRIC = "safehold_ledger_append_seconds_bucket"
_BUCKET = re.compile(METRIC + r'\{[^}]*le="([^"]+)"[^}]*\}\s+([0-9.e+]+)')
_EVERY_S = 2.0
_TIMEOUT_S = 2.0
_QUANTILE = 0.99
_LEAST_ROWS = 20

Buckets = dict[float, float]


class LedgerPressure:
    """Says whether the gateway's appends took longer than the limit, as of the last seconds."""

    def __init__(
        self, metrics: str, limit_s: float, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the gateway's metrics address and the 99 % quantile that is too much.

        Raises:
            ConfigError: it is no http address, or the limit is not above 0.
        """
        found = urlsplit(metrics)
        if found.scheme != "http" or not found.hostname:
            raise ConfigError(f"expected an address such as http://127.0.0.1:8400, came {metrics}")
        if not limit_s > 0:
            raise ConfigError(f"expected a limit above 0 s, came {limit_s}")
        self._host, self._port = found.hostname, found.port or 80
        self._limit_s, self._ticks = limit_s, ticks
        self._before: Buckets | None = None
        self._looked = -_EVERY_S
        self._busy = False

    def __call__(self, ledger: str) -> bool:
        """Look at most every 2 s; between looks the last answer holds."""
        del ledger
        now = self._ticks()
        if now - self._looked >= _EVERY_S:
            self._looked = now
            self._busy = self._look()
        return self._busy

    def _look(self) -> bool:
        try:
            text = self._fetched()
        except TimeoutError:
            return True
        except (OSError, http.client.HTTPException):
            self._before = None
            return False
        now = buckets(text)
        before, self._before = self._before, now
        found = None if before is None else quantile(before, now)
        return found is not None and found > self._limit_s

    def _fetched(self) -> str:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode("utf-8", "replace")
        finally:
            connection.close()


def buckets(text: str) -> Buckets:
    """Return the histogram's cumulative counts by upper bound, summed over labels."""
    found: Buckets = {}
    for bound, count in _BUCKET.findall(text):
        found[float(bound)] = found.get(float(bound), 0.0) + float(count)
    return found


def quantile(before: Buckets, now: Buckets) -> float | None:
    """Return the bucket's bound that 99 % of what came between lie at or below.

    None: fewer than 20 rows came, or the counters began anew.
    """
    grown = {bound: count - before.get(bound, 0.0) for bound, count in sorted(now.items())}
    total = max(grown.values(), default=0.0)
    if total < _LEAST_ROWS or min(grown.values()) < 0:
        return None
    return next(bound for bound, count in grown.items() if count >= _QUANTILE * total)
