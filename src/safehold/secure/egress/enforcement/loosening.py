"""What is looser than what was approved."""

from collections.abc import Iterator, Mapping

from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.enforcement.state import State
from safehold.secure.egress.interface import EgressMode


def posture(plan: EgressPlan) -> dict[str, int]:
    """The settings of a plan as numbers of which a larger one is looser."""
    return {
        "map_mode": int(plan.mode is EgressMode.MAP),
        "loopback": int(plan.local.loopback),
        "link_local": int(plan.local.link_local),
        "neighbour_discovery": int(plan.local.neighbour_discovery),
        "raw_frames": int(not plan.local.raw_frame_guard),
        "unshaped": int(not plan.link.shape),
        "rate_bit_s": plan.link.rate_bit_s,
    }


def loosened(
    state: State, budgets: Mapping[str, Mapping[str, int]], looks: Mapping[str, int]
) -> Iterator[str]:
    """Yield the budgets and settings that are looser than the approved ones."""
    for name, windows in budgets.items():
        for window, limit in windows.items():
            if limit > state.approved.get(name, {}).get(window, 0):
                yield f"{name}.{window}"
    for name, windows_before in state.approved.items():
        if name == "total":
            yield from (f"{name}.{w}" for w in windows_before if w not in budgets.get(name, {}))
    yield from (key for key, value in looks.items() if value > state.posture.get(key, 0))
