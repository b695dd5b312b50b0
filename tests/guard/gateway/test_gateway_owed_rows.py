"""A ledger that dies in the middle of a stream: what was delivered is told it when it is back."""

import json
import time

import msgspec
from gateway_wire import PATHS, Start, body_for, post

from safehold.errors import LedgerError
from safehold.guard.gateway.server import Parts
from safehold.guard.ledger.interface import FinalRow, Row
from safehold.testing.guards import held_rules
from safehold.testing.ledger import MemoryLedger
from safehold.testing.upstream import says

SLOW = msgspec.structs.replace(says("Harmless words. " * 40, size=8), delay_s=0.005)


class Failing(MemoryLedger):
    """A ledger that takes no final rows for a while."""

    dead = False

    async def append(self, row: Row, *more: Row) -> int:
        """Refuse final rows while it is dead."""
        if self.dead and isinstance(row, FinalRow):
            raise LedgerError("dead")
        return await super().append(row, *more)


def no_loader(path: object) -> None:
    """Stand where no bundle is loaded."""
    raise AssertionError(path)


def test_final_row_is_owed_until_the_ledger_takes_it(stage: Start) -> None:
    """The client's stream ends with an error; its text is in the ledger once that is back."""
    ledger = Failing()
    at = stage(SLOW, Parts(loader=no_loader, held=held_rules(), ledger=ledger))
    ledger.dead = True
    body = json.dumps(body_for(PATHS[0], "hi")).encode()
    answer = post(at.gateway.port, PATHS[0], body)[2]
    assert b'"error"' in answer
    assert b'"Harmless' in answer
    assert at.finals() == []
    ledger.dead = False
    until = time.monotonic() + 30
    while not at.finals():
        assert time.monotonic() < until
        time.sleep(0.05)
    (final,) = at.finals()
    kept = "".join(item.text for item in final.delivered)
    assert kept.startswith("Harmless words.")
    assert final.delivered_bytes == len(kept.encode())
    assert at.gateway.gateway.relay.owed == []
