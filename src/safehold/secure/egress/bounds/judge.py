"""The judge: what devices sent against what the rules let through, both from the kernel.

Each look reads the devices, the rules' counters, and the devices again. The first reading of now
against the second of the last look can't be above what left between the two readings of the
counters, so honest traffic never shows an excess, however fast it flows. What is missing (a queue
dropped packets) is no credit for later looks, but for packets that wait for a neighbour's address,
and those one look only. So whatever a thief does, what leaves is charged to a budget, or is within
the bound, or ends in a closure; beside the bound, only what leaves between the two readings of the
devices (thousandths of the time) is not seen.
"""

from collections.abc import Iterable, Mapping

import msgspec

from safehold.secure.egress.kernel.devices import Device

LEAST_SEGMENT = 536
"""No segment that the kernel cuts is smaller (tcp_min_snd_mss, which `apply` sets)."""

SEGMENT_HEADERS = 92
"""IPv6 with TCP, its options and a fragment header: what each cut repeats at most."""

_WAITING = 262_144
"""What may wait for a neighbour's address (net.ipv4.neigh.default.unres_qlen_bytes), rounded up."""


class Sent(msgspec.Struct, frozen=True):
    """One device at one reading: bytes and packets that it has sent."""

    sent: int
    packets: int
    queued: int = 0


class Bench(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the judge remembers between looks."""

    devices: Mapping[str, Sent] = {}
    passed: Mapping[str, int] = {}
    packets: Mapping[str, int] = {}
    names: tuple[str, ...] = ()
    excess: int = 0
    missing: int = 0
    worst: str = ""
    started: bool = False
    at: float = 0.0


class Look(msgspec.Struct, frozen=True):
    """The kernel's answers of one look; `passed` and `packets` are the rules', by counter."""

    before: tuple[Device, ...]
    after: tuple[Device, ...]
    passed: Mapping[str, int]
    packets: Mapping[str, int]


def judge(bench: Bench, look: Look, control: int = 0) -> Bench:
    """Return what the judge knows after a look; the first one only remembers.

    `control` bytes since the last look are the kernel's own link control, which no rule sees.
    """
    kept = msgspec.structs.replace(
        bench,
        devices={d.key: Sent(d.sent, d.packets, d.backlog) for d in _counted(look.after)},
        passed=dict(look.passed),
        packets=dict(look.packets),
        names=tuple(sorted(d.key for d in look.after)),
        started=True,
    )
    if not bench.started:
        return kept
    sent, headers, packets = 0, 0, 0
    biggest = (0, "")
    for device in _counted(look.before):
        base = bench.devices.get(device.key, Sent(0, 0))
        if device.sent < base.sent:
            # The counter began anew; all of it is new.
            base = Sent(0, 0)
        new = device.sent + device.backlog - base.sent - base.queued
        frames = max(0, device.packets - base.packets)
        sent += new
        packets += frames
        headers += frames * device.header
        biggest = max(biggest, (new, device.name))
    let = _grown(bench.passed, look.passed)
    cut = max(0, packets - _grown(bench.packets, look.packets))
    # What a queue holds was counted by the rules with no frame header yet.
    allowed = let + headers + min(cut, let // LEAST_SEGMENT) * SEGMENT_HEADERS
    over = sent - allowed
    credit = min(bench.missing, _WAITING, over) if over > 0 else 0
    return msgspec.structs.replace(
        kept,
        excess=max(0, bench.excess + over - credit - control),
        missing=max(0, -over),
        worst=biggest[1] if over > credit else bench.worst,
    )


def verdict(bench: Bench, bound: int) -> str:
    """Say what left beside the rules, or nothing while it is within the bound."""
    if bench.excess <= bound:
        return ""
    return f"{bench.excess} bytes left past the rules, most by {bench.worst}"


def strangers(bench: Bench, devices: Iterable[Device]) -> tuple[str, ...]:
    """Devices that were not there at the last look."""
    if not bench.started:
        return ()
    known = set(bench.names)
    return tuple(d.name for d in devices if d.key not in known and not d.loopback)


def acquitted(bench: Bench) -> Bench:
    """Start again after two persons looked."""
    return msgspec.structs.replace(bench, excess=0, missing=0, worst="")


def _counted(devices: Iterable[Device]) -> list[Device]:
    return [d for d in devices if not d.loopback and not d.above]


def _grown(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    """How far counters went; one that was made anew began at 0."""
    total = 0
    for name, value in now.items():
        old = before.get(name, 0)
        total += value - old if value >= old else value
    return total
