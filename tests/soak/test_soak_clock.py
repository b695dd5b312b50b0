"""Clocks that step by a day while streams go on; only the gateway's own process sees the steps."""

import itertools
import json
import os
import sys
import time
from pathlib import Path

import msgspec
import pytest

from safehold.guard.ledger.coverage import StallLimits, audit
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.upstream import MockUpstream, says

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_crash import Client, check
from gateway_process import ask, served
from gateway_wire import PATHS, body_for

pytestmark = pytest.mark.soak
STEPS = ("+1d", "+0", "-1d", "+0", "+3600", "-3600", "+30d", "-30d", "+0", "+1")
STREAMS = max(1, int(os.environ.get("SAFEHOLD_SOAK_STREAMS", "200")) // len(STEPS))
SLOW = msgspec.structs.replace(says("Words of an answer that is told slowly. " * 6), delay_s=0.02)


def test_clock_steps_cut_no_stream_and_lose_no_row(tmp_path: Path) -> None:
    """Ten steps of a second to 30 days, both ways: all streams end, rows stay in one order."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert libraries, "libfaketime is missing: run scripts/system-packages"
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    clients: list[Client] = []
    with (
        MockUpstream(SLOW) as upstream,
        # Half a minute more than a busy machine needs to connect; far less than any step.
        served(
            tmp_path, upstream.url, environment=environment, limits={"connect_timeout_s": 60.0}
        ) as at,
    ):
        for step in STEPS:
            batch = [Client(at.port, PATHS[number % 3]) for number in range(STREAMS)]
            for client in batch:
                client.start()
            began = time.monotonic()
            while not any(client.text for client in batch):
                assert time.monotonic() - began < 120
                time.sleep(0.02)
            offset.write_text(f"{step}\n")
            for client in batch:
                client.join(120)
            clients += batch
        assert ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) == 200
        reader = LedgerReader.open(at.ledger)
        for client in clients:
            check(reader, client)
        entries = list(reader.after(0, limit=1_000_000))
        found = audit(reader, now=time.time(), limits=StallLimits())
    whole = sum(client.text == SLOW_TEXT for client in clients)
    back = sum(later.row.at < earlier.row.at - 1 for earlier, later in itertools.pairwise(entries))
    figures = {
        "steps": len(STEPS),
        "streams": len(clients),
        "whole": whole,
        "clock_went_back": back,
    }
    print(json.dumps(figures | {"gaps": found.gaps}))  # noqa: T201
    short = [(client.path, client.got[-300:]) for client in clients if client.text != SLOW_TEXT]
    assert not short
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert back > 0, "the gateway did not see the steps"
    assert found.gaps == ()


SLOW_TEXT = "".join(delta for said in SLOW.said for delta in said.deltas)
