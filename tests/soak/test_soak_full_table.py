"""A full table of connections, which the whole machine has in common: nothing else may run."""

import os
from pathlib import Path

import pytest

from safehold.secure.egress.kernel.netns import pair
from safehold.testing.egress import World, register, row

pytestmark = pytest.mark.soak
LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")


def test_full_table_of_connections_passes_nothing_undeclared(tmp_path: Path) -> None:
    """With no room for connections, undeclared packets are dropped all the same."""
    with pair(f"shf{os.getpid()}") as both:
        world = World(both, tmp_path)
        before = LIMIT.read_text()
        try:
            flow = row("bulk", protocol="udp", port=9000, hour=10**8)
            world.enforcer(register(flow)).apply(first=True)
            LIMIT.write_text("1")
            for port in (53, 8443, 9000):
                world.send("udp", 40_000, port=port)
            assert set(world.received()) <= {"udp4:9000"}
        finally:
            LIMIT.write_text(before)
            world.close()
