"""What the ledger, the metrics and the log count is what the client was sent."""

import json
import urllib.request

import pytest
from gateway_wire import PATHS, Start, body_for, post

from safehold.guard.gateway.policy import SurfacePolicy
from safehold.guard.interface import DeliveryMode
from safehold.testing.guards import MARKER
from safehold.testing.upstream import says


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", list(DeliveryMode))
@pytest.mark.parametrize("text", ["quite harmless words", f"some words and {MARKER} and more"])
def test_delivered_bytes_agree_everywhere(
    module_stage: Start, path: str, mode: DeliveryMode, text: str, *, stream: bool
) -> None:
    """Row, delivered text and metric count the same bytes, whole and streamed, passed and cut."""
    at = module_stage(says(text), default=SurfacePolicy(mode=mode))
    post(at.gateway.port, path, json.dumps(body_for(path, "hi", stream=stream)).encode())
    row = at.finals()[-1]
    kept = sum(len(item.text.encode()) for item in row.delivered)
    assert row.delivered_bytes == kept <= row.scored_bytes
    if MARKER not in text or mode is DeliveryMode.AUDIT:
        assert kept == len(text)
    with urllib.request.urlopen(f"http://127.0.0.1:{at.gateway.port}/metrics") as got:
        lines = got.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("safehold_delivered_bytes_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == kept
