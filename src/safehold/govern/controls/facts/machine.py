"""Facts of the machine: kernel, packages, audit, clock, disks, programs with more rights."""

import json
import re
import stat
from contextlib import suppress

import msgspec

from safehold.govern.controls.facts.accounts import lines_of
from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.facts.system import sysctls
from safehold.govern.controls.interface import AbsentError, HostError


class Kernel(msgspec.Struct, frozen=True):
    """What the kernel was started with, and which modules and devices it has."""

    lockdown: str
    lsm: tuple[str, ...]
    modules: frozenset[str]
    sig_enforce: bool
    has_modules: bool
    refused_modules: frozenset[str]
    wireless: tuple[str, ...]
    swaps: tuple[str, ...]
    hibernation: bool
    gpu_modes: dict[str, int]
    secure_boot: bool
    iommu: int


def kernel(host: ControlledHost) -> Kernel:
    """Read /proc/modules, securityfs and sysfs."""

    def text(path: str) -> str:
        try:
            return host.read(path).decode("utf-8", "replace").strip()
        except AbsentError:
            return ""

    def names(path: str) -> tuple[str, ...]:
        try:
            return host.names(path)
        except AbsentError:
            return ()

    listed = text("/proc/modules")
    refused: set[str] = set()
    for name in names("/etc/modprobe.d"):
        words = re.findall(
            r"^(?:blacklist|install)\s+(\S+)", text(f"/etc/modprobe.d/{name}"), re.MULTILINE
        )
        refused.update(word.replace("-", "_") for word in words)
    radios = [one for one in names("/sys/class/net") if names(f"/sys/class/net/{one}/wireless")]
    state = re.search(r"\[(\w+)\]", text("/sys/kernel/security/lockdown"))
    secure = text("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
    gpus = {
        f"/dev/{one}": host.stat(f"/dev/{one}").mode & 0o777
        for one in names("/dev")
        if re.match(r"(nvidia\d+|kfd|accel\d+)$", one)
    }
    return Kernel(
        lockdown=state.group(1) if state else "",
        lsm=tuple(one for one in text("/sys/kernel/security/lsm").split(",") if one),
        modules=frozenset(line.split()[0] for line in listed.splitlines()),
        sig_enforce=text("/sys/module/module/parameters/sig_enforce") == "Y",
        has_modules="kernel/modules_disabled" in sysctls(host).values,
        refused_modules=frozenset(refused),
        wireless=(*radios, *names("/sys/class/bluetooth")),
        swaps=tuple(line.split()[0] for line in text("/proc/swaps").splitlines()[1:]),
        hibernation="disk" in text("/sys/power/state").split(),
        gpu_modes=gpus,
        secure_boot=secure.endswith("\x01"),
        iommu=len(names("/sys/class/iommu")),
    )


class Packages(msgspec.Struct, frozen=True):
    """Installed packages, where updates come from, and whether a restart is due."""

    installed: dict[str, str]
    sources: tuple[str, ...]
    restart_due: bool


def packages(host: ControlledHost) -> Packages:
    """Ask dpkg, and read the lists of apt."""
    installed = {}
    for line in host.run("dpkg-query", "-W", "-f", "${Package} ${Version}\n").splitlines():
        name, _, version = line.partition(" ")
        installed[name] = version
    sources: list[str] = []
    for folder in ("/etc/apt/sources.list.d",):
        with suppress(AbsentError):
            for name in host.names(folder):
                sources += _sources(host, f"{folder}/{name}")
    with suppress(AbsentError):
        sources += _sources(host, "/etc/apt/sources.list")
    due = True
    try:
        host.stat("/run/reboot-required")
    except AbsentError:
        due = False
    return Packages(installed, tuple(sources), due)


def _sources(host: ControlledHost, path: str) -> list[str]:
    return re.findall(r"https?://([^/\s]+)", "\n".join(lines_of(host, path)))


class AuditRules(msgspec.Struct, frozen=True):
    """The rules of the kernel's audit, whether they are locked, and how many events were lost."""

    rules: tuple[str, ...]
    locked: bool
    lost: int


def audit_rules(host: ControlledHost) -> AuditRules:
    """Ask auditctl."""
    state = dict(
        line.split(None, 1) for line in host.run("auditctl", "-s").splitlines() if " " in line
    )
    return AuditRules(
        tuple(host.run("auditctl", "-l").splitlines()),
        state.get("enabled", "") == "2",
        int(state.get("lost", "-1")),
    )


class ClockFacts(msgspec.Struct, frozen=True):
    """How the clock is kept: seconds of offset, and whether its source is authenticated."""

    offset_s: float
    authenticated: bool


def clock(host: ControlledHost) -> ClockFacts:
    """Ask chrony for its tracking and its authentication."""
    words = host.run("chronyc", "-c", "tracking").strip().split(",")
    authenticated = "NTS" in host.run("chronyc", "-c", "authdata")
    try:
        return ClockFacts(abs(float(words[4])), authenticated)
    except (IndexError, ValueError) as error:
        raise HostError("chronyc printed no tracking") from error


class Disks(msgspec.Struct, frozen=True):
    """Mounted file systems of disks, each with whether an encrypted layer lies below it."""

    encrypted: dict[str, bool]


def disks(host: ControlledHost) -> Disks:
    """Ask lsblk for its tree; a child of a `crypt` device is encrypted."""
    found: dict[str, bool] = {}

    def walk(nodes: list[dict[str, object]], *, below: bool) -> None:
        for node in nodes:
            inside = below or node.get("type") == "crypt"
            target = node.get("mountpoint")
            if isinstance(target, str) and target:
                found[target] = inside
            children = node.get("children")
            walk(children if isinstance(children, list) else [], below=inside)

    listed = json.loads(host.run("lsblk", "-J", "-o", "NAME,TYPE,MOUNTPOINT"))
    walk(listed["blockdevices"], below=False)
    return Disks(found)


class Privileged(msgspec.Struct, frozen=True):
    """Programs with set-uid or set-gid bits, and files with capabilities, in the usual places."""

    setuid: frozenset[str]
    capable: frozenset[str]
    world_writable: frozenset[str]


_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/lib")


def privileged(host: ControlledHost) -> Privileged:
    """Look at modes in the directories of programs, and ask getcap."""
    setuid, writable = set(), set()
    for place in _PLACES:
        with suppress(AbsentError):
            for name in host.names(place):
                path = f"{place}/{name}"
                mode = host.stat(path).mode
                if mode & 0o6000 and stat.S_ISREG(mode):
                    setuid.add(path)
                if mode & 0o002 and stat.S_ISREG(mode):
                    writable.add(path)
    capable = {
        line.rsplit(" ", 1)[0] for line in host.run("getcap", "-r", *_PLACES[:2]).splitlines()
    }
    return Privileged(frozenset(setuid), frozenset(capable), frozenset(writable))
