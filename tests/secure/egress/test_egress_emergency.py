"""A block and a seal reach the kernel before anything is read or written."""

from pathlib import Path
from typing import Any

import pytest

from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.interface import RefuseAll, StateError
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.statements import TABLE
from safehold.testing.egress import TODAY, FakeClock, World, plan, register, row


class Watching(NftKernel):
    """A kernel that notes what it was given, and what the disk held then."""

    def __init__(self, netns: str, state: Path) -> None:
        super().__init__(netns)
        self._state = state
        self.given: list[tuple[list[dict[str, Any]], bytes]] = []

    def apply(self, transaction: dict[str, Any]) -> None:
        """Apply it, and note it."""
        super().apply(transaction)
        self.given.append((transaction["nftables"], self._state.read_bytes()))


def enforcer(world: World, clock: FakeClock) -> tuple[Enforcer, Watching, Path]:
    """An enforcer of one flow that was applied, its kernel and its state."""
    state = world.folder / "state" / "enforcement.json"
    kernel = Watching(world.pair.inside, state)
    made = Enforcer(
        register=register(row(protocol="udp", port=9000)),
        plan=plan(),
        store=StateFile(state.parent),
        audit=ChainedLog(world.folder / "audit.jsonl"),
        authorizer=RefuseAll(),
        kernel=NftKernel(world.pair.inside),
        clock=clock,
        today=TODAY,
    )
    made.apply(first=True)
    made._kernel = kernel
    return made, kernel, state


@pytest.mark.parametrize("flow", ["replies", "*"])
def test_the_kernel_drops_before_the_disk_knows(world: World, clock: FakeClock, flow: str) -> None:
    """The first thing is one rule at the head; the state on disk is still the one of before."""
    made, kernel, state = enforcer(world, clock)
    before = state.read_bytes()
    if flow == "*":
        made.close_all("drill")
    else:
        made.block(flow, "drill")
    first, held = kernel.given[0]
    assert all(set(one) == {"insert"} for one in first)
    assert held == before
    assert len(kernel.given) >= 2
    # Then the rules are whole again: the next look finds nothing strange.
    clock.uptime += 10
    assert made.tick().findings == ()


def test_a_flow_is_dropped_though_the_state_is_broken(world: World, clock: FakeClock) -> None:
    """Nothing arrives once `block` was said, even where it fails for a state nobody can read."""
    made, _, state = enforcer(world, clock)
    world.send("udp", 2_000, port=9000)
    arrived = world.received()
    assert sum(arrived.values()) == 2_000
    state.write_bytes(b"{")
    with pytest.raises(StateError):
        made.block("replies", "drill")
    world.send("udp", 2_000, port=9000, seconds=2.0)
    assert world.received() == arrived


def test_a_host_without_rules_is_sealed_as_ever(world: World, clock: FakeClock) -> None:
    """Where no rules of ours are in force, the one rule is refused and the whole ones come."""
    made, kernel, _ = enforcer(world, clock)
    kernel._nft(["flush", "ruleset"], b"")
    made.close_all("drill")
    world.send("udp", 2_000, port=9000, seconds=2.0)
    assert sum(world.received().values()) == 0


def test_a_block_costs_no_rule_of_another_flow(world: World, clock: FakeClock) -> None:
    """Only its own chain is made anew, said once or twice; the next look finds all as compiled."""
    made, kernel, _ = enforcer(world, clock)
    kernel.given.clear()
    made.block("replies", "drill")
    made.block("replies", "said twice")
    assert max(len(commands) for commands, _ in kernel.given) <= 2
    kernel.given.clear()
    clock.uptime += 10
    assert made.tick().findings == ()
    assert not any("chain" in str(commands) for commands, _ in kernel.given)
    world.send("udp", 2_000, port=9000)
    assert sum(world.received().values()) == 0


def test_what_was_changed_beside_a_block_is_found(world: World, clock: FakeClock) -> None:
    """Rules that were taken out before or after a block come back at the next look, with a word."""
    for before in (True, False):
        made, kernel, _ = enforcer(world, clock)
        for blocked in (False, True) if before else (True, False):
            if blocked:
                made.block("replies", "drill")
            else:
                kernel._nft(["flush", "chain", "inet", TABLE, "undeclared"], b"")
        clock.uptime += 10
        assert any("not those compiled" in found for found in made.tick().findings)
        clock.uptime += 10
        assert made.tick().findings == ()
