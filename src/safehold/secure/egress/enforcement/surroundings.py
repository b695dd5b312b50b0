"""What is around the rules: devices, traffic control on them, ways out that moved away."""

from collections.abc import Sequence

import msgspec

from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.enforcement.state import State
from safehold.secure.egress.kernel.devices import Device, inner
from safehold.secure.egress.kernel.elsewhere import find_elsewhere
from safehold.secure.egress.kernel.shaping import Shaper
from safehold.secure.egress.kernel.traffic_control import (
    changed_controls,
    read_controls,
    remove_hooks,
)


class Surroundings:
    """Looks around in one network namespace, and mends traffic control there."""

    def __init__(self, netns: str | None, plan: EgressPlan) -> None:
        self._netns = netns
        self._plan = plan
        self.shaper = Shaper(netns)

    def outer(self, devices: tuple[Device, ...]) -> tuple[Device, ...]:
        """The devices that lead out of what is guarded: all but loopback and a box's inside."""
        within = inner(devices, self._plan.box.inside)
        return tuple(d for d in devices if not d.loopback and d.name not in within)

    def mended(
        self, state: State, devices: tuple[Device, ...], flows: Sequence[Flow]
    ) -> tuple[str, ...]:
        """Compare traffic control with what it was after our last change, and mend it."""
        changed = changed_controls(state.controls, read_controls(self._netns, devices))
        if changed:
            remove_hooks(self._netns, state.controls, devices)
            ways_out = set(self._plan.link.interfaces)
            if self._plan.link.shape and ways_out <= {d.name for d in devices}:
                self.shaper.apply(self._plan, flows, state.throttled)
        return changed[:5]

    def remembered(self, state: State, devices: tuple[Device, ...], compiled: str) -> State:
        """Return the state with what is in force now."""
        known = {d.name: d.mac for d in devices if d.name in self._plan.link.interfaces}
        return msgspec.structs.replace(
            state,
            compiled=compiled,
            controls=dict(read_controls(self._netns, devices)),
            macs={**state.macs, **known},
        )

    def moved(
        self, state: State | None, devices: tuple[Device, ...]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Ways out that are in another namespace now: name to namespace, and name to address."""
        here = {device.mac for device in devices}
        gone = {n: mac for n, mac in (state.macs if state else {}).items() if mac not in here}
        return (find_elsewhere(self._netns, gone) if gone else {}), gone
