"""What traffic control does on each device, in lines that can be compared.

A queue that only orders packets sends nothing by itself and is left out, because the kernel changes
it when a cable is pulled. What is compared: shaping trees with the rates of their classes, hooks
for filters (clsact, ingress), every filter with its actions and where they redirect to, eBPF
programs by the digest (tag) that the kernel computes from their code, programs attached without a
filter (TCX), and XDP.
"""

import ctypes
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from safehold.secure.egress.kernel.devices import Device
from safehold.secure.egress.kernel.netns import inside, open_links

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_PLAIN = frozenset(
    {"noqueue", "noop", "pfifo_fast", "pfifo", "bfifo", "fq", "fq_codel", "mq", "sfq"}
)
_HOOKS = {"clsact": (0xFFFFFFF2, 0xFFFFFFF3), "ingress": (0xFFFFFFF2,)}
_BPF_PROG_QUERY = 16
_TCX = {46: "ingress", 47: "egress"}
_BPF_CALL = {"x86_64": 321, "aarch64": 280}

Controls = Mapping[str, tuple[str, ...]]
"""Lines by device, as `name#index`."""


def read_controls(netns: str | None, devices: Iterable[Device]) -> Controls:
    """Return what traffic control does on each of these devices."""
    devices = list(devices)
    lines: dict[int, list[str]] = {device.index: [] for device in devices}
    with open_links(netns) as links:
        for qdisc in links.get_qdiscs():
            kind, index = str(qdisc.get_attr("TCA_KIND")), qdisc["index"]
            if index in lines and kind not in _PLAIN:
                lines[index].append(f"queue {kind} {qdisc['handle']:x} {qdisc['parent']:x}")
                parents = _HOOKS.get(kind, (qdisc["handle"],))
                for parent in parents:
                    lines[index] += _filters(links, index, parent)
                if kind not in _HOOKS:
                    lines[index] += _classes(links, index)
    for index, programs in _attached(netns, lines):
        lines[index] += programs
    for device in devices:
        if device.xdp:
            lines[device.index].append("an XDP program")
    return {device.key: tuple(sorted(lines[device.index])) for device in devices}


def changed_controls(before: Controls, now: Controls) -> tuple[str, ...]:
    """Say what differs on devices that were there before and still are."""
    said = []
    for key in sorted(before.keys() & now.keys()):
        name = key.partition("#")[0]
        for line in sorted({*before[key], *now[key]}):
            if (line in before[key]) != (line in now[key]):
                what = "is new" if line in now[key] else "is gone"
                said.append(f"traffic control of {name}: {line} {what}")
    return tuple(said)


def remove_hooks(netns: str | None, before: Controls, devices: Iterable[Device]) -> None:
    """Take away the hooks for filters that a device did not have before, with their filters."""
    from pyroute2.netlink.exceptions import NetlinkError

    with open_links(netns) as links:
        for device in devices:
            known = before.get(device.key)
            for kind in _HOOKS:
                if known is not None and not any(f"queue {kind} " in line for line in known):
                    try:
                        links.tc("del", kind, device.index)
                    except NetlinkError:
                        # There was none.
                        continue


def _classes(links: "IPRoute", index: int) -> Iterator[str]:
    for item in links.get_classes(index=index):
        options = item.get_attr("TCA_OPTIONS")
        parms = options.get_attr("TCA_HTB_PARMS") if options else None
        if parms is not None:
            yield f"class {item['handle']:x} {parms['rate']} {parms['ceil']}"


def _filters(links: "IPRoute", index: int, parent: int) -> Iterator[str]:
    for item in links.get_filters(index=index, parent=parent):
        found = sorted(_said(item.get_attr("TCA_OPTIONS")))
        if found:
            yield f"filter {item.get_attr('TCA_KIND')} {parent:x} {' '.join(found)}"


def _said(node: object) -> Iterator[str]:
    """The words of a filter's options that carry meaning; counters and times are left out."""
    for name, value in getattr(node, "get", lambda *_: [])("attrs", []) or []:
        if name in {"TCA_ACT_KIND", "TCA_BPF_NAME", "TCA_BPF_TAG"}:
            yield f"{name.rsplit('_', 1)[1].lower()}={value}"
        elif name == "TCA_U32_SEL":
            keys = [f"{k['key_val']:x}/{k['key_mask']:x}@{k['key_off']}" for k in value["keys"]]
            yield f"match={','.join(keys)}"
        elif name == "TCA_MIRRED_PARMS":
            yield f"to={value['ifindex']} how={value['eaction']}"
        elif hasattr(value, "get"):
            yield from _said(value)


def _attached(netns: str | None, indexes: Iterable[int]) -> Iterator[tuple[int, list[str]]]:
    """Programs attached to devices without a filter, by their number in the kernel."""
    number = _BPF_CALL.get(platform.machine())
    if number is None:
        return
    call = ctypes.CDLL(None, use_errno=True).syscall
    with inside(netns):
        for index in indexes:
            found = []
            for kind, name in _TCX.items():
                ids = (ctypes.c_uint32 * 64)()
                query = struct.pack("IIIIQII", index, kind, 0, 0, ctypes.addressof(ids), 64, 0)
                asked = ctypes.create_string_buffer(query.ljust(72, b"\0"))
                if call(number, _BPF_PROG_QUERY, asked, 72) == 0:
                    (count,) = struct.unpack_from("I", asked.raw, 24)
                    found += [f"program {ids[i]} at {name}" for i in range(min(count, 64))]
            if found:
                yield index, found
