"""Facts of egress: what is declared, what enforcement remembers, what the watch last saw."""

import datetime as dt
import tomllib

import msgspec

from safehold.errors import SafeholdError
from safehold.govern.controls.facts.host import Host
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import HostError
from safehold.secure.egress.bounds.budget import total_leak
from safehold.secure.egress.declare.plan import Bound, EgressPlan, Link
from safehold.secure.egress.declare.register import Flow, parse_register
from safehold.secure.egress.enforcement.state import State
from safehold.secure.egress.units import parse_bytes, parse_rate
from safehold.secure.egress.watch.watch import TimelineRow


class EgressFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The register, the plan and the state of enforcement; sizes in bytes, rates in bits a second.

    `leak` is the most that all live flows send in the days that a theft must take.
    """

    flows: tuple[Flow, ...]
    expired: tuple[str, ...]
    enforcing: bool
    interfaces: tuple[str, ...]
    rate_bit_s: int
    weight_bytes: int
    stolen_bytes: int
    leak: int
    state: State


class WatchFacts(msgspec.Struct, frozen=True):
    """The newest rows of the watch's timeline, oldest first."""

    rows: tuple[TimelineRow, ...]


def egress(host: Host, site: Site) -> EgressFacts:
    """Read the register, the plan and the state."""
    try:
        register = parse_register(host.read(site.register).decode("utf-8", "replace"))
        plan = tomllib.loads(host.read(site.plan).decode("utf-8", "replace"))
        weights, bound, link = plan["weights"], plan.get("bound", {}), plan["link"]
        size = weights["size"]
        bytes_ = size if isinstance(size, int) else parse_bytes(size, "weights.size")
        rate = link["rate"]
        bits = rate if isinstance(rate, int) else parse_rate(rate, "link.rate")
        state = msgspec.json.decode(host.read(f"{site.egress}/enforcement.json"), type=State)
    except (SafeholdError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise HostError(f"egress: {error}") from error
    except msgspec.DecodeError as error:
        raise HostError("enforcement.json is malformed") from error
    today = dt.datetime.fromtimestamp(host.now, dt.UTC).date()
    checked = EgressPlan(
        bound=Bound(
            weight_bytes=bytes_,
            compression=float(bound.get("compression", 1 / 16)),
            steal_days=float(bound.get("steal_days", 30)),
        ),
        link=Link(interfaces=tuple(link["interfaces"]), rate_bit_s=bits),
    )
    flows = register.live(today)
    return EgressFacts(
        flows=flows,
        expired=tuple(one.id for one in register.expired(today)),
        enforcing=plan.get("mode", "enforce") == "enforce",
        interfaces=checked.link.interfaces,
        rate_bit_s=bits,
        weight_bytes=bytes_,
        stolen_bytes=checked.bound.stolen_bytes,
        leak=sum(
            total_leak([one], checked, checked.bound.steal_days * 86_400)
            for one in flows
            if not one.reconciled
        ),
        state=state,
    )


def watch(host: Host, site: Site) -> WatchFacts:
    """Read the end of the timeline."""
    lines = host.read(f"{site.egress}/timeline.jsonl").splitlines()[-2000:]
    try:
        rows = tuple(msgspec.json.decode(line, type=TimelineRow) for line in lines)
    except msgspec.DecodeError as error:
        raise HostError("timeline.jsonl is malformed") from error
    if not rows:
        raise HostError("timeline.jsonl is empty")
    return WatchFacts(rows)
