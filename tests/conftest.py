"""What several parts share: a real PostgreSQL server, and servers that say nothing of hang-ups."""

import itertools
import os
import socketserver
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

from safehold.testing.postgres import EmbeddedPostgres

# Times are never tested: a busy machine is no failure. `make soak` looks at more examples.
settings.register_profile("soak", deadline=None, max_examples=1_000)
settings.register_profile("untimed", deadline=None, max_examples=40)
settings.load_profile("untimed")


# The one thing that CI does not have, and need not: recorded data for evaluation.
MAY_BE_ABSENT = "SAFEHOLD_EVAL_DATA"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With SAFEHOLD_NO_SKIPS (CI sets it) a test that skips has failed: its program is missing."""
    report = yield
    if report.skipped and os.environ.get("SAFEHOLD_NO_SKIPS"):
        why = str(report.longrepr)
        if MAY_BE_ABSENT not in why and not hasattr(report, "wasxfail"):
            report.outcome = "failed"
            report.longrepr = f"skipped where nothing may be: {why}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _client_that_hangs_up_is_no_error() -> Iterator[None]:
    """A test's server prints no traceback, in its thread, of a client that went away.

    Printing one parses source, and CPython 3.11 then fails another thread that parses (gh-106905).
    """
    usual = socketserver.BaseServer.handle_error

    def handle_error(self: socketserver.BaseServer, request: object, address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            usual(self, request, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socketserver.BaseServer, "handle_error", handle_error)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A real PostgreSQL server, started once for all tests (a socket path must be short)."""
    with (
        tempfile.TemporaryDirectory(prefix="shpg-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def new_database(postgres: EmbeddedPostgres) -> Callable[[], str]:
    """A function that makes an empty database and returns its URL."""
    numbers = itertools.count()

    def make() -> str:
        name = f"test{next(numbers)}"
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgres.url.replace("/postgres?", f"/{name}?")

    return make
