"""The limits under which the gateway is tested."""

import msgspec

from safehold.guard.gateway.policy import Limits

SMALL = Limits(
    max_body_bytes=1_000_000,
    max_event_bytes=200_000,
    idle_timeout_s=60,
    connect_timeout_s=60,
    body_timeout_s=60,
    stall_timeout_s=60,
    total_timeout_s=300,
    drain_timeout_s=5,
    verdict_wait_s=60,
)
"""Sizes that a test reaches, and times that a busy machine does not."""
IMPATIENT = msgspec.structs.replace(
    SMALL, idle_timeout_s=0.2, body_timeout_s=0.2, stall_timeout_s=1
)
"""For the tests in which something really hangs."""
