"""Judges of host hardening, lateral movement and identity."""

from collections.abc import Iterator

from safehold.govern.controls.facts.accounts import AccountFacts, SshServer
from safehold.govern.controls.facts.documents import FlowRecords, Secrets, Staff, StartupBaseline
from safehold.govern.controls.facts.machine import ClockFacts, Disks, Kernel, Privileged
from safehold.govern.controls.facts.processes import Processes
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.system import Listeners, Sysctls
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY, HostFacts, Inapplicable, Judge, need
from safehold.govern.controls.judges.common import drilled, some

_SHELLS = ("/nologin", "/false", "/sync")
_SURFACE = (
    ("kernel/unprivileged_bpf_disabled", 1, "anybody may load BPF"),
    ("kernel/perf_event_paranoid", 2, "anybody may watch the processor"),
    ("kernel/kptr_restrict", 1, "addresses of the kernel are told"),
    ("kernel/dmesg_restrict", 1, "anybody reads the kernel's messages"),
    ("vm/memfd_noexec", 2, "programs run from anonymous memory"),
    ("kernel/io_uring_disabled", 1, "anybody may use io_uring"),
)


def hst_02(facts: HostFacts) -> Iterator[str]:
    """Every rule of the hardening profile passed."""
    found = facts.of(StartupBaseline).hardening
    yield from some(found, "hardening rule")
    for name, passed in sorted(found.items()):
        yield from need(passed, f"hardening rule {name} failed")


def hst_03(facts: HostFacts) -> Iterator[str]:
    """No program has more rights than the site's list says, and none is anybody's to change."""
    found, site = facts.of(Privileged), facts.of(Site)
    yield from (f"{path} is set-uid" for path in sorted(found.setuid - set(site.setuid)))
    yield from (f"{path} has capabilities" for path in sorted(found.capable - set(site.capable)))
    yield from (f"{path} is anybody's to change" for path in sorted(found.world_writable))


def hst_04(facts: HostFacts) -> Iterator[str]:
    """No line of sudoers leaves the password out."""
    for line in facts.of(AccountFacts).sudoers:
        yield from need(
            "NOPASSWD" not in line and "!authenticate" not in line, f"sudoers: {line[:60]}"
        )


def hst_05(facts: HostFacts) -> Iterator[str]:
    """What attacks on kernels begin with is closed to users."""
    values = facts.of(Sysctls)
    for name, least, fault in _SURFACE:
        yield from need(values.number(name) >= least, fault)
    yield from need(values.number("user/max_user_namespaces") == 0, "anybody makes namespaces")


def hst_06(facts: HostFacts) -> Iterator[str]:
    """The kernel is locked down and was started by a signed chain."""
    kernel = facts.of(Kernel)
    yield from need(kernel.lockdown in {"integrity", "confidentiality"}, "no kernel lockdown")
    yield from need(kernel.secure_boot, "no secure boot")


def hst_07(facts: HostFacts) -> Iterator[str]:
    """No container is privileged or shares the host."""
    for name, faults in sorted(facts.of(StartupBaseline).containers.items()):
        yield from need(not faults, f"container {name}: {', '.join(faults)}")


def hst_08(facts: HostFacts) -> Iterator[str]:
    """Each service at the weights runs under seccomp, without new rights."""
    for service in facts.of(Site).services:
        found = facts.of(Processes).named(service)
        yield from need(found, f"{service} does not run")
        for one in found:
            boxed = one.seccomp == 2 and one.no_new_privs
            yield from need(boxed, f"process {one.pid} ({service}) has no sandbox")


def hst_09(facts: HostFacts) -> Iterator[str]:
    """A module of mandatory access control is in force."""
    names = {"apparmor", "selinux", "smack", "tomoyo"}
    yield from need(names & set(facts.of(Kernel).lsm), "no mandatory access control")


def hst_10(facts: HostFacts) -> Iterator[str]:
    """Accelerators are closed to everybody."""
    modes = facts.of(Kernel).gpu_modes
    if not modes:
        raise Inapplicable("this host has no accelerator")
    for name, mode in sorted(modes.items()):
        yield from need(not mode & 0o007, f"{name} is open to everybody")


def hst_11(facts: HostFacts) -> Iterator[str]:
    """Units, timers and start scripts are those that were declared."""
    found = facts.of(StartupBaseline)
    yield from some(found.declared, "declared unit")
    for name in sorted({*found.declared, *found.found}):
        same = found.declared.get(name) == found.found.get(name)
        yield from need(same, f"unit {name} is not as declared")


def hst_12(facts: HostFacts) -> Iterator[str]:
    """Accounts with a shell and owners of keys are those of the site's list."""
    found, site = facts.of(AccountFacts), facts.of(Site)
    yield from some(found.users, "account")
    for one in found.users:
        shell = not one.shell.endswith(_SHELLS)
        yield from need(not shell or one.name in site.accounts, f"account {one.name} is unknown")
        yield from need(one.uid != 0 or one.name == "root", f"{one.name} is another root")
    for name in sorted(set(found.key_owners) - set(site.key_owners)):
        yield f"{name} has keys and is not on the list"


def hst_13(facts: HostFacts) -> Iterator[str]:
    """The clock is right within a second, by an authenticated source."""
    found = facts.of(ClockFacts)
    yield from need(found.offset_s < 1, f"the clock is wrong by {found.offset_s:g} s")
    yield from need(found.authenticated, "the source of time is not authenticated")


def hst_14(facts: HostFacts) -> Iterator[str]:
    """Every mounted disk but the one to start from is encrypted."""
    found = facts.of(Disks).encrypted
    kept = {target: safe for target, safe in found.items() if not target.startswith("/boot")}
    yield from some(kept, "mounted disk")
    for target, safe in sorted(kept.items()):
        yield from need(safe, f"{target} is not encrypted")


def lat_01(facts: HostFacts) -> Iterator[str]:
    """Nothing listens on a port that the site does not list."""
    for one in facts.of(Listeners).sockets:
        local = one.address.startswith("127.") or one.address == "::1"
        listed = local or one.port in facts.of(Site).listening
        yield from need(listed, f"{one.address}:{one.port} listens and is not listed")
    yield from some(facts.of(Site).listening, "listed port")


def lat_02(facts: HostFacts) -> Iterator[str]:
    """SSH takes keys only, forwards nothing, and lets nobody in as root."""
    options = facts.of(SshServer).options
    if not options:
        raise Inapplicable("this host has no SSH server")
    for key, wanted in (
        ("passwordauthentication", "no"),
        ("kbdinteractiveauthentication", "no"),
        ("allowagentforwarding", "no"),
        ("allowtcpforwarding", "no"),
        ("permitrootlogin", "no"),
    ):
        yield from need(
            options.get(key) == wanted, f"sshd: {key} is {options.get(key, 'not said')}"
        )


def lat_03(facts: HostFacts) -> Iterator[str]:
    """Certificates between services live a week at most, and no service speaks plainly."""
    found = facts.of(Secrets)
    yield from some(found.certificates, "certificate")
    for name, lifetime in sorted(found.certificates.items()):
        yield from need(lifetime <= 7 * DAY, f"{name} has a certificate for {lifetime // DAY} days")
    yield from (f"{name} speaks without TLS" for name in found.plaintext_services)


def lat_04(facts: HostFacts) -> Iterator[str]:
    """No secret is in two zones."""
    zones = facts.of(Secrets).zones
    yield from some(zones, "zone")
    seen: dict[str, str] = {}
    for zone, prints in sorted(zones.items()):
        for one in prints:
            other = seen.setdefault(one, zone)
            yield from need(other == zone, f"one secret is in {other} and in {zone}")


def lat_05(facts: HostFacts) -> Iterator[str]:
    """A scan of files, environments and histories found no secret."""
    found = facts.of(Secrets)
    yield from need(found.scanned_files > 0, "nothing was scanned")
    yield from (f"a secret lies in {place}" for place in found.exposed)


def lat_06(facts: HostFacts) -> Iterator[str]:
    """Each flow between hosts is of the baseline, or somebody was told."""
    found = facts.of(FlowRecords)
    yield from some(found.baseline_edges, "edge of the baseline")
    for edge in sorted(set(found.edges) - set(found.baseline_edges) - set(found.alerted_edges)):
        yield f"{edge} is new, and nobody was told"


def lat_07(facts: HostFacts) -> Iterator[str]:
    """Each use of a shell has the record of its session in the log."""
    log = facts.of(LogReading)
    recorded = {one.facts.get("request") for one in log.of_kind("session")}
    for case in log.used("host.shell"):
        yield from need(case.request in recorded, f"session of {case.request[:8]} has no record")


def iam_03(facts: HostFacts) -> Iterator[str]:
    """Nobody who left a day ago is enrolled."""
    staff = facts.of(Staff)
    yield from some(staff.present, "person present")
    for one in facts.of(LogReading).persons:
        left = staff.departed.get(one.id)
        yield from need(left is None or facts.at - left < DAY, f"{one.name} left and is enrolled")


def iam_04(facts: HostFacts) -> Iterator[str]:
    """Every team was recertified within 92 days."""
    teams = {team for one in facts.of(LogReading).persons for team in one.teams}
    yield from some(teams, "team")
    for team in sorted(teams):
        age = facts.at - facts.of(Staff).recertified.get(team, 0)
        yield from need(age <= 92 * DAY, f"team {team} was not recertified in 92 days")


def iam_05(facts: HostFacts) -> Iterator[str]:
    """Each service account has an owner who is present, a young secret, and no password."""
    staff = facts.of(Staff)
    yield from some(staff.services, "service account")
    local = {one.name: one for one in facts.of(AccountFacts).users}
    for one in staff.services:
        yield from need(one.owner in staff.present, f"{one.name} has no owner")
        yield from need(facts.at - one.rotated <= 90 * DAY, f"{one.name} has an old secret")
        user = local.get(one.name)
        yield from need(user is None or user.locked, f"{one.name} has a password")


def iam_07(facts: HostFacts) -> Iterator[str]:
    """Grants of vendors last a day at most, and two carried them."""
    for case in facts.of(LogReading).used("vendor."):
        brief = case.expires - case.not_before <= DAY
        two = len(set(case.carried_by) - {case.requester}) >= 2
        yield from need(brief and two, f"vendor grant {case.request[:8]} is long or lacks two")
    vendors = [one for one in facts.of(LogReading).rules if one.operation.startswith("vendor.")]
    yield from some(vendors, "rule for vendors")


JUDGES: dict[str, Judge] = {
    "hst-02": hst_02,
    "hst-03": hst_03,
    "hst-04": hst_04,
    "hst-05": hst_05,
    "hst-06": hst_06,
    "hst-07": hst_07,
    "hst-08": hst_08,
    "hst-09": hst_09,
    "hst-10": hst_10,
    "hst-11": hst_11,
    "hst-12": hst_12,
    "hst-13": hst_13,
    "hst-14": hst_14,
    "lat-01": lat_01,
    "lat-02": lat_02,
    "lat-03": lat_03,
    "lat-04": lat_04,
    "lat-05": lat_05,
    "lat-06": lat_06,
    "lat-07": lat_07,
    "lat-09": drilled("metadata-service", days=7),
    "iam-03": iam_03,
    "iam-04": iam_04,
    "iam-05": iam_05,
    "iam-07": iam_07,
    "iam-08": drilled("failed-logins", days=30),
}
