"""A PostgreSQL primary that dies for good: its standby is promoted, nothing delivered is lost."""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pytest

from safehold.guard.ledger.coverage import StallLimits, audit
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.postgres import EmbeddedPostgres
from safehold.testing.upstream import MockUpstream, says

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_crash import Client, check
from gateway_process import ask, served
from gateway_wire import PATHS, body_for

pytestmark = pytest.mark.soak
STREAMS = int(os.environ.get("SAFEHOLD_SOAK_STREAMS", "200")) // 4
SLOW = msgspec.structs.replace(says("Words of an answer that is told slowly. " * 8), delay_s=0.02)


def test_promoted_standby_has_all_that_was_delivered(tmp_path: Path) -> None:
    """Ledger and store go on with the promoted server; each client's text is in its rows."""
    with contextlib.ExitStack() as stack:
        places = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shpg-"))) for _ in "ab"
        ]
        # Every commit waits for the standby: without that a fail-over may lose rows.
        primary = stack.enter_context(
            EmbeddedPostgres(places[0], settings={"synchronous_standby_names": "*"})
        )
        standby = stack.enter_context(EmbeddedPostgres(places[1], follows=primary))
        hosts = "&".join(f"host={place}" for place in places)
        url = f"postgresql://safehold@/postgres?{hosts}&target_session_attrs=read-write"
        upstream = stack.enter_context(MockUpstream(SLOW))
        at = stack.enter_context(served(tmp_path, upstream.url, ledger=url, store=url))
        assert ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) == 200
        clients = [Client(at.port, PATHS[number % 3]) for number in range(STREAMS)]
        for client in clients:
            client.start()
            time.sleep(0.02)
        began = time.monotonic()
        while not any(client.text for client in clients):
            assert time.monotonic() - began < 120
            time.sleep(0.05)
        primary.crash()
        standby.promote()
        down = time.monotonic()
        while ask(at.port, PATHS[0], body_for(PATHS[0], "hi")) != 200:
            assert time.monotonic() - down < 120
            time.sleep(0.2)
        away_s = time.monotonic() - down
        for client in clients:
            client.join(180)
        time.sleep(5)  # what the ledger did not take is told again every second
        reader = LedgerReader.open(standby.url)
        spoken = [client for client in clients if client.text]
        for client in spoken:
            check(reader, client)
        found = audit(reader, now=time.time(), limits=StallLimits())
    figures = {"streams": len(clients), "with_text": len(spoken), "away_s": round(away_s, 1)}
    print(json.dumps(figures | {"gaps": found.gaps}))  # noqa: T201
    assert spoken
    assert found.gaps == ()
