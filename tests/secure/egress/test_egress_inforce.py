"""The rules in force are the rules compiled, and close by themselves without a look."""

import time

import pytest

from safehold.secure.egress.kernel.inforce import differences, parse_listing
from safehold.secure.egress.kernel.netns import run_in
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.kernel.ruleset import quota_update
from safehold.testing.egress import World, cgroup_root, control_group, plan, register, row
from safehold.testing.waiting import until

LISTING = """table inet safehold_egress {
	quota q_a_hour {
		over 10 bytes
	}

	chain output {
		type filter hook output priority 0; policy drop;
		jump local
	}
}
table inet other {
	chain output {
		accept
	}
}
"""

BY_HAND = [
    "insert rule inet safehold_egress output udp dport 9000 accept",
    "insert rule inet safehold_egress pass udp dport 9000 accept",
    "add rule inet safehold_egress undeclared accept",
    "delete chain netdev safehold_wire wire_up0",
    "flush chain inet safehold_egress undeclared",
    "chain inet safehold_egress output { policy accept; }",
    "insert rule netdev safehold_wire wire_up0 accept",
    "add chain inet safehold_egress more { type filter hook output priority 1; }",
]
"""What an administrator alone may type into nft."""


def test_other_tables_and_moving_numbers_are_left_out() -> None:
    """Only our tables are compared, and no quota's limit."""
    rules = parse_listing(LISTING)
    assert rules["safehold_egress quota q_a_hour"] == ()
    assert set(rules) == {"safehold_egress quota q_a_hour", "safehold_egress chain output"}


def test_order_of_rules_is_meaning() -> None:
    """The same rules in another order are other rules; other spaces are not."""
    assert differences({"t chain a": ("x", "y")}, {"t chain a": ("y", "x")})
    assert not differences({"t chain a": ("x  y",)}, {"t chain a": ("x y",)})


@pytest.mark.parametrize("typed", BY_HAND)
def test_rule_by_hand_is_seen_and_mended(world: World, typed: str) -> None:
    """Each change by hand is a finding at the next look, gone at the one after."""
    enforcer = world.enforcer(register(row(uid=12345)))
    enforcer.apply(first=True)
    assert enforcer.tick().findings == ()
    run_in(world.pair.inside, ["nft", typed])
    assert any("not those compiled" in found for found in enforcer.tick().findings)
    assert enforcer.tick().findings == ()
    world.send("udp", 50_000, port=9000, seconds=0.5)
    assert world.received() == {}


def test_raised_quota_is_seen(world: World) -> None:
    """A limit that somebody raised in the kernel is a finding once it is overrun."""
    enforcer = world.enforcer(register(row("bulk", protocol="udp", port=9000, hour=200_000)))
    enforcer.apply(first=True)
    quotas = NftKernel(world.pair.inside).listing("quotas")
    names = [item["quota"]["name"] for item in quotas if "q_bulk" in str(item)]
    typed = "; ".join(
        f"add quota inet safehold_egress {name} {{ over 900000000 bytes; }}" for name in names
    )
    run_in(world.pair.inside, ["nft", typed])
    world.send("udp", 600_000, port=9000, seconds=3)
    assert any("had left" in found for found in enforcer.tick().findings)


def test_honest_looks_find_nothing(world: World) -> None:
    """Blocks, throttles, groups and traffic change the rules by ourselves: no finding."""
    with control_group("inforce") as group:
        name = str(group.relative_to(cgroup_root()))
        grouped = row("grouped", port=9000).replace("uid = 0", f'cgroup = "{name}"')
        enforcer = world.enforcer(register(row(uid=12345), grouped))
        enforcer.apply(first=True)
        for act in (enforcer.tick, lambda: enforcer.throttle("replies", "x")):
            act()
            world.send("tcp", 20_000, uid=12345)
            assert enforcer.tick().findings == ()
        enforcer.block("grouped", "x")
        again = world.enforcer(register(row(uid=12345), grouped))
        assert again.tick().findings == ()


def test_without_a_look_the_kernel_closes(world: World) -> None:
    """Nobody looks any more: the kernel lets nothing out after the dead man's time."""
    short = plan(judge=type(plan().judge)(dead_man_s=3))
    enforcer = world.enforcer(register(row(uid=12345)), short)
    enforcer.apply(first=True)

    def passes() -> bool:
        before = world.received()
        world.send("tcp", 5_000, uid=12345, seconds=0.3)
        return world.received() != before

    def looked_and_passes() -> bool:
        enforcer.tick()
        return passes()

    begun = time.monotonic()
    while time.monotonic() - begun < 4:  # longer than the dead man's time
        enforcer.tick()
        time.sleep(0.2)
    until(looked_and_passes)
    until(lambda: not passes())
    assert enforcer.tick().findings == ()
    until(looked_and_passes)


def test_only_the_watch_gives_the_dead_man_time(world: World) -> None:
    """Status, an apply of what holds, and a block of a spare row take no watch's place.

    Else one administrator could end the watch and have a timer type `status`.
    """
    short = plan(judge=type(plan().judge)(dead_man_s=3))
    rows = register(row(uid=12345), row("spare", port=9000, uid=12345))
    enforcer = world.enforcer(rows, short)
    enforcer.apply(first=True)
    begun = time.monotonic()
    while time.monotonic() - begun < 4:
        enforcer.tick(renew=False)
        enforcer.apply()
        enforcer.block("spare", "x")
    world.send("tcp", 5_000, uid=12345, seconds=0.3)
    assert world.received() == {}

    def looked_and_sent() -> bool:
        enforcer.tick()
        world.send("tcp", 5_000, uid=12345, seconds=0.3)
        return world.received() != {}

    until(looked_and_sent)


def _still(world: World) -> bool:
    before = world.received()
    time.sleep(0.5)
    return world.received() == before


def test_running_connection_ends_with_the_dead_man(world: World) -> None:
    """An open connection is closed too, and what is left of the time is the kernel's to count."""
    short = plan(judge=type(plan().judge)(dead_man_s=3))
    flow = row("bulk", protocol="udp", port=9000, hour=10**12)
    enforcer = world.enforcer(register(flow), short)
    enforcer.apply(first=True)

    def looked_and_came() -> bool:
        enforcer.tick()
        return world.received() != {}

    with world.sending("udp", 10**12, port=9000) as sender:
        until(looked_and_came)
        until(lambda: _still(world))
        assert sender.poll() is None  # it goes on sending: the kernel is what stopped it


def test_dead_man_is_off_in_map_mode() -> None:
    """Map mode drops nothing, so it has no dead man."""
    from safehold.secure.egress.interface import EgressMode  # noqa: PLC0415 - one use

    assert quota_update({}, plan(mode=EgressMode.MAP)) == {"nftables": []}
