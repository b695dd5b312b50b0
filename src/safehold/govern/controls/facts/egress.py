"""Facts of egress: what is declared, what enforcement remembers, what the watch last saw."""

import datetime as dt
from pathlib import Path

import msgspec

from safehold.errors import SafeholdError
from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import HostError
from safehold.secure.egress.bounds.budget import total_leak
from safehold.secure.egress.declare.plan import parse_plan
from safehold.secure.egress.declare.register import Flow, parse_register
from safehold.secure.egress.enforcement.state import State
from safehold.secure.egress.interface import EgressMode
from safehold.secure.egress.watch.timeline_files import rows_in
from safehold.secure.egress.watch.timeline_rows import TimelineRow


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


def egress(host: ControlledHost, site: Site) -> EgressFacts:
    """Read the register, the plan and the state."""
    try:
        register = parse_register(host.read(site.register).decode("utf-8", "replace"))
        plan = parse_plan(host.read(site.plan).decode("utf-8", "replace"), Path(site.plan))
        state = msgspec.json.decode(host.read(f"{site.egress}/enforcement.json"), type=State)
    except (SafeholdError, KeyError, TypeError) as error:
        raise HostError(f"egress: {error}") from error
    except msgspec.DecodeError as error:
        raise HostError("enforcement.json is malformed") from error
    today = dt.datetime.fromtimestamp(host.now, dt.UTC).date()
    flows = register.live(today)
    return EgressFacts(
        flows=flows,
        expired=tuple(one.id for one in register.expired(today)),
        enforcing=plan.mode is EgressMode.ENFORCE,
        interfaces=plan.link.interfaces,
        rate_bit_s=plan.link.rate_bit_s,
        weight_bytes=plan.bound.weight_bytes,
        stolen_bytes=plan.bound.stolen_bytes,
        leak=total_leak(
            [one for one in flows if not one.reconciled], plan, plan.bound.steal_days * 86_400
        ),
        state=state,
    )


def watch(host: ControlledHost, site: Site) -> WatchFacts:
    """Read the end of the timeline."""
    data = host.read(f"{site.egress}/timeline.jsonl")
    try:
        rows = tuple(rows_in(data, strict=True))[-2000:]
    except ValueError as error:
        raise HostError("timeline.jsonl is malformed") from error
    if not rows:
        raise HostError("timeline.jsonl is empty")
    return WatchFacts(rows)
