"""A policy to start from, and inventories that are signed."""

import datetime as dt

import pytest

from safehold.secure.endpoint.policy import EndpointPolicy, parse_policy

TODAY = dt.date(2026, 11, 29)
POLICY = """
version = 1
mode = "enforce"
host = "gpu-1"

[[allow]]
name = "system"
kinds = ["elf", "library", "script"]
path = ["/usr/**"]
owner = "platform"
reason = "the operating system"
ticket = "OPS-1"
"""


@pytest.fixture
def policy() -> EndpointPolicy:
    """One allow row: what lies below /usr."""
    return parse_policy(POLICY)


@pytest.fixture
def base_text() -> str:
    """The text of that policy."""
    return POLICY


@pytest.fixture
def today() -> dt.date:
    """The day of the tests."""
    return TODAY
