"""Rate shaping of the uplinks with tc: an HTB tree per interface, through rtnetlink.

Quotas hold the budgets; shaping only bounds how fast a budget can go, which bounds what leaves
before a block. Classes are changed in place, so a reload does not refill their buckets.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safehold.secure.egress.declare.plan import EgressPlan
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.netns import open_links
from safehold.secure.egress.kernel.ruleset import class_ids

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_ROOT = 0x00010000
_ALL = 0x00010001
_REST = 0x000100FF
_REST_BIT_S = 256_000
_THROTTLE = 10
_MIN_BIT_S = 8_000


class Shaper:
    """Shapes the interfaces of one network namespace."""

    def __init__(self, netns: str | None) -> None:
        self._netns = netns

    def apply(self, plan: EgressPlan, flows: Sequence[Flow], throttled: frozenset[str]) -> None:
        """Shape every uplink so that all together send at the plan's rate.

        Raises:
            KernelError: An interface is missing or the kernel refused.
        """
        from pyroute2.netlink.exceptions import NetlinkError

        share = max(_MIN_BIT_S, plan.link.rate_bit_s // len(plan.link.interfaces))
        with open_links(self._netns) as links:
            for name in plan.link.interfaces:
                found = links.link_lookup(ifname=name)
                if not found:
                    raise KernelError(f"interface {name} does not exist")
                try:
                    self._tree(
                        links,
                        found[0],
                        plan=plan,
                        flows=flows,
                        throttled=throttled,
                        share=share,
                    )
                except NetlinkError as error:
                    raise KernelError(f"tc refused on {name}: {error}") from error

    def _tree(
        self,
        links: "IPRoute",
        index: int,
        *,
        plan: EgressPlan,
        flows: Sequence[Flow],
        throttled: frozenset[str],
        share: int,
    ) -> None:
        kinds = {
            (qdisc["handle"], qdisc.get_attr("TCA_KIND"))
            for qdisc in links.get_qdiscs(index=index)
            if qdisc["index"] == index
        }
        if (_ROOT, "htb") not in kinds:
            links.tc("replace", "htb", index, _ROOT, default=_REST)

        def tier(handle: int, parent: int, rate: int, ceiling: int) -> None:
            # pyroute2 takes bytes per second.
            links.tc(
                "replace-class",
                "htb",
                index,
                handle,
                parent=parent,
                rate=rate // 8,
                ceil=ceiling // 8,
                burst=plan.link.burst_bytes,
                cburst=plan.link.burst_bytes,
            )

        tier(_ALL, _ROOT, share, share)
        tier(_REST, _ALL, _MIN_BIT_S, min(_REST_BIT_S, share))
        classes = class_ids(flows)
        for flow in flows:
            ceiling = min(flow.peak_bit_s or share, share)
            if flow.id in throttled:
                ceiling = max(_MIN_BIT_S, ceiling // _THROTTLE)
            floor = max(_MIN_BIT_S, min(ceiling, share // (len(flows) + 1)))
            tier(classes[flow.id], _ALL, floor, ceiling)

    def rates(self, interface: str) -> dict[int, tuple[int, int]]:
        """The classes of an interface: handle to (rate, ceiling) in bit/s."""
        with open_links(self._netns) as links:
            found = links.link_lookup(ifname=interface)
            result = {}
            for item in links.get_classes(index=found[0]) if found else ():
                options = item.get_attr("TCA_OPTIONS")
                parms = options.get_attr("TCA_HTB_PARMS") if options else None
                if parms is not None:
                    result[item["handle"]] = (parms["rate"] * 8, parms["ceil"] * 8)
            return result
