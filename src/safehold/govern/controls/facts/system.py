"""Facts of the kernel as it runs: parameters, mounts, packet rules, shaping, listeners."""

import json
import re

import msgspec

from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.interface import AbsentError, HostError

_MOUNT_FIELDS = 6
"""The fields of a line before the optional ones: proc(5)."""

SYSCTLS = (
    "fs/suid_dumpable",
    "kernel/core_pattern",
    "kernel/io_uring_disabled",
    "kernel/kptr_restrict",
    "kernel/dmesg_restrict",
    "kernel/modules_disabled",
    "kernel/perf_event_paranoid",
    "kernel/unprivileged_bpf_disabled",
    "kernel/yama/ptrace_scope",
    "kernel/random/boot_id",
    "net/netfilter/nf_conntrack_acct",
    "user/max_user_namespaces",
    "vm/memfd_noexec",
)


class Sysctls(msgspec.Struct, frozen=True):
    """Kernel parameters by path; one that this kernel lacks is not there.

    `closed` holds those that could not be read, and why.
    """

    values: dict[str, str]
    closed: dict[str, str] = {}

    def number(self, name: str) -> int:
        """Return a parameter as a number; -1 where the kernel has none; HostError if unreadable."""
        if name in self.closed:
            raise HostError(self.closed[name])
        found = self.values.get(name, "")
        return int(found) if re.fullmatch(r"-?\d+", found) else -1


def sysctls(host: ControlledHost) -> Sysctls:
    """Read the parameters that judges ask for."""
    found: dict[str, str] = {}
    closed: dict[str, str] = {}
    for name in SYSCTLS:
        try:
            found[name] = host.read(f"/proc/sys/{name}").decode("ascii", "replace").strip()
        except AbsentError:
            continue
        except HostError as fault:
            closed[name] = str(fault)
    if not found:
        raise HostError("/proc/sys holds none of the parameters")
    return Sysctls(found, closed)


class MountFacts(msgspec.Struct, frozen=True):
    """One mounted file system."""

    target: str
    fstype: str
    options: frozenset[str]


class Mounts(msgspec.Struct, frozen=True):
    """Everything that is mounted."""

    mounts: tuple[MountFacts, ...]


def mounts(host: ControlledHost) -> Mounts:
    """Read mountinfo: target and options stand before the dash, the type after it."""
    found = []
    for line in host.read("/proc/self/mountinfo").decode("utf-8", "replace").splitlines():
        before, dash, after = line.partition(" - ")
        words = before.split()
        if not dash or len(words) < _MOUNT_FIELDS:
            raise HostError("mountinfo has a line of another shape")
        found.append(MountFacts(words[4], after.split()[0], frozenset(words[5].split(","))))
    return Mounts(tuple(found))


class Chain(msgspec.Struct, frozen=True):
    """A chain of nftables; hook and policy are empty for a plain one."""

    table: str
    name: str
    hook: str = ""
    policy: str = ""


class QuotaFacts(msgspec.Struct, frozen=True):
    """A named quota; `over` says that it matches when spent."""

    name: str
    limit: int
    used: int
    over: bool


class Ruleset(msgspec.Struct, frozen=True):
    """The rules that the kernel holds now."""

    chains: tuple[Chain, ...]
    quotas: dict[str, QuotaFacts]


class _Chain(msgspec.Struct, frozen=True):
    table: str
    name: str
    hook: str = ""
    policy: str = ""


class _Quota(msgspec.Struct, frozen=True):
    name: str
    limit: int = msgspec.field(name="bytes")
    used: int = 0
    inv: bool = False


class _Item(msgspec.Struct, frozen=True):
    chain: _Chain | None = None
    quota: _Quota | None = None


class _Listing(msgspec.Struct, frozen=True):
    nftables: tuple[_Item, ...]


def ruleset(host: ControlledHost) -> Ruleset:
    """Read nftables as JSON."""
    try:
        listed = msgspec.json.decode(host.run("nft", "-j", "list", "ruleset"), type=_Listing)
    except msgspec.DecodeError as error:
        raise HostError(f"nft printed no rules: {error}") from error
    chains = [one.chain for one in listed.nftables if one.chain is not None]
    quotas = [one.quota for one in listed.nftables if one.quota is not None]
    return Ruleset(
        tuple(Chain(one.table, one.name, one.hook, one.policy) for one in chains),
        {one.name: QuotaFacts(one.name, one.limit, one.used, one.inv) for one in quotas},
    )


class Shaped(msgspec.Struct, frozen=True):
    """For each device, its root discipline and the rate in bits a second (0: none)."""

    roots: dict[str, tuple[str, int]]


def shaped(host: ControlledHost) -> Shaped:
    """Read the traffic disciplines."""
    roots = {}
    for one in json.loads(host.run("tc", "-j", "qdisc", "show")):
        if one.get("root"):
            rate = one.get("options", {}).get("rate", 0)
            roots[one["dev"]] = (one["kind"], int(rate) * 8)
    return Shaped(roots)


class TcpListener(msgspec.Struct, frozen=True):
    """A listening TCP socket."""

    address: str
    port: int


class Listeners(msgspec.Struct, frozen=True):
    """Everything that listens for TCP."""

    sockets: tuple[TcpListener, ...]


def listeners(host: ControlledHost) -> Listeners:
    """Ask ss; the fourth word is address and port."""
    found = []
    for line in host.run("ss", "-Hltn").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.append(TcpListener(address.strip("[]"), int(port)))
    return Listeners(tuple(found))
