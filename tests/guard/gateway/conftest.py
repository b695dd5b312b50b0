"""One mock upstream and one gateway in front of it, on real sockets."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec
import pytest
from gateway_limits import SMALL

from safehold.guard.gateway.bundles.swap import LoadedBundle
from safehold.guard.gateway.policy import Settings, Upstream
from safehold.guard.gateway.server import Parts
from safehold.guard.ledger.interface import FinalRow, PromptRow
from safehold.testing.gateway import RunningGateway
from safehold.testing.guards import held_rules
from safehold.testing.ledger import MemoryLedger
from safehold.testing.upstream import MockUpstream, Script

HELD = time.time()
"""When the budgets of every stage count: a minute, an hour or a day may end during a test."""


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


def no_loader(path: object) -> LoadedBundle:
    """Stand where no test loads a bundle."""
    raise AssertionError(path)


class Stopping:
    """Stops what tests leave running, on threads: a server's farewell takes half a second."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def stop(self, stack: ExitStack) -> None:
        """Begin to close a stack."""
        thread = threading.Thread(target=self._close, args=(stack,))
        self._threads.append(thread)
        thread.start()

    def _close(self, stack: ExitStack) -> None:
        try:
            stack.close()
        except BaseException as error:  # noqa: BLE001 - told by `wait`
            self._errors.append(error)

    def wait(self) -> None:
        """Wait for all of them, and tell of the first that failed."""
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]


@pytest.fixture(scope="session")
def stopping() -> Iterator[Stopping]:
    """Stop servers in the background; all have ended when the session does."""
    stopped = Stopping()
    yield stopped
    stopped.wait()


def stages(stopping: Stopping) -> Iterator[Callable[..., Stage]]:
    """Give a function that starts a gateway; all are stopped at the end."""
    stack = ExitStack()
    try:

        def start(script: Script | None = None, parts: Parts | None = None, **settings) -> Stage:  # noqa: ANN003 - settings by name
            upstream = stack.enter_context(MockUpstream(script))
            given = {
                "upstream": Upstream(url=upstream.url),
                "port": 0,
                "limits": SMALL,
                "log": "none",
            }
            ledger = MemoryLedger()
            parts = parts or Parts(loader=no_loader, held=held_rules())
            parts = msgspec.structs.replace(parts, ledger=parts.ledger or ledger)
            gateway = stack.enter_context(RunningGateway(Settings(**(given | settings)), parts))
            counters = gateway.gateway.gate.counters
            counters._clock = counters._store._clock = lambda: HELD
            return Stage(upstream, gateway, parts.ledger)

        yield start
    finally:
        stopping.stop(stack)


@pytest.fixture
def stage(stopping: Stopping) -> Iterator[Callable[..., Stage]]:
    """Return a function that starts a gateway; all are stopped when the test ends."""
    yield from stages(stopping)


@pytest.fixture(scope="module")
def module_stage(stopping: Stopping) -> Iterator[Callable[..., Stage]]:
    """Return a function that starts a gateway which all tests of a module share."""
    yield from stages(stopping)
