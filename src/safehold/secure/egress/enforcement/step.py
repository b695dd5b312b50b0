"""One look at a host, and what the rules should be for it."""

from collections.abc import Mapping

import msgspec

from safehold.secure.egress.enforcement.state import State
from safehold.secure.egress.interface import Window
from safehold.secure.egress.kernel.devices import Device
from safehold.secure.egress.kernel.nft import CounterReading
from safehold.secure.egress.kernel.ruleset import Desired, Quota, QuotaKey


class EnforcementStep(msgspec.Struct, frozen=True):
    """What was found and settled, and the rules that follow.

    `new`: devices that came. `rules_gone`: the rules were not all there. `gone`: accounts that the
    register does not name any more. `mended`: what was changed in traffic control.
    """

    state: State
    reading: CounterReading | None
    devices: tuple[Device, ...]
    new: tuple[str, ...]
    rules_gone: bool
    gone: tuple[str, ...]
    remaining: Mapping[str, Mapping[Window, int]]
    quotas: Mapping[QuotaKey, Quota]
    desired: Desired
    compiled: str
    findings: tuple[str, ...]
    mended: tuple[str, ...]

    @property
    def stale(self) -> bool:
        """Whether lines alone can't bring the rules up to date."""
        fresh = any(quota.fresh for quota in self.quotas.values())
        return fresh or self.rules_gone or bool(self.gone or self.new)
