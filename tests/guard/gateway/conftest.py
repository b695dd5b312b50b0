"""One mock upstream and one gateway in front of it, on real sockets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec
import pytest

from safehold.guard.gateway.policy import Limits, Settings, Upstream
from safehold.guard.gateway.server import Parts
from safehold.guard.gateway.swap import Loaded
from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.testing.gateway import RunningGateway
from safehold.testing.guards import held_rules
from safehold.testing.ledger import MemoryLedger
from safehold.testing.upstream import MockUpstream, Script

QUICK = Limits(
    max_body_bytes=1_000_000,
    max_event_bytes=200_000,
    idle_timeout_s=0.6,
    connect_timeout_s=1,
    body_timeout_s=0.6,
    stall_timeout_s=1,
    total_timeout_s=20,
    drain_timeout_s=5,
)


class Stage(msgspec.Struct):
    """The mock upstream, the gateway, and the ledger between them."""

    upstream: MockUpstream
    gateway: RunningGateway
    ledger: MemoryLedger

    def prompts(self) -> list[PromptRow]:
        """Return the prompt rows of clients, oldest first."""
        rows = [row for row in self.ledger.rows if isinstance(row, PromptRow)]
        return [row for row in rows if row.use_case != "canary"]

    def finals(self) -> list[FinalRow]:
        """Return the final rows of clients, oldest first."""
        rows = [row for row in self.ledger.rows if isinstance(row, FinalRow)]
        return [row for row in rows if not row.decision_id.startswith("canary_")]


def no_loader(path: object) -> Loaded:
    """Stand where no test loads a bundle."""
    raise AssertionError(path)


def stages() -> Iterator[Callable[..., Stage]]:
    """Give a function that starts a gateway; all are stopped at the end."""
    with ExitStack() as stack:

        def start(script: Script | None = None, parts: Parts | None = None, **settings) -> Stage:  # noqa: ANN003 - settings by name
            upstream = stack.enter_context(MockUpstream(script))
            given = {
                "upstream": Upstream(url=upstream.url),
                "port": 0,
                "limits": QUICK,
                "log": "none",
            }
            ledger = MemoryLedger()
            parts = parts or Parts(loader=no_loader, held=held_rules())
            parts = msgspec.structs.replace(parts, ledger=parts.ledger or ledger)
            gateway = stack.enter_context(RunningGateway(Settings(**(given | settings)), parts))
            return Stage(upstream, gateway, parts.ledger)

        yield start


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """Return a function that starts a gateway; all are stopped when the test ends."""
    yield from stages()


@pytest.fixture(scope="module")
def module_stage() -> Iterator[Callable[..., Stage]]:
    """Return a function that starts a gateway which all tests of a module share."""
    yield from stages()
